"""What an edit did, in lines a user can read and paste into a bug report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..canvas.crop_plan import CropPlan
from ..canvas.options import ALPHA_FROM_BLEND
from ..canvas.seam import SeamCorrection
from ..contracts import FROM_CACHE, MEGAPIXEL, EditRecipe, EditResult

if TYPE_CHECKING:
    from torch import Tensor

SEEN_ALPHA = 0.5


class Report:
    """Collects facts while an edit runs.

    Args:
        backend: the backend's name.
        recipe: what was asked for.
        note: what is to be known of the backend's pictures; see Capabilities.
    """

    def __init__(self, backend: str, recipe: EditRecipe, note: str = "") -> None:
        self._backend, self._recipe, self._note = backend, recipe, note
        self._start = time.perf_counter()
        self._times: dict[str, float] = {}
        self._seams: list[SeamCorrection] = []
        self._plans: Sequence[CropPlan] = ()
        self._results: dict[str, EditResult] = {}
        self._notes: dict[str, None] = {}  # a set that keeps its order
        self._remarks: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to the stage of this name."""
        start = time.perf_counter()
        yield
        self.add_times({name: time.perf_counter() - start})

    def add_times(self, seconds: Mapping[str, float]) -> None:
        for name, value in seconds.items():
            self._times[name] = self._times.get(name, 0.0) + value

    def add_result(self, name: str, result: EditResult) -> None:
        """A job's times; where it was remote, what it was called and what it cost; else what is to
        be known of the run, such as how the model fits the card.
        """
        self.add_times(result.timings)
        if result.request_id is None:
            self._notes |= dict.fromkeys(result.notes)
        else:
            self._results[name] = result

    def add_seam(self, seam: SeamCorrection) -> None:
        self._seams.append(seam)

    def add_plans(self, plans: Sequence[CropPlan]) -> None:
        self._plans = plans

    def add_note(self, note: str) -> None:
        """What the user should know of this edit, in the summary, too; "" is nothing."""
        if note:
            self._remarks.append(note)

    def spend_line(self) -> str:
        """What the remote jobs so far cost; empty if there are none."""
        return _spend_line(list(self._results.values())) if self._results else ""

    def costs(self) -> tuple[float | None, ...]:
        """US dollars per remote job, None where the price is unknown."""
        return tuple(result.cost for result in self._results.values())

    def badge(self) -> str:
        """Where it was made and, if it was for money, at what price, as a short text."""
        price = _price(list(self._results.values())) if self._results else ""
        return ": ".join(filter(None, [self._backend, self._note or price]))

    def summary(self) -> str:
        """What the user should know; and where it was made, in how many seconds since the edit
        began and at what cost, if anything was made.
        """
        of_plans = dict.fromkeys(note for plan in self._plans for note in plan.notes)
        notes = " ".join([*of_plans, *self._remarks])
        done = self._done_line() if any(plan.crops for plan in self._plans) else ""
        return ". ".join(filter(None, [done, notes]))

    def _done_line(self) -> str:
        where = ": ".join(filter(None, [self._backend, self._note]))
        seconds = f"{time.perf_counter() - self._start:.1f} s"
        return ", ".join(filter(None, [where, seconds, self.spend_line()]))

    def text(self) -> str:
        r = self._recipe
        lines = [f"{r.task.value}: {r.prompt}"]
        if any(plan.crops for plan in self._plans):
            lines.append(
                f"{self._backend}, {r.num_inference_steps} steps, cfg {r.true_cfg:g}, guidance "
                f"{r.guidance_scale:g}, seed {r.seed}, acceleration {r.acceleration}"
            )
        lines += [*self._notes, *self._remarks]
        lines += [line for i, plan in enumerate(self._plans) for line in _plan_lines(plan, i)]
        if self._seams:
            without = max(seam.without for seam in self._seams)
            corrected = max(seam.corrected for seam in self._seams)
            lines.append(f"seam correction (delta E): {without:.2f} without, {corrected:.2f} with")
        if self._results:
            lines.append(result_lines(self._results))
        times = ", ".join(f"{name} {value:.2f} s" for name, value in self._times.items())
        return "\n".join([*lines, f"time: {times}"])


def _plan_lines(plan: CropPlan, index: int) -> list[str]:
    return [f"picture {index + 1}: {line}" for line in (*plan.notes, *crop_lines(plan))]


def transparent_note(pictures: Sequence[Tensor], plans: Sequence[CropPlan]) -> str:
    """A note where some of what is repainted cannot be seen; "" if all can.

    Args:
        pictures: float [H, W, 3 or 4], as many as plans.
    """
    repainted = [
        picture[crop.box.slices][..., 3][crop.blend >= 1] < SEEN_ALPHA
        for picture, plan in zip(pictures, plans, strict=True)
        for crop in plan.crops
        if picture.shape[-1] == 4
    ]
    hidden, whole = sum(int(one.sum()) for one in repainted), sum(map(len, repainted))
    if not hidden:
        return ""
    return (
        f"{hidden / whole:.0%} of the repainted pixels are transparent (alpha below {SEEN_ALPHA}) "
        f'and stay so: the edit does not show there. Alpha "{ALPHA_FROM_BLEND}" on OneReward '
        "Canvas makes them opaque."
    )


def result_lines(results: Mapping[str, EditResult]) -> str:
    """What remote jobs were called and what they cost: one line each, and one for the sum."""
    lines = [_result_line(name, result) for name, result in results.items()]
    return "\n".join([*lines, _spend_line(list(results.values()))])


def _result_line(name: str, result: EditResult) -> str:
    billed = result.billed_units is not None and result.cost != 0
    units = [f"{result.billed_units:g} units billed"] if billed else []
    flags = ["flagged"] if any(result.has_nsfw_concepts) else []
    return ", ".join([f"{name}: request {result.request_id}", *units, *flags, *result.notes])


def _spend_line(results: Sequence[EditResult]) -> str:
    session = max((r.session_cost for r in results if r.session_cost is not None), default=None)
    dollars = f"about ${session:.3f}" if session else "$0"
    so_far = "" if session is None else f"; {dollars} this session"
    return f"cost: {_price(results)}{so_far}"


def _price(results: Sequence[EditResult]) -> str:
    cached = all(FROM_CACHE in result.notes for result in results)
    return price_text([result.cost for result in results], cached)


def price_text(costs: Sequence[float | None], cached: bool) -> str:
    """What jobs cost together, US dollars each and None where the price is unknown."""
    known = [cost for cost in costs if cost is not None]
    unknown = len(costs) - len(known)
    free = f"$0, {FROM_CACHE}" if cached else "free"
    parts = [f"about ${sum(known):.3f}" if sum(known) else free] if known else []
    parts += [f"{unknown} at an unknown price"] if unknown else []
    return " and ".join(parts)


def crop_lines(plan: CropPlan) -> list[str]:
    """One line per crop: where it lies, how the model sees it, and what that costs in pixels."""
    lines = []
    for number, crop in enumerate(plan.crops, 1):
        box, (height, width) = crop.box, crop.size
        lines.append(
            f"crop {number} at x {box.left}, y {box.top}: {box.width}x{box.height}, "
            f"seen at {width}x{height} ({width * height / MEGAPIXEL:.2f} MP)"
        )
    return lines
