"""Boxes and crops: where on the picture the work happens, in source pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A half-open pixel rectangle: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index the last two axes of a mask, or the first two of an [H, W, C] picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def union(self, other: Box) -> Box:
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def overlaps(self, other: Box) -> bool:
        rows = self.top < other.bottom and other.top < self.bottom
        return rows and self.left < other.right and other.left < self.right

    def padded(self, px: int, height: int, width: int) -> Box:
        """Larger by px on every side, clipped to a picture of this size."""
        return Box(
            max(0, self.top - px),
            max(0, self.left - px),
            min(height, self.bottom + px),
            min(width, self.right + px),
        )


@dataclass(frozen=True, eq=False)
class Crop:
    """A box of the picture that is painted in one go, its masks, and the size the model sees.

    Attributes:
        box: the crop in source pixels; never outside the picture.
        scaled: (height, width) of the box as the model sees it, before padding.
        size: (height, width) the model gets, multiples of 16, at least `scaled`; the rest is
            picture and mask reflected, cut off again afterwards.
        painted: bool [box.height, box.width]; what the artist painted in this region, cleaned.
        filled: bool [box.height, box.width]; the part of `painted` that was a pinhole. None if
            there was none.
        pinholes: how many there were.
        blend: float [box.height, box.width]; 1 over the painted and grown area, falling to 0 in the
            feather outside it. The crop's result is mixed into the picture by it.
    """

    box: Box
    scaled: tuple[int, int]
    size: tuple[int, int]
    painted: Tensor
    blend: Tensor
    filled: Tensor | None = None
    pinholes: int = 0

    @property
    def model_mask(self) -> Tensor:
        """bool [box.height, box.width]: what the model repaints, all that blend touches."""
        return self.blend > 0
