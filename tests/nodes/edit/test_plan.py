"""The plan of an edit: what the estimate prices is what the edit runs, job by job."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch
from fakes.backend import RecordingProgress
from fakes.random_edits import (
    ALWAYS,
    LIMITS,
    ConstantBackend,
    canvases,
    edits,
    extensions,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onereward_pack.nodes.canvas.extend import Margins, new_area
from onereward_pack.nodes.canvas.geometry import Crop
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.canvas.stitch import cut
from onereward_pack.nodes.contracts import MAX_SEED, MEGAPIXEL, Capabilities, EditRecipe, EditTask
from onereward_pack.nodes.edit import crop_jobs
from onereward_pack.nodes.edit.plan import BatchSize, default_canvas, plan_edit, plan_extension
from onereward_pack.nodes.edit.run import edit, extend
from onereward_pack.nodes.errors import InputError, OneRewardError
from onereward_pack.nodes.estimate.estimator import EstimateRequest, estimate, plan_of
from torch import Tensor

Ran = tuple[tuple[int, int, int, int], tuple[int, int], int, int]  # box, size, seed, images


class Recorder(ConstantBackend):
    """Keeps what each job of an edit was cut from."""

    def __init__(self, limits: Capabilities) -> None:
        super().__init__(limits)
        self.crops: list[Crop] = []

    def cut(self, picture: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
        self.crops.append(crop)
        return cut(picture, crop)

    def ran(self, first_seed: int) -> list[Ran]:
        return [
            job_facts(crop, (request.seed - first_seed) % (MAX_SEED + 1), request.num_images)
            for crop, request in zip(self.crops, self.requests, strict=True)
        ]


def job_facts(crop: Crop, seed: int, count: int) -> Ran:
    return (crop.box.top, crop.box.left, crop.box.bottom, crop.box.right), crop.size, seed, count


def check_estimate(request: EstimateRequest, backend: Recorder, recipe: EditRecipe) -> None:
    """Everything that the estimate counts is what was run."""
    plan = plan_of(request, backend.capabilities)
    ran = backend.ran(recipe.seed)
    assert [job_facts(job.crop, job.seed, job.count) for job in plan.jobs] == ran
    told = estimate(request, backend, "local")
    assert told["jobs"] == len(ran)
    pixels = sum(size[0] * size[1] * count for _, size, _, count in ran)
    assert told["megapixels"] == pixels / MEGAPIXEL
    first = [job for stage in plan.stages for job in stage.jobs if job.first == 0]
    assert [crop["seen"] for crop in told["crops"]] == [
        [job.crop.size[1], job.crop.size[0]] for job in first
    ]
    assert all(tuple(r.image.shape[1:3]) == size for r, (_, size, _, _) in zip(
        backend.requests, ran, strict=True
    ))  # fmt: skip


@settings(ALWAYS, max_examples=120)
@given(edits(), st.integers(0, MAX_SEED))
def test_an_edit_runs_what_its_estimate_counts(
    case: tuple[Tensor, Tensor, CanvasOptions, EditRecipe, Capabilities], seed: int
) -> None:
    image, mask, options, recipe, limits = case
    recipe = dataclasses.replace(recipe, seed=min(seed, MAX_SEED - 100))
    request = EstimateRequest(
        recipe.task, BatchSize.of(image), mask, options, num_images=recipe.num_images
    )
    backend = Recorder(limits)
    with mock.patch.object(crop_jobs, "cut", backend.cut):
        try:
            edit(image, mask, recipe, options, backend, RecordingProgress())
        except OneRewardError as error:
            check_refusal(request, backend, error)
            return
    check_estimate(request, backend, recipe)


@settings(ALWAYS, max_examples=80)
@given(extensions(), st.sampled_from(LIMITS), st.integers(0, MAX_SEED))
def test_an_extension_runs_what_its_estimate_counts(
    case: tuple[Tensor, str, str, int, CanvasOptions, EditRecipe], limits: Capabilities, seed: int
) -> None:
    image, to, anchor, overlap, options, recipe = case
    recipe = dataclasses.replace(recipe, seed=min(seed, MAX_SEED - 100))
    request = EstimateRequest(
        EditTask.EXTEND, BatchSize.of(image), canvas=options, num_images=recipe.num_images,
        extend_to=to, anchor=anchor, overlap=overlap,
    )  # fmt: skip
    backend = Recorder(limits)
    with mock.patch.object(crop_jobs, "cut", backend.cut):
        try:
            done = extend(image, to, anchor, overlap, recipe, options, backend, RecordingProgress())
        except OneRewardError as error:
            check_refusal(request, backend, error)
            return
    check_estimate(request, backend, recipe)
    told = estimate(request, backend, "local")
    height, width = done.images.shape[1:3]
    assert told["size"] == [width, height]
    assert told["source"] == [*reversed(done.origin), image.shape[2], image.shape[1]]


def check_refusal(request: EstimateRequest, backend: Recorder, error: OneRewardError) -> None:
    """What the edit refuses, the estimate refuses in the same sentence; and it names an input."""
    assert not backend.requests
    with pytest.raises(type(error)) as refused:
        estimate(request, backend, "local")
    assert str(refused.value) == str(error)
    assert refused.value.input in ("mask", "extend_to", "overlap", "canvas")


@settings(ALWAYS, max_examples=40)
@given(canvases, st.integers(1, 90), st.integers(1, 90), st.integers(0, 40), st.integers(0, 40))
def test_a_bool_mask_of_the_new_area_is_planned_as_the_float_one(
    options: CanvasOptions, height: int, width: int, left: int, bottom: int
) -> None:
    mask = new_area(Margins(left, 0, 3, bottom), height, width)
    size, limits = BatchSize(1, *mask.shape), LIMITS[0]

    def jobs(mask: Tensor) -> object:
        try:
            plan = plan_edit(size, mask, options, limits)
        except InputError as error:
            return str(error)
        [stage] = plan.stages
        return stage.crop_plans[0].notes, [
            (job.crop.box, job.crop.size, job.crop.blend.tolist()) for job in plan.jobs
        ]

    assert jobs(mask) == jobs(mask.float())


def test_the_plan_needs_no_pixels_and_holds_no_picture() -> None:
    mask = torch.zeros(1, 2000, 2000)
    mask[0, 1000:1050, 1000:1050] = 1
    plan = plan_edit(BatchSize(500, 2000, 2000), mask, CanvasOptions(), LIMITS[2], num_images=4)
    assert len(plan.jobs) == 500 * 4
    assert {id(job.crop) for job in plan.jobs} == {id(plan.jobs[0].crop)}


def test_later_steps_of_an_extension_go_on_from_each_image_with_its_own_seed() -> None:
    plan = plan_extension(
        BatchSize(2, 40, 40), "right 100", "center", 0, None, LIMITS[0], num_images=3, seed=7
    )
    assert len(plan.stages) > 1
    assert [stage.images for stage in plan.stages] == [3, *(1 for _ in plan.stages[1:])]
    for stage in plan.stages:
        assert stage.seeds == (7, 8, 9, 10, 11, 12)
    assert [job.seed for job in plan.stages[1].jobs] == [7, 8, 9, 10, 11, 12]
    assert plan.size == (40, 140) and plan.margins == Margins(0, 0, 100, 0)


def test_a_seed_that_passes_the_last_names_the_seed() -> None:
    with pytest.raises(InputError, match="passes the largest seed") as refused:
        plan_edit(
            BatchSize(1, 40, 40), torch.ones(1, 40, 40), CanvasOptions(), LIMITS[0],
            num_images=3, seed=MAX_SEED - 1,
        )  # fmt: skip
    assert refused.value.input == "seed"


def test_remove_grows_more_by_default() -> None:
    assert default_canvas(EditTask.REMOVE).grow == 12
    assert default_canvas(EditTask.FILL).grow == 8
