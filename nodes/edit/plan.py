"""The edit plan: all that an edit will do, as data; and each task's default canvas.

An edit executes the plan; the estimate prices it. Fill, remove and text (inpainting) are one stage.
An extension (outpainting) is one stage per step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..canvas.crop_plan import CropPlan, plan_crops
from ..canvas.extend import Margins, extension_steps, margins, new_area
from ..canvas.masks import fit_mask, pair_batches
from ..canvas.options import MAX_BLEND, CanvasOptions
from ..canvas.sizes import parse_extend
from ..contracts import MAX_SEED, Capabilities, EditTask
from ..errors import InputError, at_fault
from .crop_jobs import CropJob, seed_of, split_jobs

# An object that is removed leaves a soft edge, a reflection or the rim of a shadow outside of what
# was painted. 12 px take these in, where 8 px do for what is painted over.
REMOVE_GROW = 12
SHAPE_NOTE = "The picture has this shape already: it is returned untouched."
UNCHANGED = Margins(0, 0, 0, 0)

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BatchSize:
    """How many pictures, and their height and width in px."""

    pictures: int
    height: int
    width: int

    @classmethod
    def of(cls, image: Tensor) -> BatchSize:
        """The size of an IMAGE [B, H, W, C]."""
        return cls(*image.shape[:3])

    def extended(self, by: Margins) -> BatchSize:
        """The same pictures on a larger canvas."""
        return BatchSize(
            self.pictures, self.height + by.top + by.bottom, self.width + by.left + by.right
        )

    def same_canvas(self, other: BatchSize) -> bool:
        """Whether both have pictures of the same height and width."""
        return (self.height, self.width) == (other.height, other.width)

    def repeated(self, times: int) -> BatchSize:
        """So many pictures in place of each."""
        return dataclasses.replace(self, pictures=self.pictures * times)


@dataclass(frozen=True, eq=False)
class Stage:
    """One pass over all pictures.

    Attributes:
        margins: how much the canvas grows before anything is painted.
        left, top: where this stage's canvas lies in the result's, in px.
        pairs: (picture, mask) of each pair, by number.
        crop_plans: one per pair.
        images: how many are made of each pair.
        seeds: one per image, of all pairs.
        jobs: every call to the backend, in order.
        planning_seconds: how long it took to plan.
    """

    margins: Margins
    left: int
    top: int
    pairs: Pairs
    crop_plans: tuple[CropPlan, ...]
    images: int
    seeds: tuple[int, ...]
    jobs: tuple[CropJob, ...]
    planning_seconds: float


@dataclass(frozen=True, eq=False)
class EditPlan:
    """What an edit does, in order.

    Attributes:
        source: the batch that goes in.
        options: how masks, crops and seams are treated in every stage.
        margins: how much the canvas grows in all.
        stages: at least one, also where there is nothing to paint.
    """

    source: BatchSize
    options: CanvasOptions
    margins: Margins
    stages: tuple[Stage, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        result = self.source.extended(self.margins)
        return result.height, result.width

    @property
    def jobs(self) -> list[CropJob]:
        """Every call to the backend, in order."""
        return [job for stage in self.stages for job in stage.jobs]


def default_canvas(task: EditTask) -> CanvasOptions:
    """The canvas a task uses when the user sets none; see REMOVE_GROW."""
    return CanvasOptions(grow=REMOVE_GROW) if task is EditTask.REMOVE else CanvasOptions()


def plan_edit(
    source: BatchSize,
    mask: Tensor,
    options: CanvasOptions,
    capabilities: Capabilities,
    *,
    num_images: int = 1,
    seed: int = 0,
) -> EditPlan:
    """The plan of a fill, a remove or a text. Only the pictures' sizes are needed.

    Args:
        mask: float [N, H, W] or [H, W], 1 = change; 1:1, 1:N, N:1 or N:N with the pictures.
        num_images: how many are made of each picture.
        seed: of the first image; every further image has the next one.

    Raises:
        InputError: the mask breaks a rule, or a job's seeds pass the largest one.
    """
    start = time.perf_counter()
    with at_fault("mask"):
        masks, note = fit_mask(mask, source.height, source.width)
        pairs = tuple(pair_batches(source.pictures, len(masks)))
        by_mask = {
            m: plan_crops(masks[m], options, capabilities) for m in {m: None for _, m in pairs}
        }
    if note:
        by_mask = {
            m: dataclasses.replace(plan, notes=(note, *plan.notes)) for m, plan in by_mask.items()
        }
    plans = tuple(by_mask[m] for _, m in pairs)
    per_run = capabilities.images_per_run
    stage = _stage(UNCHANGED, (0, 0), pairs, plans, num_images, seed, per_run, start)
    return EditPlan(source, options, UNCHANGED, (stage,))


def plan_extension(
    source: BatchSize,
    to: str,
    anchor: str,
    overlap: int,
    canvas: CanvasOptions | None,
    capabilities: Capabilities,
    *,
    num_images: int = 1,
    seed: int = 0,
) -> EditPlan:
    """The plan of an extension: each step's canvas, and the crops that its new area gets.

    The first step makes the variations. In every later step each image goes on from its own
    picture, with the same seed as in the first step.

    Args:
        to, anchor, overlap: see `run.extend`.
        canvas: the user's; grow, blend, clean and invert are the extension's own.
        num_images, seed: as in plan_edit.

    Raises:
        InputError: one of these breaks a rule, or the new canvas is too small or too large.
    """
    if not 0 <= overlap <= MAX_BLEND:
        with at_fault("overlap"):
            raise InputError(f"Overlap {overlap} is out of range. Use 0 to {MAX_BLEND} px.")
    with at_fault("extend_to"):
        whole = margins(parse_extend(to), anchor, source.height, source.width)
    # The new area is the mask, exactly. The feather lies in the source, as it does around any mask.
    options = dataclasses.replace(
        canvas or default_canvas(EditTask.EXTEND),
        grow=0, blend=overlap, clean=False, invert=False,
    )  # fmt: skip
    size, (left, top) = source, (whole.left, whole.top)
    stages: list[Stage] = []
    # A picture that has the shape already goes through with nothing to paint.
    for step in extension_steps(whole, size.height, size.width) or [UNCHANGED]:
        start = time.perf_counter()
        left, top = left - step.left, top - step.top
        with at_fault("canvas"):
            plan = _new_area_plan(step, size, options, capabilities)
        plans = (plan,) * size.pictures
        pairs = tuple((picture, 0) for picture in range(size.pictures))
        per_run = capabilities.images_per_run
        stages.append(_stage(step, (left, top), pairs, plans, num_images, seed, per_run, start))
        size = size.extended(step).repeated(num_images)
        num_images = 1
    return EditPlan(source, options, whole, tuple(stages))


def _new_area_plan(
    step: Margins, size: BatchSize, options: CanvasOptions, capabilities: Capabilities
) -> CropPlan:
    plan = plan_crops(new_area(step, size.height, size.width), options, capabilities)
    return plan if plan.crops else dataclasses.replace(plan, notes=(SHAPE_NOTE,))


def _stage(
    step: Margins, place: tuple[int, int], pairs: Pairs, plans: tuple[CropPlan, ...],
    num_images: int, seed: int, per_run: int | None, start: float,
) -> Stage:  # fmt: skip
    jobs = split_jobs(plans, num_images, per_run, seed)
    _check_seeds(jobs, seed, num_images)
    return Stage(
        margins=step,
        left=place[0],
        top=place[1],
        pairs=pairs,
        crop_plans=plans,
        images=num_images,
        seeds=tuple(seed_of(seed, i) for i in range(len(pairs) * num_images)),
        jobs=jobs,
        planning_seconds=time.perf_counter() - start,
    )


def _check_seeds(jobs: Sequence[CropJob], seed: int, num_images: int) -> None:
    """Within a job seeds rise by 1 and do not begin anew at 0, as they do from job to job."""
    if any(job.seed + job.count - 1 > MAX_SEED for job in jobs):
        with at_fault("seed"):
            raise InputError(
                f"Seed {seed} with {num_images} images per picture passes the largest seed, "
                f"{MAX_SEED}. Use a smaller seed."
            )
