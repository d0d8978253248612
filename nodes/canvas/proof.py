"""Measures a finished edit against its source: what changed where, and the step across the seam.

That step is measured in the source and in the edit. The report's "seam correction" is another
figure: the step of the same result without and with the correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .masks import blend_mask, fit_mask, painted_area, pair_batches
from .options import CanvasOptions
from .seam import seam_step

OTHER_CANVAS = (
    "outside the blend that was used nothing changed. If the task node has a canvas, connect it "
    "here; if not, choose its task."
)


@dataclass(frozen=True, eq=False)
class Proof:
    """
    Attributes:
        difference: float [N, H, W, 3], absolute change; new canvas counts as black before.
        max_difference: largest absolute change where nothing may change; 0.0 is the promise.
        text: the measurements as lines of text.
    """

    difference: Tensor
    max_difference: float
    text: str


def prove(
    before: Tensor,
    after: Tensor,
    blend: Tensor,
    painted: Tensor | None = None,
    options: CanvasOptions | None = None,
) -> Proof:
    """Compare an edited batch with its source.

    Nothing may change where the blend is 0. With the artist's own mask, that is not taken from the
    edit: nothing may change further than grow + blend from what the artist painted.

    Args:
        before: float [B, h, w, C], the source; smaller than `after` if that was extended.
        after: float [N, H, W, C], variations of one source picture following one another.
        blend: float [N or 1, H, W], the blend used.
        painted: float [M, h, w], the artist's mask; M as many as pairs of picture and mask, or 1.
        options: the canvas that the edit was made with; None for the defaults. Used with `painted`.

    Raises:
        InputError: the batches or sizes do not belong to each other.
    """
    _check(before, after, blend)
    options = options or CanvasOptions()
    reach = None if painted is None else _reach(painted, options, before, after)
    where = "the blend" if reach is None else f"{_px(options)} of the painted mask"
    lines, differences, largest = [], [], 0.0
    for index, picture in enumerate(after):
        used = blend[index % len(blend)]
        source = before[index * len(before) // len(after)]
        top, left = place_source(used, source.shape[0], source.shape[1])
        canvas = torch.zeros_like(picture)
        canvas[top : top + source.shape[0], left : left + source.shape[1]] = source
        touched = used if reach is None else reach[index * len(reach) // len(after)]
        untouched = touched == 0
        change = _change(canvas, picture)
        outside = change[untouched]
        worst = float(outside.max()) if outside.numel() else 0.0
        largest = max(largest, worst)
        differences.append(change[..., :3].float())
        changed = f"{float((touched > 0).float().mean()):.1%} of the picture inside"
        lines.append(f"image {index + 1}: largest change outside {where} {worst:g}, {changed}")
        if reach is not None and worst and not change[used == 0].any():
            lines.append(f"image {index + 1}: {OTHER_CANVAS}")
        lines.append(f"image {index + 1}: {_step_text(canvas, picture, used)}")
    return Proof(torch.stack(differences), largest, "\n".join(lines))


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Absolute change per value; 0 where both are no number, infinite where one is."""
    same = (before == after) | (before.isnan() & after.isnan())
    change = (after - before).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return change.masked_fill(same, 0.0)


def _step_text(before: Tensor, after: Tensor, blend: Tensor) -> str:
    steps = seam_step(before, blend), seam_step(after, blend)
    return f"step across the seam (delta E) {steps[0]:.2f} before, {steps[1]:.2f} after"


def _reach(painted: Tensor, options: CanvasOptions, before: Tensor, after: Tensor) -> Tensor:
    """float [M, H, W], above 0 wherever an edit of these masks may change something."""
    height, width = before.shape[1:3]
    if before.shape[1:3] != after.shape[1:3]:
        raise InputError(
            f"Painted belongs to a picture of {width}x{height}, and after is "
            f"{after.shape[2]}x{after.shape[1]}: an extension has no painted mask. Disconnect it."
        )
    masks, _ = fit_mask(painted, height, width)
    if len(after) % len(masks):
        raise InputError(
            f"{len(masks)} painted masks do not go with {len(after)} images. "
            "Connect the mask that went into the task node."
        )
    areas = (painted_area(mask, options) for mask in masks)
    return torch.stack([blend_mask(area, options.grow, options.blend) for area in areas])


def _px(options: CanvasOptions) -> str:
    return f"grow + blend ({options.grow + options.blend} px)"


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
