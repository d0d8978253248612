"""What an edit would do, in crops, pixels, money and time, without running or loading a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..canvas.crop_plan import EMPTY_NOTE, CanvasPlan, plan_crops
from ..canvas.extend import Margins, extension_steps, margins
from ..canvas.options import MAX_BLEND, CanvasOptions
from ..canvas.sizes import MEGAPIXEL, parse_extend
from ..contracts import ACCELERATION, Backend, Capabilities, EditTask
from ..edit import eta
from ..edit.crop_jobs import split
from ..edit.run import default_canvas, plan_edit
from ..errors import InputError, OneRewardError
from .overlay import PlacedCrop, draw_overlay
from .summary import EMPTY, HAS_SHAPE, batch_note, plan_words

# New jobs of so many pixels each -> US dollars, None if unknown, and what is to be said of them.
Foresight = Callable[[Sequence[int]], tuple[float | None, str]]
MAX_PIXELS = 128 << 20  # of a picture or an extended canvas: what a plan takes on


class Refused(InputError):
    """An InputError that names the node's input at fault."""

    def __init__(self, message: str, input_name: str) -> None:
        super().__init__(message)
        self.input = input_name


class NotYet(Refused):
    """What the input holds is made by a run, and there was none."""


@contextmanager
def at_fault(input_name: str) -> Iterator[None]:
    """Gives what goes wrong inside the name of the input it comes from."""
    try:
        yield
    except Refused:
        raise
    except OneRewardError as error:
        raise Refused(str(error), input_name) from error


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """What is known of an edit before it runs.

    Attributes:
        task: which one.
        pictures, height, width: of the batch that goes in; its pixels are not needed.
        mask: [N, h, w], float in 0..1 or uint8 in 0..255; not used by Extend.
        canvas: None for the task's defaults.
        steps: None if it is not known, as a wired input is not; then no time is told.
        cfg, acceleration: likewise.
        num_images: variations per picture.
        extend_to, anchor, overlap: for Extend.
    """

    task: EditTask
    pictures: int
    height: int
    width: int
    mask: Tensor | None = None
    canvas: CanvasOptions | None = None
    steps: int | None = 28
    cfg: float | None = 4.0
    acceleration: str | None = ACCELERATION
    num_images: int = 1
    extend_to: str = "16:9"
    anchor: str = "center"
    overlap: int = 24


@dataclass(frozen=True, eq=False)
class Stage:
    """One pass over all pictures: an edit, or one step of an extension.

    Attributes:
        plans: one per picture of the batch as it then is.
        images: how many are made of each.
        left, top: where this stage's canvas lies in the result's, in px.
    """

    plans: list[CanvasPlan]
    images: int
    left: int = 0
    top: int = 0


