"""Row-wise fp8: weights and activations in E4M3, each of their rows with a scale of its own.

The scaling is that of torchao's PerRow and vLLM's per-token fp8; the products are cuBLAS', through
torch._scaled_mm.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .stored_weight import Stored

Rows = tuple[Tensor, Tensor]  # E4M3 [..., columns], float32 [..., 1]; see quantise_rows

# E4M3's largest number. Where bf16 rounds the scale down and the quotient up, a value comes out as
# 450, which is rounded to 448 again; only what is beyond 464 would be NaN.
_LARGEST = 448.0
_MULTIPLE = 16  # of which both sides of a weight have to be one
_PROBE_ERROR = 0.01  # of the probe's product; bf16 rounds it by 0.002


def quantise_rows(values: Tensor) -> Rows:
    """[..., columns] of bf16 or float32 as E4M3 and the scale of each row: values = data * scale.

    One reduction and two passes, with nothing to clamp: not compiled, each pass costs a tenth of
    the product it is for.
    """
    largest = torch.linalg.vector_norm(values, float("inf"), dim=-1, keepdim=True)
    # a row of zeros stays one
    scale = (largest / _LARGEST).clamp(min=torch.finfo(values.dtype).tiny)
    return (values / scale).to(torch.float8_e4m3fn), scale.float()


def to_fp8(weight: Tensor) -> Stored:
    """A weight [rows, columns] of any float type as E4M3 with a scale per row."""
    data, scale = quantise_rows(weight.float())
    return Stored(data, tuple(weight.shape), scale)


def fits(shape: tuple[int, ...], dtype: torch.dtype = torch.float8_e4m3fn) -> bool:
    """Whether a weight of this shape, held in this type, can be a factor."""
    sides = len(shape) == 2 and all(side % _MULTIPLE == 0 for side in shape)
    return sides and dtype == torch.float8_e4m3fn


def row_scale(scale: Tensor | None, rows: int, device: torch.device) -> Tensor:
    """A stored weight's scale, [] or [rows, 1] or None, as float32 [rows, 1]."""
    if scale is None:
        return torch.ones(rows, 1, device=device)
    return scale.to(device, torch.float32).expand(rows, 1).contiguous()


def multiply(left: Rows, data: Tensor, scale: Tensor, bias: Tensor | None, like: Tensor) -> Tensor:
    """The product of quantised rows and a weight, in the dtype of `like`.

    Args:
        left: [rows, in] and its scale.
        data, scale: [out, in] of E4M3, and float32 [out, 1].
        bias: [out], of the dtype of `like`, or None.
    """
    rows, row_scales = left
    return torch._scaled_mm(
        rows, data.t(), scale_a=row_scales, scale_b=scale.t(), bias=bias, out_dtype=like.dtype,
        use_fast_accum=True,
    )  # fmt: skip


def matmul(values: Tensor, data: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """A linear layer in 8 bits: [..., in] to [..., out].

    Args:
        values: bf16 or float32.
        data, scale: the weight, E4M3 [out, in], and its scale: [], [out, 1] or None.
        bias: [out] or None.
    """
    scales = row_scale(scale, len(data), data.device)
    bias = None if bias is None else bias.to(values.dtype)
    product = multiply(quantise_rows(values.flatten(0, -2)), data, scales, bias, values)
    unflattened: Tensor = product.unflatten(0, values.shape[:-1])
    return unflattened


class QuantisedOnce:
    """The last tensor that was quantised: to_q, to_k, to_v and proj_mlp get the very same one, one
    after another. Nobody may write into a tensor between two of its uses.
    """

    def __init__(self) -> None:
        self._values: Tensor | None = None  # held, so that no other tensor takes its place
        self._rows: Rows | None = None

    def rows(self, values: Tensor) -> Rows:
        """[..., columns] as quantised rows."""
        if torch.compiler.is_compiling():  # the compiler finds what is computed twice
            return quantise_rows(values.flatten(0, -2))
        if self._rows is None or values is not self._values:
            self.clear()
            self._values, self._rows = values, quantise_rows(values.flatten(0, -2))
        return self._rows

    def clear(self, *_: object) -> None:
        """Lets go of it; takes what a hook is given."""
        self._values = self._rows = None


@functools.cache
def can_multiply(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether the device multiplies 8-bit floats into this type, and right: by a small product.
    False off CUDA.

    Raises:
        torch.OutOfMemoryError: there is no memory for the small product.
    """
    if device.type != "cuda":
        return False
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(32, 64, generator=generator).to(device, dtype)
    weight = to_fp8(torch.randn(48, 64, generator=generator).to(device))
    rows, scales = quantise_rows(values)
    try:
        product = matmul(values, weight.data, weight.scale, None)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError):  # torch's errors for a card, or a library, without it
        return False
    expected = (rows.float() * scales) @ weight.dense(torch.float32).t()
    error = (product.float() - expected).norm() / expected.norm()
    return bool(error < _PROBE_ERROR)
