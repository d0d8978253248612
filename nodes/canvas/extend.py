"""The geometry of outpainting: margins, steps, canvas. The run, seeds included: edit.run.extend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..contracts import MEGAPIXEL
from ..errors import InputError
from .sizes import Extension

ANCHORS = (
    "center",
    "top left",
    "top",
    "top right",
    "left",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
NEW_AREA = 0.5
MAX_CANVAS = 1 << 28  # pixels; one copy of such a picture has 3.2 GB


@dataclass(frozen=True)
class Margins:
    """How far the canvas reaches past the picture, in pixels per side."""

    left: int
    top: int
    right: int
    bottom: int


def margins(extension: Extension, anchor: str, height: int, width: int) -> Margins:
    """What this extension adds around a picture of this size.

    `anchor` (one of ANCHORS) says where the old picture sits on the new canvas; an odd pixel goes
    to the right or the bottom. Pixels per side ignore the anchor. Raises InputError for a canvas
    smaller than the picture or larger than MAX_CANVAS, and for an unknown anchor.
    """
    whole = _margins(extension, anchor, height, width)
    new_height = height + whole.top + whole.bottom
    new_width = width + whole.left + whole.right
    if new_height * new_width > max(MAX_CANVAS, height * width):
        raise InputError(
            f"The new canvas is {new_width}x{new_height}, {new_width * new_height / MEGAPIXEL:.0f} "
            f"MP; at most {MAX_CANVAS // MEGAPIXEL} MP can be made. Extend less."
        )
    return whole


def _margins(extension: Extension, anchor: str, height: int, width: int) -> Margins:
    if extension.sides is not None:
        return Margins(*extension.sides)
    new_height, new_width = _canvas(extension, height, width)
    if new_height < height or new_width < width:
        raise InputError(
            f"The new canvas is {new_width}x{new_height}, smaller than the picture, which is "
            f"{width}x{height}. Ask for at least {max(width, new_width)}x"
            f"{max(height, new_height)}, or crop the picture first."
        )
    if anchor not in ANCHORS:
        raise InputError(f"Unknown anchor {anchor!r}. Use one of: {', '.join(ANCHORS)}.")
    left, right = _split(new_width - width, anchor, "left", "right")
    top, bottom = _split(new_height - height, anchor, "top", "bottom")
    return Margins(left, top, right, bottom)


def _canvas(extension: Extension, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the canvas the extension asks for."""
    if extension.size is not None:
        return extension.size[1], extension.size[0]
    if extension.factor is not None:
        return round(height * extension.factor), round(width * extension.factor)
    assert extension.aspect is not None
    # One side keeps its length; the other may not come out smaller by rounding.
    if width < height * extension.aspect:
        return height, max(width, round(height * extension.aspect))
    return max(height, round(width / extension.aspect)), width


def _split(extra: int, anchor: str, near: str, far: str) -> tuple[int, int]:
    """Pixels before and after the picture: a picture anchored near grows on the far side."""
    sides = anchor.split()
    before = 0 if near in sides else extra if far in sides else extra // 2
    return before, extra - before


def extension_steps(whole: Margins, height: int, width: int) -> list[Margins]:
    """Cut a long extension into steps that a model can paint one after the other.

    In a step each side grows by at most half of the height or width the picture then has (at
    least 1 px). All sides advance together, by about the same factor in each step, and the steps
    sum exactly to the whole. There are as few as that allows, and none where nothing grows.
    """
    count = 1
    while True:
        columns = _shares(whole.left, whole.right, width, count)
        rows = _shares(whole.top, whole.bottom, height, count)
        if _small_enough(columns, width) and _small_enough(rows, height):
            break
        count += 1
    steps = [
        Margins(left, top, right, bottom)
        for (left, right), (top, bottom) in zip(columns, rows, strict=True)
    ]
    return [step for step in steps if step != Margins(0, 0, 0, 0)]


def _shares(before: int, after: int, length: int, count: int) -> list[tuple[int, int]]:
    """Both margins of one axis in `count` steps of an even growth factor."""
    total = before + after
    growth = (length + total) / length
    grown = [length * (growth ** (step / count) - 1) for step in range(1, count)]
    shares = [part / total if total else 0.0 for part in grown]
    near = [0, *(round(before * share) for share in shares), before]
    far = [0, *(round(after * share) for share in shares), after]
    return [(near[i + 1] - near[i], far[i + 1] - far[i]) for i in range(count)]


def _small_enough(shares: list[tuple[int, int]], length: int) -> bool:
    for before, after in shares:
        if max(before, after) > max(1, length // 2):
            return False
        length += before + after
    return True


def extend_picture(image: Tensor, whole: Margins) -> Tensor:
    """The pictures [B, H, W, C] on their larger canvas [B, H2, W2, C], of the same dtype.

    The source is there bit for bit; around it lies mid grey, with alpha 1.
    """
    batch, height, width, channels = image.shape
    new_height = height + whole.top + whole.bottom
    new_width = width + whole.left + whole.right
    pictures = image.new_full((batch, new_height, new_width, channels), NEW_AREA)
    pictures[..., 3:] = 1.0
    rows, columns = _inside(whole, height, width)
    pictures[:, rows, columns] = image
    return pictures


def new_area(whole: Margins, height: int, width: int) -> Tensor:
    """bool [H2, W2]: what is new on the larger canvas of a picture of this size."""
    new_height = height + whole.top + whole.bottom
    new_width = width + whole.left + whole.right
    mask = torch.ones(new_height, new_width, dtype=torch.bool)
    mask[_inside(whole, height, width)] = False
    return mask


def _inside(whole: Margins, height: int, width: int) -> tuple[slice, slice]:
    """Where the source lies on the larger canvas."""
    rows = slice(whole.top, whole.top + height)
    return rows, slice(whole.left, whole.left + width)