def make_plan(
    request: PlanRequest, backend: Backend, kind: str, foresee: Foresight | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The plan as plain values, for a page.

    Args:
        kind: the backend spec's.
        foresee: for a backend that costs money.
        notes: what the user should know besides.

    Raises:
        Refused: what the edit itself would refuse, or a canvas too large to plan for.
    """
    capabilities = backend.capabilities
    whole, stages = _stages(request, capabilities)
    jobs = [
        piece
        for stage in stages
        for piece in split(stage.plans, stage.images, capabilities.images_per_run or stage.images)
    ]
    pixels = [piece.crop.size[0] * piece.crop.size[1] for piece in jobs for _ in range(piece.count)]
    price, price_note = _price(foresee, pixels)
    size = request.width + whole.left + whole.right, request.height + whole.top + whole.bottom
    shown = _shown(stages)
    facts = {
        "size": [*size],
        "source": [whole.left, whole.top, request.width, request.height],
        "crops": [_crop_facts(placed) for placed in shown],
        "megapixels": sum(pixels) / MEGAPIXEL,
        "jobs": len(jobs),
        "backend": backend.name,
        "kind": kind,
        "price": price,
        "seconds": _seconds(request, stages, backend.name),
        "steps": len(stages) if request.task is EditTask.EXTEND else 1,
    }
    said = [note for stage in stages for note in stage.plans[0].notes if note != EMPTY_NOTE]
    batch = batch_note(len(stages[0].plans)) if stages else ""
    untouched = HAS_SHAPE if request.task is EditTask.EXTEND else EMPTY
    return facts | {
        "overlay": _overlay(request, shown, size),
        "notes": list(filter(None, dict.fromkeys([*notes, batch, *said, price_note]))),
        "words": plan_words(facts, capabilities.note) if jobs else untouched,
    }


def _stages(request: PlanRequest, capabilities: Capabilities) -> tuple[Margins, list[Stage]]:
    """How much the canvas grows in all, and what is done one after the other."""
    if request.task is EditTask.EXTEND:
        whole = _margins(request)
        return whole, _extension(request, whole, capabilities)
    if request.mask is None:
        raise Refused("There is no mask. Connect one, or paint one in the MaskEditor.", "mask")
    options = request.canvas or default_canvas(request.task)
    # plan_edit asks a picture for its size alone, so one that takes no memory will do.
    blank = torch.zeros(()).expand(request.pictures, request.height, request.width, 3)
    with at_fault("mask"):
        plans = plan_edit(blank, _floats(request.mask), options, capabilities)[1]
    return Margins(0, 0, 0, 0), [Stage(plans, request.num_images)]


def _floats(mask: Tensor) -> Tensor:
    return mask if mask.is_floating_point() else mask.float().div_(255)


def _margins(request: PlanRequest) -> Margins:
    with at_fault("extend_to"):
        extension = parse_extend(request.extend_to)
        whole = margins(extension, request.anchor, request.height, request.width)
    if not 0 <= request.overlap <= MAX_BLEND:
        words = f"Overlap {request.overlap} is out of range. Use 0 to {MAX_BLEND} px."
        raise Refused(words, "overlap")
    width = request.width + whole.left + whole.right
    height = request.height + whole.top + whole.bottom
    if width * height > MAX_PIXELS:
        raise Refused(
            f"The new canvas is {width}x{height}, {width * height / MEGAPIXEL:.0f} MP. A plan is "
            f"made for at most {MAX_PIXELS // MEGAPIXEL} MP. Extend less.",
            "extend_to",
        )
    return whole


def _extension(request: PlanRequest, whole: Margins, capabilities: Capabilities) -> list[Stage]:
    """The same steps, options and masks as editing.extend has."""
    options = dataclasses.replace(
        request.canvas or default_canvas(request.task),
        grow=0, blend=request.overlap, clean=False, invert=False,
    )  # fmt: skip
    height, width = request.height, request.width
    left, top = whole.left, whole.top
    pictures, images = request.pictures, request.num_images
    stages = []
    for step in extension_steps(whole, height, width):
        left, top = left - step.left, top - step.top
        mask = _new_area(step, height, width)
        height, width = mask.shape
        with at_fault("canvas"):
            plan = plan_crops(mask, options, capabilities)
        stages.append(Stage([plan] * pictures, images, left, top))
        pictures, images = pictures * images, 1
    return stages


def _new_area(step: Margins, height: int, width: int) -> Tensor:
    mask = torch.ones(height + step.top + step.bottom, width + step.left + step.right)
    mask[step.top : step.top + height, step.left : step.left + width] = 0
    return mask


def _shown(stages: Sequence[Stage]) -> list[PlacedCrop]:
    """The crops of the first picture, on the result's canvas."""
    return [
        PlacedCrop(crop, stage.left, stage.top) for stage in stages for crop in stage.plans[0].crops
    ]


def _crop_facts(placed: PlacedCrop) -> dict[str, list[int]]:
    box, (height, width) = placed.crop.box, placed.crop.size
    corner = [box.left + placed.left, box.top + placed.top]
    return {"box": [*corner, box.width, box.height], "seen": [width, height]}


def _overlay(
    request: PlanRequest, shown: Sequence[PlacedCrop], size: tuple[int, int]
) -> str | None:
    # What an extension paints is seen anyway: it is where no picture is.
    painted = request.task is not EditTask.EXTEND
    return draw_overlay(shown, (size[1], size[0]), painted=painted) if shown else None


def _price(foresee: Foresight | None, pixels: Sequence[int]) -> tuple[float | None, str]:
    if foresee is None or not pixels:
        return None, ""
    try:
        return foresee(pixels)
    except OneRewardError as error:  # a plan is worth something without its price, too
        return None, str(error)


def _seconds(request: PlanRequest, stages: Sequence[Stage], name: str) -> float | None:
    if request.steps is None or request.cfg is None or request.acceleration is None:
        return None
    work = sum(
        eta.work(plan.crops, stage.images, request.steps, request.cfg)
        for stage in stages
        for plan in stage.plans
    )
    return eta.seconds(name, request.acceleration, work) if work else None
