"""A tensor that is remembered from step to step, in 8 bits where memory is dear."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

_FP8 = torch.float8_e4m3fn
_FP8_MOST = 440.0  # a little under the largest number, 448, for the rounding of 16-bit work


@dataclass(frozen=True)
class Keeping:
    """How tensors are remembered.

    Attributes:
        dtype: what their numbers are held in; fp8 takes a scale per row of channels besides.
        change: the change that led to the last value is held, too.
    """

    dtype: torch.dtype
    change: bool

    def bytes(self, shape: tuple[int, ...]) -> int:
        """What a tensor of this shape takes."""
        rows = prod(shape[:-1])
        each = rows * shape[-1] * self.dtype.itemsize + (4 * rows if self.dtype == _FP8 else 0)
        return each * (2 if self.change else 1)


def keepings(device: torch.device, dtype: torch.dtype) -> tuple[Keeping, ...]:
    """All ways to keep tensors of this type, the best one first: 8 bits take time and a little of
    the quality, doing without the change takes more of it.
    """
    plain = Keeping(dtype, change=True)
    if device.type not in ("cuda", "xpu"):
        return (plain,)
    return plain, Keeping(_FP8, change=True), Keeping(_FP8, change=False)


class KeptTensor:
    """The last value of a tensor [..., channels], and the change that led to it.

    All places are made at once and only written to later, so that a compiled graph can do it.
    """

    def __init__(
        self, shape: tuple[int, ...], keeping: Keeping, device: torch.device, dtype: torch.dtype
    ) -> None:
        """`dtype`: of what is put and got."""
        self._dtype = dtype
        self._value = _Place(shape, keeping.dtype, dtype, device)
        self._change = _Place(shape, keeping.dtype, dtype, device) if keeping.change else None

    def put(self, value: Tensor) -> None:
        if self._change is not None:
            self._change.write(value - self._value.read(self._dtype))
        self._value.write(value)

    def get(self, ahead: Tensor) -> Tensor:
        """The value, gone on by `ahead` [] times the last change."""
        value = self._value.read(self._dtype)
        if self._change is None:
            return value
        return torch.addcmul(value, self._change.read(self._dtype), ahead.to(self._dtype))


class _Place:
    """A tensor, in fp8 with a scale for the last dimension."""

    def __init__(
        self, shape: tuple[int, ...], kept: torch.dtype, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._data = torch.zeros(shape, dtype=dtype, device=device).to(kept)
        scaled = kept == _FP8
        self._scale = torch.ones((*shape[:-1], 1), dtype=dtype, device=device) if scaled else None

    def write(self, value: Tensor) -> None:
        if self._scale is None:
            self._data.copy_(value)
            return
        most = torch.linalg.vector_norm(value, float("inf"), dim=-1, keepdim=True).clamp(min=1e-6)
        self._scale.copy_(most / _FP8_MOST)
        self._data.copy_(value * (_FP8_MOST / most))

    def read(self, dtype: torch.dtype) -> Tensor:
        return self._data if self._scale is None else self._data.to(dtype) * self._scale
