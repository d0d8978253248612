"""One edit from picture to picture: plan, run, stitch. Nodes and command line both call it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..canvas.batch import pair_batches
from ..canvas.crop_plan import CanvasPlan, plan_crops
from ..canvas.extend import extend_picture, extension_steps, margins
from ..canvas.geometry import Crop
from ..canvas.masks import fit_mask
from ..canvas.options import KEEP_ALPHA, MAX_BLEND, CanvasOptions
from ..canvas.previews import PlacedPreview
from ..canvas.sizes import parse_extend
from ..canvas.stitch import cut
from ..contracts import (
    FROM_CACHE,
    Backend,
    Capabilities,
    EditRecipe,
    EditRequest,
    EditTask,
    ProgressSink,
)
from ..errors import ContentPolicyError, InputError, OneRewardError
from . import eta
from .crop_jobs import Outputs, Piece, split
from .job_runner import Bar, Job, failure_of, run_jobs
from .recipes import literal_note
from .report import Report, price_words, transparent_note

REMOVE_GROW = 12
SEEDS = 2**64
SHAPE_NOTE = "The picture has this shape already: it is returned untouched."


@dataclass(frozen=True, eq=False)
class Edit:
    """A finished edit.

    Attributes:
        images: float [pairs * num_images, H, W, C], the input's dtype and channels; image
            `pair * num_images + i` is variation i of that pair.
        mask: float [pairs * num_images, H, W], the blend used: where it is 0, the image equals
            the input bit for bit.
        seeds: one per image, recipe.seed + its index.
        flagged: one per image; True where the backend refused what it made, so that (a crop of)
            the image is the input's.
        report: what was done, for the user.
        summary: the same in one short line: where, how long, at what cost.
        badge: the same in a few words: where, at what cost.
        sources: per image, which of the input's pictures it was made from.
        origin: (row, column) in the images of the input's top left pixel; not 0 after an extension.
        costs: US dollars per remote job, None where the price is unknown.
    """

    images: Tensor
    mask: Tensor
    seeds: tuple[int, ...]
    flagged: tuple[bool, ...]
    report: str
    summary: str
    badge: str
    sources: tuple[int, ...]
    origin: tuple[int, int] = (0, 0)
    costs: tuple[float | None, ...] = ()


def default_canvas(task: EditTask) -> CanvasOptions:
    """The canvas a task uses when the user sets none: Remove wants more room for shadows."""
    return CanvasOptions(grow=REMOVE_GROW) if task is EditTask.REMOVE else CanvasOptions()


@torch.no_grad()
def edit(
    image: Tensor,
    mask: Tensor,
    recipe: EditRecipe,
    canvas: CanvasOptions | None,
    backend: Backend,
    progress: ProgressSink,
) -> Edit:
    """Repaint the masked pixels of every picture.

    Args:
        image: float [B, H, W, 3 or 4]; never written to.
        mask: float [N, H, W] or [H, W], 1 = change; 1:1, 1:N, N:1 or N:N with the pictures.
        recipe: what to paint.
        canvas: how masks, crops and seams are treated; None for the task's defaults.

    Raises:
        InputError: before any model is loaded or anything is sent.
        RemoteError: a remote job failed; those that did not are kept by the backend.
    """
    report = Report(backend.name, recipe, backend.capabilities.note)
    options = canvas or default_canvas(recipe.task)
    check_image(image)
    backend.check(recipe)
    with report.stage("plan"):
        pairs, plans = plan_edit(image, mask, options, backend.capabilities)
        if recipe.task is EditTask.EXTEND:
            plans = [_shape_noted(plan) for plan in plans]
    count = recipe.num_images
    outputs = Outputs(image, pairs, plans, count)
    pieces = split(plans, count, backend.capabilities.images_per_run or count)
    _check_seeds(recipe, pieces)
    bar = Bar(progress, len(pieces))
    jobs = [
        Job(
            piece.name,
            partial(_request, recipe, image[pairs[piece.pair][0]], piece),
            # Shown on the first variation, so that crops already done stay visible.
            CropProgress(progress, bar, number, outputs.images[piece.first], piece.crop),
        )
        for number, piece in enumerate(pieces)
    ]
    report.add_plans(plans)
    prompts = f"{recipe.prompt}\n{recipe.negative_prompt}"
    report.add_note(literal_note(prompts, backend.capabilities.prompt_embeddings))
    if options.alpha == KEEP_ALPHA:
        report.add_note(transparent_note([image[picture] for picture, _ in pairs], plans))
    if jobs:
        backend.admit((job.request() for job in jobs), progress)
    failed = _paint(backend, recipe, jobs, pieces, outputs, options, report, progress)
    if failed:
        raise failure_of(failed, len(jobs), recipe.seed)
    return Edit(
        images=outputs.images,
        mask=outputs.masks,
        seeds=tuple(_seed(recipe, i) for i in range(len(outputs.images))),
        flagged=tuple(outputs.flagged),
        report=report.text(),
        summary=report.summary(),
        badge=report.badge(),
        sources=tuple(picture for picture, _ in pairs for _ in range(count)),
        costs=report.costs(),
    )


def plan_edit(
    image: Tensor, mask: Tensor, canvas: CanvasOptions, capabilities: Capabilities
) -> tuple[list[tuple[int, int]], list[CanvasPlan]]:
    """Which picture goes with which mask, as index pairs, and the crops of each pair."""
    masks, note = fit_mask(mask, image.shape[1], image.shape[2])
    pairs = pair_batches(len(image), len(masks))
    by_mask = {m: plan_crops(masks[m], canvas, capabilities) for m in {m for _, m in pairs}}
    if note:
        by_mask = {
            m: dataclasses.replace(plan, notes=(note, *plan.notes)) for m, plan in by_mask.items()
        }
    return pairs, [by_mask[m] for _, m in pairs]


def _shape_noted(plan: CanvasPlan) -> CanvasPlan:
    """Without a mask of the artist's, nothing to paint is a canvas that does not grow."""
    return plan if plan.crops else dataclasses.replace(plan, notes=(SHAPE_NOTE,))


