"""Measures a finished edit against the picture it came from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .batch import pair_batches
from .seam import seam_step


@dataclass(frozen=True, eq=False)
class Proof:
    """
    Attributes:
        difference: float [N, H, W, 3], absolute change; new canvas counts as black before.
        max_difference: largest absolute change where the blend is 0; 0.0 is the promise.
        text: the measurements in words.
    """

    difference: Tensor
    max_difference: float
    text: str


def prove(before: Tensor, after: Tensor, blend: Tensor) -> Proof:
    """Compare an edited batch with its source.

    Args:
        before: float [B, h, w, C], the source; smaller than `after` if that was extended.
        after: float [N, H, W, C], variations of one source picture following one another.
        blend: float [N or 1, H, W], the blend used.

    Raises:
        InputError: the batches or sizes do not belong to each other.
    """
    _check(before, after, blend)
    lines, differences, largest = [], [], 0.0
    for index, picture in enumerate(after):
        used = blend[index % len(blend)]
        source = before[index * len(before) // len(after)]
        top, left = place_source(used, source.shape[0], source.shape[1])
        canvas = torch.zeros_like(picture)
        canvas[top : top + source.shape[0], left : left + source.shape[1]] = source
        untouched = used == 0
        change = torch.where(picture == canvas, torch.zeros(()), (picture - canvas).abs())
        outside = change[untouched]
        worst = float(outside.max()) if outside.numel() else 0.0
        largest = max(largest, worst)
        differences.append(change[..., :3].float())
        lines += _lines(index, used, worst, canvas, picture)
    return Proof(torch.stack(differences), largest, "\n".join(lines))


def _lines(index: int, used: Tensor, worst: float, canvas: Tensor, picture: Tensor) -> list[str]:
    changed = float((used > 0).float().mean())
    before, after = seam_step(canvas, used), seam_step(picture, used)
    return [
        f"image {index + 1}: largest change outside the blend {worst:g}, "
        f"{changed:.1%} of the picture in the blend",
        f"image {index + 1}: step across the seam (delta E) {before:.2f} before, {after:.2f} after",
    ]


def _check(before: Tensor, after: Tensor, blend: Tensor) -> None:
    if before.shape[-1] != after.shape[-1] or len(after) % len(before):
        raise InputError(
            f"Before is {list(before.shape)} and after is {list(after.shape)}. Connect the "
            "picture that went into the task node and the image that came out of it."
        )
    if blend.shape[-2:] != after.shape[1:3]:
        raise InputError(
            f"The mask is {blend.shape[-1]}x{blend.shape[-2]}, the picture after is "
            f"{after.shape[2]}x{after.shape[1]}. Connect the mask output of the same task node."
        )
    pair_batches(len(after), len(blend))
    if before.shape[1] > after.shape[1] or before.shape[2] > after.shape[2]:
        raise InputError(
            f"Before is {before.shape[2]}x{before.shape[1]}, larger than after, "
            f"{after.shape[2]}x{after.shape[1]}. An edit never makes a picture smaller."
        )


def place_source(blend: Tensor, height: int, width: int) -> tuple[int, int]:
    """(top, left) of a source of this size on the canvas of `blend` [H, W] it was extended to."""
    rows, columns = (blend == 0).any(dim=1), (blend == 0).any(dim=0)
    return _place(rows, height), _place(columns, width)


def _place(untouched: Tensor, length: int) -> int:
    """Offset of the source along one axis, from the lines that hold an untouched pixel."""
    size = len(untouched)
    if length == size or not bool(untouched.any()):
        return 0
    found = untouched.nonzero()
    first, last = int(found[0]), int(found[-1]) + 1
    if first == 0:
        return 0
    if last == size:
        return size - length
    # Extended on both sides: the overlap hides equally much of the source on each.
    return first - (length - (last - first)) // 2
