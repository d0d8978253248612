"""From the mask as it comes in to the painted area, and from that to the blend mask (feather)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from .geometry import Box
from .image_ops import filtered
from .morphology import distances_near, small_holes
from .options import CanvasOptions

CLEAN_LEVEL = 0.1  # grey brushes and JPEG masks paint in full, JPEG specks not at all
PLAIN_LEVEL = 0.5
# What decoders make of a picture without alpha, such as PyAV of a WebP: a mask of 1/255 all over.
EMPTY_LEVEL = 1 / 255 + 1e-6
# 8x8 px, the speck that a brush leaves between its strokes. At the default grow, 8, all of a hole
# that size is taken in anyway; a hole that somebody means, such as a ring's, is larger.
PINHOLE_PX = 64
ASPECT_TOLERANCE = 0.01


def pair_batches(images: int, masks: int) -> list[tuple[int, int]]:
    """(image index, mask index) of every edit for batches of these sizes, in order.

    One image meets every mask, one mask meets every image, equal batches go side by side. Raises
    InputError with both counts for all else.
    """
    if images == masks and images > 0:
        return [(i, i) for i in range(images)]
    if images == 1 and masks > 0:
        return [(0, m) for m in range(masks)]
    if masks == 1 and images > 0:
        return [(i, 0) for i in range(images)]
    raise InputError(
        f"{images} images do not pair with {masks} masks. "
        "Connect one mask, one image, or as many masks as images."
    )


def fit_mask(mask: Tensor, height: int, width: int) -> tuple[Tensor, str | None]:
    """The masks at the picture's size, and a note for the user if they had to be resized.

    Args:
        mask: [N, h, w] or [h, w], 1 = change. Empty, with no value above 1/255, it may have any
            size, such as the 64x64 that LoadImage gives; else the picture's size, or its aspect
            within 1 %.
        height: of the picture, in px.
        width: of the picture, in px.

    Returns (float [N, height, width], note). Masks of the right size are not copied.

    Raises InputError for other shapes, and for values that are not finite.
    """
    if mask.ndim not in (2, 3) or not mask.numel():
        raise InputError(
            f"Mask has shape {list(mask.shape)}; a MASK is [batch, height, width]. "
            "Connect a MASK output."
        )
    masks = mask[None] if mask.ndim == 2 else mask
    masks = masks if masks.is_floating_point() else masks.float()
    low, high = masks.aminmax()
    _check_finite(low)
    _check_finite(high)
    if masks.shape[1:] == (height, width):
        return masks, None
    if high <= EMPTY_LEVEL:
        return masks.new_zeros(len(masks), height, width), None
    return _resized(masks, height, width)


def painted_box(mask: Tensor, options: CanvasOptions) -> Box | None:
    """The box of what counts as painted in a mask [H, W]; None if nothing does.

    One pass over the mask, and no second mask in memory. Raises InputError for NaN.
    """
    rows = mask.amin(1) if options.invert else mask.amax(1)
    _check_finite(rows)
    span = _span(_painted(rows, options))
    if span is None:
        return None
    band = mask[slice(*span)]
    columns = _span(_painted(band.amin(0) if options.invert else band.amax(0), options))
    assert columns is not None  # a painted row has a painted pixel
    return Box(span[0], columns[0], span[1], columns[1])


def painted_inside(mask: Tensor, box: Box, options: CanvasOptions) -> Tensor:
    """bool [box.height, box.width]: what counts as painted in the box of `painted_box`."""
    return _painted(mask[box.slices], options)


def painted_area(mask: Tensor, options: CanvasOptions) -> Tensor:
    """bool [H, W]: what counts as painted, after invert.

    With options.clean, values from 0.1 count; without it, values from 0.5.
    """
    area = torch.zeros(mask.shape, dtype=torch.bool, device=mask.device)
    box = painted_box(mask, options)
    if box is not None:
        area[box.slices] = painted_inside(mask, box, options)
    return area


def bounding_box(mask: Tensor) -> Box | None:
    """The smallest box round the True pixels of a bool mask [H, W]; None if there are none."""
    rows, columns = _span(mask.any(1)), _span(mask.any(0))
    if rows is None or columns is None:
        return None
    return Box(rows[0], columns[0], rows[1], columns[1])


def blend_mask(painted: Tensor, grow: int, blend: int) -> Tensor:
    """The feathered mask: how much of the result each pixel takes, 1 on the grown area and falling
    to 0 outside it.

    Distances are Euclidean, between pixel centres, in px. Growing takes in what is at most `grow`
    from a painted pixel; shrinking takes away what is at most `-grow` from an unpainted one. The
    feather is a smoothstep over `blend` px from the outline of the grown area, and exactly 0 from
    there on: at grow + blend px from the painted pixels.

    Args:
        painted: bool [h, w]. Beyond its edges nothing is painted when growing, and everything
            when shrinking, so that a mask at the picture's edge is not eaten from there. Inside
            a picture, leave max(1, grow + blend) px around what is painted.
        grow: px, negative to shrink.
        blend: px, 0 for a hard edge.

    Returns float32 [h, w]; all zero if nothing is left.
    """
    area: NDArray[np.bool_] = painted.cpu().numpy()
    if grow < 0:
        area, grow = _shrunk(area, -grow), 0
    values = np.zeros(area.shape, np.float32)
    for tile, distances in distances_near(area, grow + blend):
        values[tile.slices] = _weights(distances, grow, blend)
    return torch.from_numpy(values).to(painted.device)


def pinholes(painted: Tensor, blend: Tensor, options: CanvasOptions) -> tuple[Tensor, int]:
    """The holes that cleaning fills: those of at most PINHOLE_PX that the blend touches anyway, so
    that no pixel changes which would not have changed with the hole. None without options.clean;
    none under invert, where a hole is what the artist painted; and none under a shrink, which eats
    from holes too: filling one could bring back what the shrink takes away.

    Args:
        painted: bool [h, w]; blend: what blend_mask makes of it.

    Returns (bool [h, w]: their pixels, how many holes they are).
    """
    if not options.clean or options.invert or options.grow < 0:
        return torch.zeros_like(painted), 0
    return small_holes(painted, PINHOLE_PX, blend > 0)


def _shrunk(area: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    left = np.ones_like(area)
    for tile, distances in distances_near(~area, px):
        left[tile.slices] = distances > px
    return left


def _weights(
    distances: NDArray[np.float64], grow: int, blend: int
) -> NDArray[np.float64] | NDArray[np.bool_]:
    if blend == 0:
        return distances <= grow
    ramp = np.clip((grow + blend - distances) / blend, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _painted(values: Tensor, options: CanvasOptions) -> Tensor:
    if values.dtype == torch.bool:
        return ~values if options.invert else values
    level = CLEAN_LEVEL if options.clean else PLAIN_LEVEL
    return values <= 1 - level if options.invert else values >= level


def _span(flags: Tensor) -> tuple[int, int] | None:
    """First and one past the last True of bool [n]."""
    hits = flags.nonzero()
    return (int(hits[0]), int(hits[-1]) + 1) if len(hits) else None


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise InputError(
            "Mask holds values that are not finite (NaN or infinity). "
            "Check the node that makes the mask."
        )


def _resized(masks: Tensor, height: int, width: int) -> tuple[Tensor, str]:
    own_height, own_width = masks.shape[1:]
    across = own_height * width
    if abs(own_width * height - across) > ASPECT_TOLERANCE * across:
        raise InputError(
            f"Mask is {own_width}x{own_height}, but the picture is {width}x{height} (width x "
            "height), which is another shape. Use a mask made for this picture, or crop or pad "
            "one of them first."
        )
    note = f"Mask {own_width}x{own_height} was resized to the picture's {width}x{height}."
    return filtered(masks.float(), (height, width), "bilinear"), note
