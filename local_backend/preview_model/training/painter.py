"""The painter of all background classes: everything the model ever sees behind an object."""

from __future__ import annotations

from torch import Tensor

from .landscapes import Landscapes
from .scenery import Scenery
from .vocabulary import BACKGROUNDS


class Painter(Landscapes, Scenery):
    """Paints batches of square backgrounds: `Painter(size, device, gen).paint("beach", 4)`."""

    def paint(self, cls: str, n: int) -> Tensor:
        """`n` backgrounds of a class of BACKGROUNDS, `[n, 3, size, size]` float32 in 0..1.

        The same generator state gives the same pictures. An unknown class is a ValueError.
        """
        if cls not in BACKGROUNDS:
            raise ValueError(f"no background class {cls!r}. Use one of {', '.join(BACKGROUNDS)}.")
        picture: Tensor = getattr(self, cls)(n)
        return picture.expand(n, 3, self.size, self.size).clamp(0, 1)
