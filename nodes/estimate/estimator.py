"""The estimate: what an edit would do and cost, before it runs. It prices the edit's own plan.

No model is loaded or run, and no pixel of a picture is needed: sizes and masks are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..canvas.crop_plan import EMPTY_NOTE
from ..canvas.options import CanvasOptions
from ..contracts import ACCELERATION, MEGAPIXEL, Backend, Capabilities, EditTask
from ..edit import eta
from ..edit.plan import (
    SHAPE_NOTE,
    BatchSize,
    EditPlan,
    default_canvas,
    plan_edit,
    plan_extension,
)
from ..errors import InputError, OneRewardError, at_fault
from .overlay import PlacedCrop, draw_overlay

# New jobs of so many pixels each -> US dollars, None if unknown, and what the user should know.
# comfyui/routes/estimate.py makes it, of FalBackend.estimate_price.
PriceOf = Callable[[Sequence[int]], tuple[float | None, str]]

EMPTY = "The mask is empty: the picture goes through untouched, at no cost."
HAS_SHAPE = "The picture has this shape already: it goes through untouched, at no cost."
WITH_ARTICLE = ("preview", "model")  # kinds of backends whose names are nouns
PAID = "fal"


class NotKnownYet(InputError):
    """What an input holds is made by a run, and there was none."""


@dataclass(frozen=True, eq=False)
class EstimateRequest:
    """What is known of an edit before it runs.

    Attributes:
        task: which one.
        source: the batch that goes in; its pixels are not needed.
        mask: [N, h, w], float in 0..1 or uint8 in 0..255; not used by Extend.
        canvas: None for the task's defaults.
        steps: None if it is not known, as a wired input is not; then no time is given.
        cfg, acceleration: likewise.
        num_images: variations per picture.
        extend_to, anchor, overlap: for Extend.
    """

    task: EditTask
    source: BatchSize
    mask: Tensor | None = None
    canvas: CanvasOptions | None = None
    steps: int | None = 28
    cfg: float | None = 4.0
    acceleration: str | None = ACCELERATION
    num_images: int = 1
    extend_to: str = "16:9"
    anchor: str = "center"
    overlap: int = 24


def estimate(
    request: EstimateRequest, backend: Backend, kind: str, price_of: PriceOf | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """What the edit would do, as plain values for a page.

    Args:
        kind: the backend spec's.
        price_of: for a backend that costs money.
        notes: what the user should know besides.

    Returns:
        size: [width, height] of the result. source: [x, y, width, height] of the picture in it.
        crops: of the first picture, each with its "box" [x, y, width, height] and "seen" [width,
        height], as the model sees it. megapixels, jobs: of all pictures. backend, kind: where.
        price: US dollars or None. seconds: or None. steps: of an extension. overlay: a PNG of the
        crops as a data URI, or None. notes, words: for the user.

    Raises:
        InputError: what the edit itself would refuse, with the input at fault.
    """
    plan = plan_of(request, backend.capabilities)
    pixels = [job.pixels for job in plan.jobs for _ in range(job.count)]
    price, price_note = _price(price_of, pixels)
    crops, extends = _first_crops(plan), request.task is EditTask.EXTEND
    facts = {
        "size": [plan.size[1], plan.size[0]],
        "source": [plan.margins.left, plan.margins.top, plan.source.width, plan.source.height],
        "crops": [_crop_facts(placed) for placed in crops],
        "megapixels": sum(pixels) / MEGAPIXEL,
        "jobs": len(plan.jobs),
        "backend": backend.name,
        "kind": kind,
        "price": price,
        "seconds": _seconds(request, sum(pixels), backend.name),
        "steps": sum(bool(stage.jobs) for stage in plan.stages) if extends else 1,
    }
    # What an extension paints is seen anyway: it is where no picture is.
    overlay = draw_overlay(crops, plan.size, painted=not extends) if crops else None
    untouched = HAS_SHAPE if extends else EMPTY
    return facts | {
        "overlay": overlay,
        "notes": list(filter(None, dict.fromkeys([*notes, *_notes(plan), price_note]))),
        "words": _summary(facts, backend.capabilities.note) if plan.jobs else untouched,
    }


def plan_of(request: EstimateRequest, capabilities: Capabilities) -> EditPlan:
    """The plan that the edit would execute; InputError as in plan_edit and plan_extension."""
    source, count = request.source, request.num_images
    if request.task is EditTask.EXTEND:
        return plan_extension(
            source, request.extend_to, request.anchor, request.overlap, request.canvas,
            capabilities, num_images=count,
        )  # fmt: skip
    with at_fault("mask"):
        if request.mask is None:
            raise InputError("There is no mask. Connect one, or paint one in the MaskEditor.")
    options = request.canvas or default_canvas(request.task)
    return plan_edit(source, _floats(request.mask), options, capabilities, num_images=count)


def _floats(mask: Tensor) -> Tensor:
    return mask if mask.is_floating_point() else mask.float().div_(255)


def _first_crops(plan: EditPlan) -> list[PlacedCrop]:
    """The crops of the first picture, on the result's canvas."""
    return [
        PlacedCrop(crop, stage.left, stage.top)
        for stage in plan.stages
        for crop in stage.crop_plans[0].crops
    ]


