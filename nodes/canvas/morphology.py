"""Morphology of masks: Euclidean distances, to grow and shrink by, and connected areas, for holes.

Connected areas are found by run-length encoding: a mask is few runs even where it is many pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from .geometry import Box

Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]

TILE = 128  # measured: of 64 to 512 the smallest that stays cheap on large masks


@dataclass(frozen=True, eq=False)
class Runs:
    """Unpainted runs within rows, [start, stop) in the flattened mask, in order."""

    start: Ints
    stop: Ints


def distances_near(target: Bools, reach: int) -> Iterator[tuple[Box, NDArray[np.float64]]]:
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


def small_holes(mask: Tensor, most: int, within: Tensor) -> tuple[Tensor, int]:
    """The holes of a mask, unpainted areas (4-neighbours) that touch no border, which have at most
    `most` pixels, all of them True in `within`.

    Args:
        mask, within: bool [H, W]; not written to.

    Returns (bool [H, W]: the pixels of these holes, how many holes they are).
    """
    painted = np.ascontiguousarray(mask.cpu().numpy())
    found = np.zeros(painted.size, np.bool_)
    if not found.size:
        return torch.zeros_like(mask), 0
    runs = _unpainted_runs(painted)
    labels = _areas(runs, painted.shape[1])
    small = _closed(runs, labels, *painted.shape) & _at_most(runs, labels, most)
    owner, pixels = range_pairs(runs.start[small], runs.stop[small])
    labels = labels[small][owner]
    chosen = np.zeros(len(runs.start), np.bool_)  # by label
    chosen[labels] = True
    chosen[labels[~within.cpu().numpy().reshape(-1)[pixels]]] = False
    found[pixels[chosen[labels]]] = True
    return torch.from_numpy(found.reshape(painted.shape)).to(mask.device), int(chosen.sum())


def range_pairs(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All (i, j) with first[i] <= j < last[i], as two arrays in order of i, then j."""
    counts = np.maximum(last - first, 0)
    owner = np.repeat(np.arange(len(first)), counts)
    begin = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - begin[owner] + first[owner]


def group(count: int, one: Ints, other: Ints) -> Ints:
    """A group number for each of `count` things, where one[k] and other[k] belong together."""
    links = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    labels: Ints = csgraph.connected_components(links, directed=False)[1]
    return labels


def _tiles(height: int, width: int, side: int) -> Iterator[Box]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Box(top, left, min(height, top + side), min(width, left + side))


def _unpainted_runs(painted: Bools) -> Runs:
    height, width = painted.shape
    flat = painted.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # A run ends with its row, even where the next row goes on in the same value.
    bounds = np.concatenate([changes, np.arange(0, (height + 1) * width, width)])
    bounds.sort(kind="stable")  # two sorted parts: a merge
    start, stop = bounds[:-1], bounds[1:]
    unpainted = start < stop  # a row that begins with a change has that bound twice
    unpainted[unpainted] = ~flat[start[unpainted]]
    return Runs(start[unpainted], stop[unpainted])


def _areas(runs: Runs, width: int) -> Ints:
    """The number of the connected area that each run belongs to."""
    # Moved down by a row, a run overlaps exactly the runs it touches in the next row.
    above, below = range_pairs(
        np.searchsorted(runs.stop, runs.start + width, "right"),
        np.searchsorted(runs.start, runs.stop + width, "left"),
    )
    return group(len(runs.start), above, below)


def _closed(runs: Runs, labels: Ints, height: int, width: int) -> Bools:
    """Which runs belong to an area that touches no border."""
    border = (runs.start % width == 0) | (runs.stop % width == 0)
    border |= (runs.start < width) | (runs.stop > (height - 1) * width)
    open_areas = np.zeros(len(runs.start), np.bool_)
    open_areas[labels[border]] = True
    return ~open_areas[labels]


def _at_most(runs: Runs, labels: Ints, most: int) -> Bools:
    """Which runs belong to an area of at most so many pixels."""
    sizes = np.bincount(labels, runs.stop - runs.start)
    small: Bools = sizes[labels] <= most
    return small
