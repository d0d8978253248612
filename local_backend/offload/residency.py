"""How a part lies on a device, and what it takes there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """How a part lies on its device.

    Attributes:
        fp8: unquantised weights of the blocks are held in 8 bits, with a scale per row.
        streamed: the numbers of the blocks that are copied in each time they run.
        keep: the layers that were left out are held, too.
    """

    fp8: bool = False
    streamed: frozenset[int] = frozenset()
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class PartSizes:
    """Bytes on the device.

    Attributes:
        rest: what lies outside the blocks, and a LoRA.
        blocks: one number per block, in the order in which they run.
        left_out: the layers that somebody reads one by one.
    """

    rest: int
    blocks: tuple[int, ...] = ()
    left_out: int = 0

    def held(self, fit: Fit) -> int:
        """What the part takes in this fit, the streamed blocks' buffers included."""
        held = self.rest + sum(b for n, b in enumerate(self.blocks) if n not in fit.streamed)
        if fit.streamed:
            held += 2 * max(self.blocks[number] for number in fit.streamed)
        return held + (self.left_out if fit.keep else 0)