@torch.no_grad()
def extend(
    image: Tensor,
    to: str,
    anchor: str,
    overlap: int,
    recipe: EditRecipe,
    canvas: CanvasOptions | None,
    backend: Backend,
    progress: ProgressSink,
) -> Edit:
    """Make every picture larger and paint the new area, in several steps if it is large.

    Args:
        image: float [B, H, W, 3 or 4]; never written to.
        to: how far, in the words of `canvas.sizes.parse_extend`.
        anchor: where the old picture sits on the new canvas, one of `canvas.extend.ANCHORS`.
        overlap: source pixels next to the new area that fade into it; 0 keeps every one.

    Returns:
        The edit on the larger canvas. Source pixels deeper than `overlap` are unchanged.

    Raises:
        InputError: before any model is loaded or anything is sent.
    """
    check_image(image)
    if not 0 <= overlap <= MAX_BLEND:
        raise InputError(f"Overlap {overlap} is out of range. Use 0 to {MAX_BLEND} px.")
    sides = margins(parse_extend(to), anchor, image.shape[1], image.shape[2])
    # A picture that has the shape already goes through with nothing to paint.
    steps = extension_steps(sides, image.shape[1], image.shape[2]) or [sides]
    # The new area is the mask, exactly; the fade lies in the source, as it does around any mask.
    options = dataclasses.replace(
        canvas or default_canvas(recipe.task), grow=0, blend=overlap, clean=False, invert=False
    )
    used = torch.zeros(1, *image.shape[1:3])
    made: list[Edit] = []
    sources = tuple(i for i in range(len(image)) for _ in range(recipe.num_images))
    for number, step in enumerate(steps, 1):
        if len(steps) > 1:
            progress.status(f"Extending, step {number} of {len(steps)}")
        image, mask = extend_picture(image, step)
        done = edit(image, mask, recipe, options, backend, progress)
        if any(done.flagged):
            raise ContentPolicyError(
                "The new area was flagged, and outside the picture there is no input to give back. "
                "Change the prompt or the seed.",
                may_be_billed=True,
            )
        before = F.pad(used, (step.left, step.right, step.top, step.bottom))
        image, used = done.images, torch.maximum(before, done.mask)
        made.append(done)
        # Every variation goes on from its own picture, with its own seed.
        recipe = dataclasses.replace(recipe, num_images=1)
    return dataclasses.replace(
        made[-1],
        mask=used,
        report=_steps_report(made),
        summary=" | ".join(done.summary for done in made),
        badge=_badge(backend, made),
        costs=tuple(cost for done in made for cost in done.costs),
        sources=sources,
        origin=(sides.top, sides.left),
    )


