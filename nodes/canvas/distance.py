"""Exact pixel distances, computed only where they can matter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .geometry import Box

TILE = 128  # measured: of 64 to 512 the smallest that stays cheap on large masks


def distances_near(
    target: NDArray[np.bool_], reach: int
) -> Iterator[tuple[Box, NDArray[np.float64]]]:
    """Euclidean distances from pixel centres to the nearest True pixel's, tile by tile.

    Yields (tile, distances), where distances has the tile's shape or broadcasts to it. They are
    exact where they are at most `reach`, and some larger number elsewhere. All pixels of tiles
    that are left out are further than `reach`. So time and memory follow the target's outline.
    """
    height, width = target.shape
    for tile in _tiles(height, width, max(TILE, 2 * reach)):
        around = tile.padded(reach, height, width)
        seen = target[around.slices]
        if target[tile.slices].all():
            yield tile, np.zeros((1, 1))
        elif seen.any():
            found = ndimage.distance_transform_edt(~seen)
            top, left = tile.top - around.top, tile.left - around.left
            yield tile, found[top : top + tile.height, left : left + tile.width]


def _tiles(height: int, width: int, side: int) -> Iterator[Box]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Box(top, left, min(height, top + side), min(width, left + side))
