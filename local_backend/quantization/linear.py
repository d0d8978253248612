"""A linear layer whose weight stays quantised as in its file and is dequantised for each use.

Its forward adds a LoRA's share, up @ down @ x, to the output. The same idea is in bitsandbytes'
Linear4bit and in QLoRA (arXiv:2305.14314).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from .fp8 import QuantisedOnce, multiply
from .stored_weight import dense


@dataclass(frozen=True, eq=False)
class LowRank:
    """A LoRA's two factors: up @ down is added to a layer's weight, alpha already in up.

    Attributes:
        down: [rank, in].
        up: [out, rank].
    """

    down: Tensor
    up: Tensor


class StoredLinear(nn.Module):
    """Stands in for an nn.Linear. What it holds are buffers, so that whoever asks the model for its
    dtype gets that of the norms, which is the one it computes in.

    Attributes:
        data, scale, gguf_type, shape: the weight; see Stored.
        bias: [out] or None.
        down, up: a LoRA's two factors [rank, in] and [out, rank], or None; added as they are, so
            that no rounding to the weight's own precision takes them away.
        quantised: multiplies in 8 bits, what goes in being quantised there; the data is E4M3 and
            the scale [out, 1] then. None: multiplies by the unpacked weight.
    """

    weight = None  # transformers looks here for a dtype to cast to; it has to find no tensor

    data: Tensor | None
    scale: Tensor | None
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.gguf_type: int | None = None
        self.quantised: QuantisedOnce | None = None
        for name in ("data", "scale", "bias", "down", "up"):
            self.register_buffer(name, None)

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.data is not None, "the part was not loaded"
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        if self.quantised is not None and self.scale is not None:
            rows = self.quantised.rows(inputs)
            output = multiply(rows, self.data, self.scale, bias, inputs)
            output = output.unflatten(0, inputs.shape[:-1])
        else:
            weight = dense(self.data, self.scale, self.gguf_type, self.shape, inputs.dtype)
            output = functional.linear(inputs, weight, bias)
        if self.down is None or self.up is None:
            return output
        return output + low_rank(inputs, self.down, self.up)


def low_rank(inputs: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """What a LoRA adds to a layer's output."""
    inner = functional.linear(inputs, down.to(inputs.dtype))
    return functional.linear(inner, up.to(inputs.dtype))


def scaled(factors: LowRank, strength: float) -> LowRank:
    """The same LoRA at this strength."""
    return LowRank(factors.down, factors.up.float() * strength)


def store_linears(module: nn.Module) -> None:
    """Puts a StoredLinear in the place of every nn.Linear below the module."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, StoredLinear((child.out_features, child.in_features)))
        else:
            store_linears(child)
