"""Where a crop lies, and at what size the model sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..contracts import Capabilities
from .geometry import Box
from .sizes import Target

MULTIPLE = 16  # of the model's sides: the VAE's 8 times a patch of 2
CONTEXT_PX = 64
Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """A crop's place in the picture and its (height, width) for the model; see Crop."""

    box: Box
    scaled: Size
    size: Size


def frame_crop(
    inner: Box, picture: Size, context: float, target: Target, capabilities: Capabilities
) -> Frame:
    """The crop round a model mask.

    It covers `inner` with its context and at least 64 px on each side, and is at least the
    backend's smallest side and no longer than its largest aspect, all as far as the picture goes.
    One scale holds for both axes; the box grows to fill the model's size where the picture allows.

    Args:
        inner: the box of the model mask.
        picture: (height, width).
        context: the crop's size as a factor of inner's.
        target: the size the model works at.
        capabilities: of the backend; max_pixels is the ceiling of an "auto" target only.
    """
    sides = _context_sides(inner, picture, context, capabilities)
    model = _model_sides(sides, target, capabilities.max_pixels)
    scale = min(model[0] / sides[0], model[1] / sides[1])
    if target.kind not in ("side", "exact"):
        scale = min(scale, 1.0)
    height, width = (
        min(limit, _source_side(side, scale)) for limit, side in zip(picture, model, strict=True)
    )
    scaled = (
        max(1, min(model[0], round(height * scale))),
        max(1, min(model[1], round(width * scale))),
    )
    size = model if target.kind == "exact" else scaled
    return Frame(
        _placed(inner, height, width, picture),
        scaled,
        (round_up(size[0]), round_up(size[1])),
    )


def round_up(length: float) -> int:
    """The next multiple of 16."""
    return math.ceil(length / MULTIPLE) * MULTIPLE


def _context_sides(inner: Box, picture: Size, context: float, capabilities: Capabilities) -> Size:
    """(height, width) in the source before the box is fitted to the model's size."""
    height, width = (
        min(
            limit,
            max(math.ceil(side * context), side + 2 * CONTEXT_PX, capabilities.min_side),
        )
        for side, limit in zip((inner.height, inner.width), picture, strict=True)
    )
    height = min(picture[0], max(height, math.ceil(width / capabilities.max_aspect)))
    width = min(picture[1], max(width, math.ceil(height / capabilities.max_aspect)))
    return height, width


def _model_sides(sides: Size, target: Target, budget: int) -> Size:
    """The (height, width) that the scaled box should fill."""
    height, width = sides
    if target.kind == "exact":
        return target.height, target.width
    if target.kind == "side":
        scale = target.side / max(sides)
        return (
            min(target.side, round_up(height * scale)),
            min(target.side, round_up(width * scale)),
        )
    if target.kind == "native":
        return round_up(height), round_up(width)
    return _under_ceiling(height, width, target.pixels or budget)


def _under_ceiling(height: int, width: int, ceiling: int) -> Size:
    """The largest sides, multiples of 16, that hold the box at scale 1 or less."""
    if round_up(height) * round_up(width) <= ceiling:
        return round_up(height), round_up(width)
    most = min(round_up(height), max(MULTIPLE, ceiling // MULTIPLE))
    rows = np.arange(MULTIPLE, most + 1, MULTIPLE)
    columns = ceiling // rows // MULTIPLE * MULTIPLE
    scale = min(1.0, float(np.minimum(rows / height, columns / width).max()))
    # The margin keeps a side that fits exactly from being rounded up by a float's last bit.
    return round_up(height * scale - 1e-6), round_up(width * scale - 1e-6)


def _source_side(side: int, scale: float) -> int:
    """How much of the source fills a model side; scaled it is at most half a pixel longer."""
    length = round(side / scale)
    return length - 1 if length * scale > side + 0.5 else length


def _placed(inner: Box, height: int, width: int, picture: Size) -> Box:
    """A box of this size about the middle of inner, moved inward at the picture's edges."""
    top = min(max((inner.top + inner.bottom - height) // 2, 0), picture[0] - height)
    left = min(max((inner.left + inner.right - width) // 2, 0), picture[1] - width)
    return Box(top, left, top + height, left + width)
