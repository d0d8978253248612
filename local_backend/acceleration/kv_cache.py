"""Storage and formats of the KV cache of the retained (unmasked) tokens.

Each attention block has one, held by masked_token_attention.CachedFluxAttnProcessor. It is in fp8
where VRAM is short. diffusers'
counterpart for text tokens is hooks.text_kv_cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..quantization.fp8 import quantise_rows

_FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class KVCacheFormat:
    """What cached keys and values are stored as.

    Attributes:
        dtype: of their numbers; fp8 takes a scale per row of channels besides.
        change: the change that led to the last value is cached, too.
    """

    dtype: torch.dtype
    change: bool

    def bytes(self, shape: tuple[int, ...]) -> int:
        """The bytes that a tensor of this shape takes."""
        rows = prod(shape[:-1])
        each = rows * shape[-1] * self.dtype.itemsize + (4 * rows if self.dtype == _FP8 else 0)
        return each * (2 if self.change else 1)

    def allocate(
        self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Zeros of this shape, and the scale of each row in `dtype` where they are fp8."""
        data = torch.zeros(shape, dtype=dtype, device=device).to(self.dtype)
        if self.dtype != _FP8:
            return data, None
        return data, torch.ones((*shape[:-1], 1), dtype=dtype, device=device)


def kv_cache_formats(device: torch.device, dtype: torch.dtype) -> tuple[KVCacheFormat, ...]:
    """All formats for tensors of this type, the best one first: 8 bits take time and a little of
    the quality, doing without the change takes more of it.
    """
    plain = KVCacheFormat(dtype, change=True)
    if device.type not in ("cuda", "xpu"):
        return (plain,)
    return plain, KVCacheFormat(_FP8, change=True), KVCacheFormat(_FP8, change=False)


class CachedTensor:
    """The last value of keys or values [..., channels], and the change that led to it.

    All buffers are allocated at once and only written to later, so that a compiled graph can do it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kv_cache_format: KVCacheFormat,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`dtype`: of what is put and got."""
        self._dtype = dtype
        kinds = ("value", "change") if kv_cache_format.change else ("value",)
        self._buffers = {kind: kv_cache_format.allocate(shape, device, dtype) for kind in kinds}

    def put(self, value: Tensor) -> None:
        if "change" in self._buffers:
            self._write("change", value - self._read("value"))
        self._write("value", value)

    def get(self, ahead: Tensor) -> Tensor:
        """The value, extrapolated by `ahead` [] times the last change."""
        value = self._read("value")
        if "change" not in self._buffers:
            return value
        return torch.addcmul(value, self._read("change"), ahead.to(self._dtype))

    def _write(self, kind: str, value: Tensor) -> None:
        data, scale = self._buffers[kind]
        if scale is None:
            data.copy_(value)
            return
        rows, scales = quantise_rows(value)
        data.copy_(rows)
        scale.copy_(scales)

    def _read(self, kind: str) -> Tensor:
        data, scale = self._buffers[kind]
        return data if scale is None else data.to(self._dtype) * scale
