"""One weight as its file keeps it, and what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_FLOATS = (torch.bfloat16, torch.float16, torch.float32)
_UNPACKERS: dict[Any, Callable[..., Tensor]] = {}  # a plain table, which torch.compile can read


@dataclass(frozen=True, eq=False)
class Stored:
    """One weight as its file keeps it.

    Attributes:
        data: the file's values; for a packed GGUF type uint8 [rows, bytes of a row].
        shape: of the weight.
        scale: float32, [] for the whole weight or [rows, 1]; the weight is data * scale.
        gguf_type: GGUF's number of the packed type; None for values of their own.
    """

    data: Tensor
    shape: tuple[int, ...]
    scale: Tensor | None = None
    gguf_type: int | None = None

    @property
    def quantized(self) -> bool:
        """Whether the data is not plain bf16, fp16 or fp32."""
        return self.data.dtype not in _FLOATS

    @property
    def nbytes(self) -> int:
        """What data and scale take."""
        return self.data.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def rows(self, start: int, stop: int) -> Stored:
        """The rows start..stop - 1, as views."""
        scale = self.scale
        if scale is not None and scale.dim():
            scale = scale[start:stop]
        shape = (stop - start, *self.shape[1:])
        return Stored(self.data[start:stop], shape, scale, self.gguf_type)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight itself, of this type, on data's device."""
        return dense(self.data, self.scale, self.gguf_type, self.shape, dtype)


def stack(pieces: Sequence[Stored]) -> Stored:
    """Pieces of one weight under each other; a copy unless there is one piece only."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    scale = first.scale
    if scale is not None and scale.dim():
        scale = torch.cat([piece.scale for piece in pieces if piece.scale is not None])
    shape = (sum(piece.shape[0] for piece in pieces), *first.shape[1:])
    return Stored(torch.cat([piece.data for piece in pieces]), shape, scale, first.gguf_type)


def dense(
    data: Tensor,
    scale: Tensor | None,
    gguf_type: int | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Tensor:
    """What stored data stands for, of this type and on data's own device; see Stored."""
    if gguf_type is not None:
        return _unpack(data, gguf_type, dtype).reshape(shape)
    weight = data.to(dtype)
    return weight if scale is None else weight * scale.to(dtype)


def unpackable_types() -> frozenset[str]:
    """The names of GGUF's packed types that dense() knows."""
    return frozenset(kind.name for kind in _unpackers())


def _unpack(data: Tensor, gguf_type: int, dtype: torch.dtype) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType(gguf_type)
    values, size = GGML_QUANT_SIZES[kind]
    # GGUF's own scales are fp16: enough for 16-bit work, and bf16 would round them
    work = torch.float32 if dtype == torch.float32 else torch.float16
    blocks = data.contiguous().view(-1, size)
    return _unpackers()[kind](blocks, values, size, work).to(dtype)


def _unpackers() -> dict[Any, Callable[..., Tensor]]:
    if not _UNPACKERS:
        # imported here because it needs the gguf package, which only GGUF files need
        from diffusers.quantizers.gguf.utils import dequantize_functions

        _UNPACKERS.update(dequantize_functions)
    return _UNPACKERS
