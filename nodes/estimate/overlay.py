"""Draws a plan's crops on a transparent sheet, to be laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..canvas.geometry import Crop
from ..canvas.overlay import EDGE, FILLED, PAINTED
from ..image_io import data_uri, encode_png

SIDE = 512
PAINTED_ALPHA, SHADOW_ALPHA = 110, 90
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class PlacedCrop:
    """A crop, and how far its canvas lies inside the one that is drawn, in px."""

    crop: Crop
    left: int
    top: int


def draw_overlay(crops: Sequence[PlacedCrop], size: tuple[int, int], *, painted: bool) -> str:
    """A PNG of at most 512 px as a data URI, transparent but for the crops' masks.

    Args:
        size: (height, width) of the canvas, in px.
        painted: what is painted is red, and pinholes that were filled are orange; else there is
            only the edge of the blend, in white.
    """
    scale = min(1.0, SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    sheet = np.zeros((height, width, 4), np.uint8)
    for placed in crops:
        _draw(sheet, placed, scale, painted)
    return data_uri(encode_png(torch.from_numpy(sheet).float() / 255), "image/png")


def _draw(sheet: NDArray[np.uint8], placed: PlacedCrop, scale: float, painted: bool) -> None:
    box = placed.crop.box
    top, left = round((box.top + placed.top) * scale), round((box.left + placed.left) * scale)
    height = min(max(1, round(box.height * scale)), sheet.shape[0] - top)
    width = min(max(1, round(box.width * scale)), sheet.shape[1] - left)
    if height < 1 or width < 1:  # less than a pixel of the drawing, at its last row or column
        return
    part = sheet[top : top + height, left : left + width]
    if painted:
        part[shrink(placed.crop.painted, height, width)] = (*PAINTED, PAINTED_ALPHA)
        if placed.crop.filled is not None:
            part[shrink(placed.crop.filled, height, width)] = (*FILLED, 255)
    inside = shrink(placed.crop.model_mask, height, width)
    # A dark line beside the white one, so that it shows on white pictures, too.
    part[_spread(inside) & ~inside] = (0, 0, 0, SHADOW_ALPHA)
    part[inside & _spread(~inside)] = (*EDGE, 255)


def shrink(mask: Tensor, height: int, width: int) -> Bools:
    """A bool mask [h, w] at no more than its own size; every painted pixel leaves a trace."""
    values: Bools = mask.cpu().numpy()
    rows, columns = (
        np.arange(small) * side // small
        for small, side in zip((height, width), values.shape, strict=True)
    )
    by_row = np.maximum.reduceat(values, rows, axis=0)
    small: Bools = np.maximum.reduceat(by_row, columns, axis=1)
    return small


def _spread(mask: Bools) -> Bools:
    """Larger by the four neighbours of every pixel; beyond the edges nothing is set."""
    padded = np.pad(mask, 1)
    across = padded[1:-1, :-2] | padded[1:-1, 2:]
    grown: Bools = mask | across | padded[:-2, 1:-1] | padded[2:, 1:-1]
    return grown
