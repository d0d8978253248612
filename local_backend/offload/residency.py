"""Residency: how one model lies on a device, and how many bytes it takes there. Only arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from ..checkpoints.module_weights import WeightInfo


@dataclass(frozen=True)
class Residency:
    """How a model lies on its device.

    Attributes:
        fp8: unquantised weights of the blocks are held in fp8 (E4M3), with a scale per row.
        streamed: the numbers of the blocks that are offloaded, and copied in each time they run.
        hold_left_out: the layers that are read one by one stay on the device, too.
    """

    fp8: bool = False
    streamed: frozenset[int] = frozenset()
    hold_left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class PartSizes:
    """Bytes on the device.

    Attributes:
        rest: what lies outside the blocks, and a LoRA.
        blocks: one number per block, in the order in which they run.
        left_out: the layers that are read one by one.
    """

    rest: int
    blocks: tuple[int, ...] = ()
    left_out: int = 0

    def device_bytes(self, residency: Residency) -> int:
        """What the model takes in this residency, the two buffers of streamed blocks included."""
        streamed = residency.streamed
        held = self.rest + sum(size for n, size in enumerate(self.blocks) if n not in streamed)
        if streamed:
            held += 2 * max(self.blocks[number] for number in streamed)
        return held + (self.left_out if residency.hold_left_out else 0)


def weight_bytes(info: WeightInfo, dtype: torch.dtype, *, linear: bool, fp8: bool) -> int:
    """What one weight takes on the device.

    Args:
        dtype: what the model computes in.
        linear: a linear layer holds it, which can unpack it as it runs.
        fp8: it is held in fp8, unless it is quantised already.
    """
    computed = prod(info.shape) * dtype.itemsize
    if not linear:
        return computed
    if info.quantized:
        return info.nbytes
    if fp8:
        return prod(info.shape) + 4 * info.shape[0]
    return min(computed, info.nbytes)
