"""Which painted areas share a crop."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .crop_box import CONTEXT_PX, Frame
from .geometry import Box
from .masks import bounding_box
from .morphology import Bools, Ints, group, range_pairs


def near_areas(painted: Tensor) -> list[Box]:
    """Boxes of the painted areas of a bool [h, w], with those taken as one that are so near that
    their crops overlap for certain. Top to bottom.

    Pixels in adjoining cells of 64 px are at most 127 px apart in each direction, and each crop
    reaches 64 px further than its pixels. So a mask of any number of specks gives few areas, and
    none that planning crop by crop would have kept apart.
    """
    pixels = painted.cpu().numpy()
    rows, columns = (np.arange(0, side, CONTEXT_PX) for side in pixels.shape)
    by_row = np.logical_or.reduceat(pixels, rows, axis=0)
    cells = np.logical_or.reduceat(by_row, columns, axis=1)
    labels = ndimage.label(cells, np.ones((3, 3)))[0]
    places = enumerate(ndimage.find_objects(labels), 1)
    return [_area_box(pixels, labels[place] == label, *place) for label, place in places]


def _area_box(pixels: Bools, cells: Bools, rows: slice, columns: slice) -> Box:
    """The box of the pixels in those True cells of the grid's rows and columns."""
    top, left = rows.start * CONTEXT_PX, columns.start * CONTEXT_PX
    window = pixels[top : rows.stop * CONTEXT_PX, left : columns.stop * CONTEXT_PX]
    if not cells.all():
        own = cells.repeat(CONTEXT_PX, axis=0).repeat(CONTEXT_PX, axis=1)
        window = window & own[: window.shape[0], : window.shape[1]]
    box = bounding_box(torch.from_numpy(window))
    assert box is not None  # a True cell has a painted pixel
    return Box(top + box.top, left + box.left, top + box.bottom, left + box.right)


def share_crops(areas: list[Box], frame: Callable[[Box], Frame]) -> list[tuple[Box, Frame]]:
    """Merge areas until their crops are disjoint. Returns each area with its crop's frame."""
    framed = [(area, frame(area)) for area in areas]
    while True:
        labels = _overlap_groups([f.box for _, f in framed])
        groups: dict[int, list[tuple[Box, Frame]]] = {}
        for label, one in zip(labels.tolist(), framed, strict=True):
            groups.setdefault(label, []).append(one)
        if len(groups) == len(framed):
            return framed
        framed = [_merged(members, frame) for members in groups.values()]


def _merged(members: list[tuple[Box, Frame]], frame: Callable[[Box], Frame]) -> tuple[Box, Frame]:
    if len(members) == 1:
        return members[0]
    area = reduce(Box.union, (area for area, _ in members))
    return area, frame(area)


def _overlap_groups(boxes: list[Box]) -> Ints:
    """A group number for each box, the same for boxes that overlap, also through others."""
    sides = np.array([(b.top, b.bottom, b.left, b.right) for b in boxes])
    order = np.argsort(sides[:, 0], kind="stable")
    top, bottom, left, right = sides[order].T
    later = np.arange(1, len(boxes) + 1)
    one, other = range_pairs(later, np.searchsorted(top, bottom, "left"))
    beside = (left[one] < right[other]) & (left[other] < right[one])
    return group(len(boxes), order[one[beside]], order[other[beside]])