def _steps_report(made: Sequence[Edit]) -> str:
    if len(made) == 1:
        return made[0].report
    reports = enumerate((done.report for done in made), 1)
    return "\n\n".join(f"step {number} of {len(made)}\n{report}" for number, report in reports)


def _badge(backend: Backend, made: Sequence[Edit]) -> str:
    """The badge of all steps of an extension, which are paid for one by one."""
    costs = [cost for done in made for cost in done.costs]
    if len(made) == 1 or not costs:
        return made[-1].badge
    cached = all(FROM_CACHE in done.badge for done in made)
    return f"{backend.name}: {price_words(costs, cached)}"


def check_image(image: Tensor) -> None:
    """Raise InputError unless `image` is a float [B, H, W, 3 or 4] with something in it."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.is_floating_point():
        raise InputError(
            f"Image has shape {list(image.shape)} and type {image.dtype}; an IMAGE is float "
            "[batch, height, width, 3 or 4]. Connect an IMAGE output."
        )
    if image.numel() == 0:
        raise InputError(f"Image is empty: shape {list(image.shape)}. Connect a picture.")


class CropProgress:
    """One crop's progress as a part of the whole edit's, its preview shown on the picture."""

    def __init__(
        self, whole: ProgressSink, bar: Bar, number: int, picture: Tensor, crop: Crop
    ) -> None:
        self._whole, self._bar, self._number = whole, bar, number
        self._picture, self._crop = picture, crop
        self._placed: PlacedPreview | None = None

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        if preview is not None:
            self._placed = self._placed or PlacedPreview(self._picture, self._crop)
            preview = self._placed.paste(preview)
        self._bar.step(self._number, value, total, preview)

    def status(self, text: str) -> None:
        self._whole.status(text)

    def check_interrupted(self) -> None:
        self._whole.check_interrupted()


def _request(recipe: EditRecipe, picture: Tensor, piece: Piece) -> EditRequest:
    seed = _seed(recipe, piece.first)
    return recipe.on(*cut(picture, piece.crop), seed=seed, num_images=piece.count)


def _check_seeds(recipe: EditRecipe, pieces: Sequence[Piece]) -> None:
    """Within a job seeds rise by 1 and do not begin anew at 0, as they do from job to job."""
    if any(_seed(recipe, piece.first) + piece.count > SEEDS for piece in pieces):
        raise InputError(
            f"Seed {recipe.seed} with {recipe.num_images} images per picture passes the largest "
            f"seed, {SEEDS - 1}. Use a smaller seed."
        )


def _seed(recipe: EditRecipe, index: int) -> int:
    return (recipe.seed + index) % SEEDS


def _paint(
    backend: Backend, recipe: EditRecipe, jobs: list[Job], pieces: list[Piece], outputs: Outputs,
    options: CanvasOptions, report: Report, progress: ProgressSink,
) -> dict[str, OneRewardError]:  # fmt: skip
    """Run the jobs and paste what they make, in their order; the errors of those that failed."""
    failed: dict[str, OneRewardError] = {}
    start, work = time.perf_counter(), 0.0
    for job, piece, result in zip(jobs, pieces, run_jobs(backend, jobs, progress), strict=True):
        if isinstance(result, OneRewardError):
            failed[job.name] = result
            continue
        report.add_result(job.name, result)
        if FROM_CACHE not in result.notes:
            work += eta.work([piece.crop], piece.count, recipe.num_inference_steps, recipe.true_cfg)
        with report.stage("stitch"):
            outputs.add(piece, result, options, report)
        if backend.capabilities.remote:
            job.progress.step(1, 1, result.images[0])
    eta.note(backend.name, recipe.acceleration, work, time.perf_counter() - start)
    if report.spend_line():
        progress.status(report.spend_line())
    return failed