def _crop_facts(placed: PlacedCrop) -> dict[str, list[int]]:
    box, (height, width) = placed.crop.box, placed.crop.size
    corner = [box.left + placed.left, box.top + placed.top]
    return {"box": [*corner, box.width, box.height], "seen": [width, height]}


def _notes(plan: EditPlan) -> list[str]:
    """On the batch, and on the first picture's crops. The summary says what goes untouched."""
    of_crops = [note for stage in plan.stages for note in stage.crop_plans[0].notes]
    batch = "" if SHAPE_NOTE in of_crops else _batch_note(len(plan.stages[0].crop_plans))
    return [batch, *(note for note in of_crops if note not in (EMPTY_NOTE, SHAPE_NOTE))]


def _price(price_of: PriceOf | None, pixels: Sequence[int]) -> tuple[float | None, str]:
    if price_of is None or not pixels:
        return None, ""
    try:
        return price_of(pixels)
    except OneRewardError as error:  # an estimate is worth something without its price, too
        return None, str(error)


def _seconds(request: EstimateRequest, pixels: int, name: str) -> float | None:
    if request.steps is None or request.cfg is None or request.acceleration is None:
        return None
    passes = eta.megapixel_passes(pixels, request.steps, request.cfg)
    return eta.seconds(name, request.acceleration, passes) if passes else None


def _summary(facts: Mapping[str, Any], note: str = "") -> str:
    """Such as "2 crops, 0.52 MP, 2 jobs on fal, about $0.019, about 4 s".

    Args:
        facts: what `estimate` returns.
        note: what must be known of the backend wherever it is named.
    """
    the = "the " if facts["kind"] in WITH_ARTICLE else ""
    name = f"{the}{facts['backend']}" + (f" ({note})" if note else "")
    steps = [_count(facts["steps"], "step")] if facts["steps"] > 1 else []
    price = [money(facts["price"])] if facts["kind"] == PAID else []
    time = [] if facts["seconds"] is None else [_duration(facts["seconds"])]
    jobs = f"{_count(facts['jobs'], 'job')} on {name}"
    crops = _count(len(facts["crops"]), "crop")
    return ", ".join([*steps, crops, f"{facts['megapixels']:.2f} MP", jobs, *price, *time])


def money(price: float | None) -> str:
    """US dollars as text."""
    if price is None:
        return "price unknown"
    if price == 0:
        return "free"
    return "under $0.001" if 0 < price < 0.001 else f"about ${price:.3f}"


def _duration(seconds: float) -> str:
    """A time as text, no more exact than it is known."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def _batch_note(pictures: int) -> str:
    """Which of several pictures' crops the estimate draws; nothing for one."""
    if pictures < 2:
        return ""
    return f"{pictures} pictures: the first one's crops are shown, the numbers are for all."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
