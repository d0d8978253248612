"""One edit from picture to picture: edit() inpaints, extend() outpaints. Both plan, run and stitch.

Nodes and command line call them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..canvas.extend import extend_picture
from ..canvas.options import KEEP_ALPHA, CanvasOptions
from ..contracts import FROM_CACHE, Backend, EditRecipe, ProgressSink
from ..errors import ContentPolicyError, InputError, OneRewardError
from . import eta
from .crop_jobs import CropJob, CropProgress, Outputs
from .job_runner import BackendCall, Bar, failure_of, run_calls
from .plan import BatchSize, Stage, default_canvas, plan_edit, plan_extension
from .recipes import literal_note
from .report import Report, price_text, transparent_note


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
        badge: the same, shorter: where, at what cost.
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


@torch.no_grad()
def edit(
    image: Tensor,
    mask: Tensor,
    recipe: EditRecipe,
    canvas: CanvasOptions | None,
    backend: Backend,
    progress: ProgressSink,
) -> Edit:
    """Repaint (inpaint) the masked pixels of every picture.

    Args:
        image: float [B, H, W, 3 or 4]; never written to.
        mask: float [N, H, W] or [H, W], 1 = change; 1:1, 1:N, N:1 or N:N with the pictures.
        recipe: what to paint. Image i of all pairs has the recipe's seed + i.
        canvas: how masks, crops and seams are treated; None for the task's defaults.

    Raises:
        InputError: before any model is loaded or anything is sent.
        RemoteError: a remote job failed; those that did not are cached by the backend.
    """
    report = Report(backend.name, recipe, backend.capabilities.note)
    check_image(image)
    backend.check(recipe)
    options, size = canvas or default_canvas(recipe.task), BatchSize.of(image)
    plan = plan_edit(
        size, mask, options, backend.capabilities, num_images=recipe.num_images, seed=recipe.seed
    )
    return _run_stage(image, plan.stages[0], options, recipe, backend, progress, report)


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
    """Make every picture larger and paint (outpaint) the new area, in several steps if it is large.

    Seeds: image i has the recipe's seed + i in every step. So the second step of an image paints
    with the same seed as its first one, on another part of the canvas.

    Args:
        image: float [B, H, W, 3 or 4]; never written to.
        to: how far, as `canvas.sizes.parse_extend` reads it.
        anchor: where the old picture sits on the new canvas, one of `canvas.extend.ANCHORS`.
        overlap: source pixels next to the new area that fade into it; 0 keeps every one.

    Returns:
        The edit on the larger canvas. Source pixels deeper than `overlap` are unchanged.

    Raises:
        InputError: before any model is loaded or anything is sent.
        ContentPolicyError: an image of the new area was flagged.
    """
    check_image(image)
    backend.check(recipe)
    plan = plan_extension(
        BatchSize.of(image), to, anchor, overlap, canvas, backend.capabilities,
        num_images=recipe.num_images, seed=recipe.seed,
    )  # fmt: skip
    used = torch.zeros(1, *image.shape[1:3])
    made: list[Edit] = []
    sources = tuple(i for i in range(len(image)) for _ in range(recipe.num_images))
    for number, stage in enumerate(plan.stages, 1):
        if len(plan.stages) > 1:
            progress.status(f"Extending, step {number} of {len(plan.stages)}")
        step, report = stage.margins, Report(backend.name, recipe, backend.capabilities.note)
        image = extend_picture(image, step)
        done = _run_stage(image, stage, plan.options, recipe, backend, progress, report)
        if any(done.flagged):
            raise ContentPolicyError(
                "The new area was flagged, and outside the picture there is no input to give back. "
                "Change the prompt or the seed.",
                may_be_billed=True,
            )
        before = F.pad(used, (step.left, step.right, step.top, step.bottom))
        image, used = done.images, torch.maximum(before, done.mask)
        made.append(done)
    return dataclasses.replace(
        made[-1],
        mask=used,
        report=_steps_report(made),
        summary=" | ".join(done.summary for done in made),
        badge=_badge(backend, made),
        costs=tuple(cost for done in made for cost in done.costs),
        sources=sources,
        origin=(plan.margins.top, plan.margins.left),
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
    return f"{backend.name}: {price_text(costs, cached)}"


def check_image(image: Tensor) -> None:
    """Raise InputError unless `image` is a float [B, H, W, 3 or 4] with something in it."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.is_floating_point():
        raise InputError(
            f"Image has shape {list(image.shape)} and type {image.dtype}; an IMAGE is float "
            "[batch, height, width, 3 or 4]. Connect an IMAGE output."
        )
    if image.numel() == 0:
        raise InputError(f"Image is empty: shape {list(image.shape)}. Connect a picture.")


def _run_stage(
    image: Tensor, stage: Stage, options: CanvasOptions, recipe: EditRecipe, backend: Backend,
    progress: ProgressSink, report: Report,
) -> Edit:  # fmt: skip
    """Do what a stage says with these pictures, which have its canvas's size."""
    report.add_times({"plan": stage.planning_seconds})
    pairs, plans, jobs = stage.pairs, stage.crop_plans, stage.jobs
    outputs, bar = Outputs(image, pairs, plans, stage.images), Bar(progress, len(jobs))
    calls = [
        BackendCall(
            job.name,
            partial(job.request, recipe, image[pairs[job.pair][0]]),
            # Shown on the first variation, so that crops already done stay visible.
            CropProgress(progress, bar, number, outputs.images[job.first], job.crop),
        )
        for number, job in enumerate(jobs)
    ]
    report.add_plans(plans)
    prompts = f"{recipe.prompt}\n{recipe.negative_prompt}"
    report.add_note(literal_note(prompts, backend.capabilities.prompt_embeddings))
    if options.alpha == KEEP_ALPHA:
        report.add_note(transparent_note([image[picture] for picture, _ in pairs], plans))
    if calls:
        backend.admit((call.request() for call in calls), progress)
    failed = _paint(backend, recipe, calls, jobs, outputs, options, report, progress)
    if failed:
        raise failure_of(failed, len(calls), recipe.seed)
    return Edit(
        images=outputs.images,
        mask=outputs.masks,
        seeds=stage.seeds,
        flagged=tuple(outputs.flagged),
        report=report.text(),
        summary=report.summary(),
        badge=report.badge(),
        sources=tuple(picture for picture, _ in pairs for _ in range(stage.images)),
        costs=report.costs(),
    )


def _paint(
    backend: Backend, recipe: EditRecipe, calls: Sequence[BackendCall], jobs: Sequence[CropJob],
    outputs: Outputs, options: CanvasOptions, report: Report, progress: ProgressSink,
) -> dict[str, OneRewardError]:  # fmt: skip
    """Run the jobs and paste what they make, in their order; the errors of those that failed."""
    failed: dict[str, OneRewardError] = {}
    start, pixels = time.perf_counter(), 0
    for call, job, result in zip(calls, jobs, run_calls(backend, calls, progress), strict=True):
        if isinstance(result, OneRewardError):
            failed[call.name] = result
            continue
        report.add_result(call.name, result)
        if FROM_CACHE not in result.notes:
            pixels += job.pixels * job.count
        with report.stage("stitch"):
            outputs.add(job, result, options, report)
        if backend.capabilities.remote:
            call.progress.step(1, 1, result.images[0])
    work = eta.megapixel_passes(pixels, recipe.num_inference_steps, recipe.true_cfg)
    eta.record(backend.name, recipe.acceleration, work, time.perf_counter() - start)
    if report.spend_line():
        progress.status(report.spend_line())
    return failed
