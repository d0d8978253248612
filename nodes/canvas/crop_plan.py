"""Crop planning, for "inpaint crop and stitch": which crops of a picture go to the model, at what
size, and how they come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..contracts import Capabilities
from ..errors import InputError
from .crop_box import Frame, Size, frame_crop
from .crop_regions import near_areas, share_crops
from .geometry import Box, Crop
from .masks import PINHOLE_PX, blend_mask, painted_box, painted_inside, pinholes
from .options import REGION_CHOICES, CanvasOptions
from .sizes import parse_target

NEARLY_ALL = 0.9  # of the picture; few masks mean that, and an inverted one always does
EMPTY_NOTE = "Mask is empty: the picture is returned untouched."


@dataclass(frozen=True, eq=False)
class CropPlan:
    """The crops of one picture.

    Attributes:
        size: (height, width) of the picture.
        crops: disjoint, top to bottom; none for an empty mask.
        notes: for the user.
    """

    size: Size
    crops: tuple[Crop, ...]
    notes: tuple[str, ...]


def plan_crops(mask: Tensor, options: CanvasOptions, capabilities: Capabilities) -> CropPlan:
    """Plan the crops for a mask of the picture's size.

    The mask is read once to find what is painted; all other work and memory follow the painted
    area and the crops.

    Args:
        mask: float [H, W], 1 = change, or bool; not written to.
        options: what the user set.
        capabilities: the sizes the backend works well at.

    Raises:
        InputError: the mask holds NaN, or a negative grow leaves nothing of it.
    """
    size = (mask.shape[0], mask.shape[1])
    box = painted_box(mask, options)
    if box is None:
        return CropPlan(size, (), (EMPTY_NOTE,))
    painted = painted_inside(mask, box, options)
    areas = [box]
    if options.regions == REGION_CHOICES[0]:
        areas = [_moved(area, box.top, box.left) for area in near_areas(painted)]
    frame = partial(_frame_area, size=size, options=options, capabilities=capabilities)
    shared = share_crops(areas, frame)
    planned = [_crop(painted, box, area, frame, options, size) for area, frame in shared]
    crops = tuple(crop for crop in planned if crop is not None)
    if not crops:
        raise InputError(
            f"Grow {options.grow} px shrinks the mask to nothing: its painted area is "
            f"{box.width}x{box.height} px. Use a grow nearer to 0, or paint a larger area."
        )
    notes = (
        *_vanished(len(planned) - len(crops), options.grow),
        *_filled(crops),
        *_nearly_all(0.0 if options.invert else int(painted.sum()) / mask.numel()),
    )
    return CropPlan(size, crops, notes)


def _frame_area(area: Box, size: Size, options: CanvasOptions, capabilities: Capabilities) -> Frame:
    # Where grow + blend px end, the blend is 0 already. A shrunk mask gets no smaller crop.
    reach = max(0, options.grow, options.grow + options.blend - 1)
    inner = area.padded(reach, *size)
    return frame_crop(inner, size, options.context, parse_target(options.target), capabilities)


def _crop(
    painted: Tensor, origin: Box, area: Box, frame: Frame, options: CanvasOptions, size: Size
) -> Crop | None:
    """The crop of one area of `painted`, whose corner is `origin`; None if a shrink leaves none."""
    # One px of unpainted picture at least, so that a shrink eats from there.
    around = area.padded(max(1, options.grow + options.blend), *size)
    near = painted.new_zeros(around.height, around.width)
    source = painted[_moved(area, -origin.top, -origin.left).slices]
    near[_moved(area, -around.top, -around.left).slices] = source
    blend = blend_mask(near, options.grow, options.blend)
    if options.grow < 0 and not blend.any():
        return None
    filled, count = pinholes(near, blend, options)
    if count:
        near = near | filled
        # A hole lies nearer to its rim than to all beyond, so growing from it adds nothing there.
        blend = blend.masked_fill(filled, 1.0)
    return Crop(
        frame.box,
        frame.scaled,
        frame.size,
        painted=_placed(near, around, frame.box),
        blend=_placed(blend, around, frame.box),
        filled=_placed(filled, around, frame.box) if count else None,
        pinholes=count,
    )


def _placed(values: Tensor, box: Box, outer: Box) -> Tensor:
    """Values of `box` on a zero sheet the size of `outer`, which holds the box."""
    if box == outer:
        return values
    sheet = values.new_zeros(outer.height, outer.width)
    sheet[_moved(box, -outer.top, -outer.left).slices] = values
    return sheet


def _moved(box: Box, rows: int, columns: int) -> Box:
    return Box(box.top + rows, box.left + columns, box.bottom + rows, box.right + columns)


def _vanished(vanished: int, grow: int) -> tuple[str, ...]:
    if not vanished:
        return ()
    areas = "1 painted area vanishes" if vanished == 1 else f"{vanished} painted areas vanish"
    return (f"{areas} when shrunk by {-grow} px and will not be repainted.",)


def _filled(crops: tuple[Crop, ...]) -> tuple[str, ...]:
    count = sum(crop.pinholes for crop in crops)
    if not count:
        return ()
    area = sum(int(crop.filled.sum()) for crop in crops if crop.filled is not None)
    holes = "1 pinhole" if count == 1 else f"{count} pinholes"
    return (
        f"{holes} of the mask, {area} px in all, filled (clean: of at most {PINHOLE_PX} px each).",
    )


def _nearly_all(share: float) -> tuple[str, ...]:
    if not NEARLY_ALL <= share < 1:
        return ()
    return (
        f"The mask covers {min(share, 0.99):.0%} of the picture. If that is the wrong way round, "
        "invert it, or switch invert on OneReward Canvas.",
    )
