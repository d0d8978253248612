"""Levels of acceleration in a run: what is computed, what is left behind, what it stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes.backend import Interrupted, RecordingProgress
from fakes.tiny import make_request, tiny_components
from onereward_pack.local_backend.acceleration.levels import EVERY_STEP, LEVELS, NONE, Level
from onereward_pack.local_backend.offload.placement import Resident
from onereward_pack.local_backend.pipeline.components import Components
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from onereward_pack.nodes.contracts import (
    Capabilities,
    EditRecipe,
    EditRequest,
    EditResult,
    EditTask,
)
from onereward_pack.nodes.edit.recipes import make_recipe
from onereward_pack.nodes.edit.run import edit
from torch import Tensor

CPU, STEPS, TEXT = torch.device("cpu"), 28, 16
ALTERNATELY = Level(masked_gaps=EVERY_STEP, refresh=2, halo=0)


@pytest.fixture(scope="module")
def components() -> Components:
    return tiny_components()


def pipeline(components: Components, **levels: Level) -> OneRewardPipeline:
    return OneRewardPipeline(components, CPU, levels={**LEVELS, **levels})


def paint(pipe: OneRewardPipeline, acceleration: str, **changes: Any) -> Tensor:
    request = make_request(num_inference_steps=STEPS, acceleration=acceleration, **changes)
    return pipe(request, RecordingProgress()).images


def tokens_per_call(pipe: OneRewardPipeline, request: EditRequest) -> list[int]:
    """The picture's tokens in every run of the transformer."""
    counts: list[int] = []

    def count(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        counts.append(kwargs["hidden_states"].shape[1])

    hook = pipe.transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        pipe(request, RecordingProgress())
    finally:
        hook.remove()
    return counts


def test_every_step_and_every_token_is_level_none_to_the_bit(components: Components) -> None:
    pipe = pipeline(components, all=Level(gaps=EVERY_STEP, masked_gaps=EVERY_STEP, refresh=1))
    assert torch.equal(paint(pipe, "all"), paint(pipe, "none"))


def test_level_none_runs_the_model_on_everything_at_every_step(components: Components) -> None:
    request = make_request(num_inference_steps=STEPS, acceleration="none")
    assert tokens_per_call(pipeline(components), request) == [16] * STEPS


def test_masked_steps_run_on_the_masked_tokens_alone(components: Components) -> None:
    request = make_request(num_inference_steps=4, acceleration="trial")  # 9 of 16 are touched
    assert tokens_per_call(pipeline(components, trial=ALTERNATELY), request) == [16, 9, 16, 9]


@pytest.mark.parametrize("name", ["regular", "high"])
def test_a_level_runs_the_model_less_and_changes_the_picture_a_little(
    components: Components, name: str
) -> None:
    pipe = pipeline(components)
    request = make_request(num_inference_steps=STEPS, acceleration=name)
    assert len(tokens_per_call(pipe, request)) < 0.6 * STEPS
    change = (paint(pipe, name) - paint(pipe, "none")).abs().max()
    assert 0 < change < 0.05


def test_progress_counts_every_step_whether_it_was_computed_or_not(
    components: Components,
) -> None:
    progress = RecordingProgress()
    request = make_request(num_inference_steps=STEPS, acceleration="high")
    pipeline(components)(request, progress)
    assert [value for value, *_ in progress.steps] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", ["regular", "high", "trial"])
def test_a_run_of_another_size_after_an_interrupted_one_equals_a_fresh_one(
    components: Components, name: str
) -> None:
    pipe = pipeline(components, trial=ALTERNATELY)
    broken = make_request(96, 80, num_inference_steps=STEPS, acceleration=name, seed=3)
    for step in (2, 7):
        with pytest.raises(Interrupted):
            pipe(broken, RecordingProgress(cancel_at=step))
    fresh = OneRewardPipeline(components, CPU, levels={**LEVELS, "trial": ALTERNATELY})
    assert torch.equal(paint(pipe, name), paint(fresh, name))
    assert torch.equal(paint(pipe, "none"), paint(fresh, "none"))


def test_without_guidance_there_is_one_branch_to_remember(components: Components) -> None:
    pipe = pipeline(components, trial=ALTERNATELY)
    change = paint(pipe, "trial", true_cfg=1.0) - paint(pipe, "none", true_cfg=1.0)
    assert 0 < change.abs().max() < 0.05


def test_where_no_key_may_be_kept_all_tokens_are_computed(components: Components) -> None:
    full = Resident(CPU, torch.float32)
    full.kv_cache_format = None
    pipe = OneRewardPipeline(components, CPU, full, levels={"trial": ALTERNATELY})
    request = make_request(num_inference_steps=4, acceleration="trial")
    assert tokens_per_call(pipe, request) == [16] * 4


def test_a_mask_of_the_whole_picture_has_nothing_to_keep(components: Components) -> None:
    pipe = pipeline(components, trial=ALTERNATELY)
    mask = torch.ones(1, 64, 64)
    request = make_request(mask=mask, num_inference_steps=4, acceleration="trial")
    assert tokens_per_call(pipe, request) == [16] * 4


class Painter:
    """A backend on a pipeline that is there already."""

    name = "tiny"
    capabilities = Capabilities(max_pixels=64 * 64, min_side=64, max_aspect=1.0)

    def __init__(self, pipe: OneRewardPipeline) -> None:
        self._pipe = pipe

    def check(self, recipe: EditRecipe) -> None: ...

    def admit(self, requests: Any, progress: Any) -> None: ...

    def run(self, request: EditRequest, progress: Any) -> EditResult:
        return self._pipe(replace(request, acceleration="trial"), progress)


def test_two_pictures_of_different_masks_in_a_batch_get_their_own_tokens(
    components: Components,
) -> None:
    backend = Painter(pipeline(components, trial=ALTERNATELY))
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(2, 64, 64, 3, generator=generator), torch.zeros(2, 64, 64)
    masks[0, 20:30, 20:30], masks[1, 5:50, 8:20] = 1, 1
    words: dict[str, Any] = {"prompt": "a cat", "steps": 4, "cfg": 4.0, "num_images": 1}

    def run(which: slice, seed: int = 5) -> Tensor:
        recipe = make_recipe(EditTask.FILL, seed=seed, **words)
        done = edit(images[which], masks[which], recipe, None, backend, RecordingProgress())
        return done.images

    both = run(slice(0, 2))
    assert torch.equal(both[:1], run(slice(0, 1)))
    assert torch.equal(both[1:], run(slice(1, 2), 6))  # picture i has seed + i


def test_none_is_a_level_without_any_technique() -> None:
    assert LEVELS["none"] == NONE == Level()
