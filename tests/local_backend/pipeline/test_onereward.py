from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fakes.backend import Interrupted, RecordingProgress
from fakes.reference import decode, two_pass_latents
from fakes.tiny import make_request, tiny_components, tiny_transformer
from onereward_pack.local_backend.pipeline.components import Components
from onereward_pack.local_backend.pipeline.latent_preview import LatentRgb
from onereward_pack.local_backend.pipeline.onereward import Conditions, OneRewardPipeline
from onereward_pack.nodes.contracts import EditRequest, EditResult
from onereward_pack.nodes.errors import InputError
from torch import Tensor, nn

CPU = torch.device("cpu")
LONG_PROMPT = "a very " * 30 + "long prompt"


@pytest.fixture(scope="module")
def components() -> Components:
    generator = torch.Generator().manual_seed(1)
    weight = 0.1 * torch.randn(16, 3, generator=generator)
    return tiny_components(latent_rgb=LatentRgb(weight, torch.full((3,), 0.5)))


@pytest.fixture
def pipeline(components: Components) -> OneRewardPipeline:
    return OneRewardPipeline(components, CPU)


def run(pipeline: OneRewardPipeline, request: EditRequest) -> EditResult:
    return pipeline(request, RecordingProgress())


@torch.no_grad()
def run_to_latents(pipeline: OneRewardPipeline, request: EditRequest) -> Tensor:
    """The lifecycle by hand, as far as the packed latents."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    text = pipeline.encode_prompt(request, RecordingProgress())
    posterior = pipeline.encode_masked_image(request)
    latents, image_ids = pipeline.prepare_latents(request, generator)
    masked_image = pipeline.prepare_mask_latents(request, posterior, generator)
    conditions = Conditions(text, masked_image, image_ids, pipeline.prepare_guidance(request))
    return pipeline.denoise(latents, conditions, request, RecordingProgress())


@contextmanager
def recorded_calls(*modules: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """The keyword arguments of every forward call, with the call's answer under "answer"."""
    calls: list[dict[str, Any]] = []

    def remember(module: nn.Module, args: Any, kwargs: dict[str, Any], answer: Any) -> None:
        calls.append(kwargs | {"answer": answer})

    hooks = [module.register_forward_hook(remember, with_kwargs=True) for module in modules]
    yield calls
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    "changes",
    [
        {"true_cfg": 4.0},
        {"true_cfg": 1.0},
        {"true_cfg": 0.5, "negative_prompt": "a dog"},
        {"true_cfg": 1.5, "negative_prompt": "", "guidance_scale": 30.0},
        {"num_inference_steps": 1},
        {"num_inference_steps": 28, "height": 48, "width": 96},
        {"seed": 2**64 - 1},
    ],
)
def test_the_same_seed_gives_the_two_pass_reference(
    pipeline: OneRewardPipeline, components: Components, changes: dict[str, Any]
) -> None:
    request = make_request(**changes)
    expected = two_pass_latents(components, request, text_length=16)
    assert expected.std() > 0.1
    torch.testing.assert_close(run_to_latents(pipeline, request), expected, rtol=0, atol=1e-5)
    picture = decode(components, expected, *request.image.shape[1:3])
    torch.testing.assert_close(run(pipeline, request).images, picture, rtol=0, atol=1e-5)


def test_a_transformer_without_guidance_embedding_matches_the_reference_too() -> None:
    components = tiny_components(transformer=tiny_transformer(guidance_embeds=False))
    request = make_request()
    expected = two_pass_latents(components, request, text_length=16)
    actual = run_to_latents(OneRewardPipeline(components, CPU), request)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_the_picture_hidden_by_the_mask_does_not_matter(pipeline: OneRewardPipeline) -> None:
    request = make_request()
    painted = request.image * (1 - request.mask[..., None])
    other = make_request(image=painted)
    assert torch.equal(run(pipeline, request).images, run(pipeline, other).images)


def test_negative_and_positive_go_through_the_transformer_in_one_batch(
    pipeline: OneRewardPipeline,
) -> None:
    request = make_request(prompt="a cat", negative_prompt="a dog", num_inference_steps=2)
    with recorded_calls(pipeline.transformer) as calls:
        run(pipeline, request)
    one_branch = {"true_cfg": 1.0}
    negative, positive = (
        pipeline.encode_prompt(make_request(prompt=prompt, **one_branch), RecordingProgress())
        for prompt in ("a dog", "a cat")
    )
    assert len(calls) == 2
    for call in calls:
        assert torch.equal(
            call["encoder_hidden_states"],
            torch.cat([negative.prompt_embeds, positive.prompt_embeds]),
        )


def test_the_prompt_cache_is_bounded_and_keeps_both_prompts_of_a_request(
    pipeline: OneRewardPipeline,
) -> None:
    prompts = [make_request(prompt=f"{n}", true_cfg=1.0) for n in range(16)]
    for request in prompts:
        pipeline.encode_prompt(request, RecordingProgress())
    first = pipeline.encode_prompt(prompts[0], RecordingProgress())
    for request in prompts[1:]:
        pipeline.encode_prompt(request, RecordingProgress())
    # the oldest of a full cache beside a new one
    both = make_request(prompt="new", negative_prompt="0")
    embeds = pipeline.encode_prompt(both, RecordingProgress())
    assert torch.equal(embeds.prompt_embeds[:1], first.prompt_embeds)
    assert len(pipeline.prompts._cache) == 16


@pytest.mark.parametrize("true_cfg", [0.0, 1.0])
def test_without_cfg_only_the_prompt_is_run(pipeline: OneRewardPipeline, true_cfg: float) -> None:
    with recorded_calls(pipeline.transformer) as calls:
        run(pipeline, make_request(true_cfg=true_cfg))
    assert [len(call["hidden_states"]) for call in calls] == [1, 1, 1]


def test_every_setting_changes_the_picture(pipeline: OneRewardPipeline) -> None:
    plain = run(pipeline, make_request()).images
    for changes in (
        {"prompt": "a dog"},
        {"negative_prompt": "a dog"},
        {"seed": 1},
        {"num_inference_steps": 4},
        {"guidance_scale": 30.0},
        {"true_cfg": 3.0},
    ):
        changed = run(pipeline, make_request(**changes)).images
        assert not torch.equal(changed, plain), changes


def test_a_prompt_is_encoded_once(pipeline: OneRewardPipeline, components: Components) -> None:
    encoders = (components.text_encoder, components.text_encoder_2)
    with recorded_calls(*encoders) as calls:
        run(pipeline, make_request(prompt="a house"))
    assert len(calls) == 4  # two prompts, two encoders
    with recorded_calls(*encoders) as calls:
        run(pipeline, make_request(prompt="a house", seed=5, num_images=2))
    assert len(calls) == 0
    with recorded_calls(*encoders) as calls:
        run(pipeline, make_request(prompt="a boat"))
    assert len(calls) == 2  # the negative prompt is still known


def test_the_prompt_cache_is_bounded_and_forgets_the_oldest(
    pipeline: OneRewardPipeline, components: Components
) -> None:
    for number in range(40):
        pipeline.encode_prompt(make_request(prompt=f"{number} cats"), RecordingProgress())
    with recorded_calls(components.text_encoder_2) as calls:
        pipeline.encode_prompt(make_request(prompt="39 cats"), RecordingProgress())
    assert len(calls) == 0
    with recorded_calls(components.text_encoder_2) as calls:
        pipeline.encode_prompt(make_request(prompt="0 cats"), RecordingProgress())
    assert len(calls) == 1


def test_a_cached_prompt_gives_the_same_picture(pipeline: OneRewardPipeline) -> None:
    request = make_request()
    assert torch.equal(run(pipeline, request).images, run(pipeline, request).images)


@pytest.mark.parametrize("steps_done", [0, 1, 3, 4, 7])
def test_an_interrupted_run_stops_at_once_and_leaves_the_next_one_clean(
    pipeline: OneRewardPipeline, components: Components, steps_done: int
) -> None:
    request = make_request(num_inference_steps=4, num_images=2)
    undisturbed = run(OneRewardPipeline(components, CPU), request).images
    progress = RecordingProgress(cancel_at=steps_done)
    with pytest.raises(Interrupted):
        pipeline(request, progress)
    assert len(progress.steps) == steps_done
    assert torch.equal(run(pipeline, request).images, undisturbed)


def test_progress_counts_the_steps_of_all_images(pipeline: OneRewardPipeline) -> None:
    progress = RecordingProgress()
    pipeline(make_request(num_inference_steps=3, num_images=2), progress)
    assert progress.steps == [(number, 6) for number in range(1, 7)]


def test_images_are_made_one_after_another_with_rising_seeds(pipeline: OneRewardPipeline) -> None:
    together = run(pipeline, make_request(seed=11, num_images=3))
    assert together.seeds == (11, 12, 13)
    assert together.has_nsfw_concepts == (False, False, False)
    for number, seed in enumerate(together.seeds):
        alone = run(pipeline, make_request(seed=seed))
        assert torch.equal(together.images[number], alone.images[0])


def test_the_result_is_a_float_picture_on_the_cpu(pipeline: OneRewardPipeline) -> None:
    result = run(pipeline, make_request(height=48, width=80))
    images = result.images
    assert (images.shape, images.dtype, images.device.type) == (
        (1, 48, 80, 3),
        torch.float32,
        "cpu",
    )
    assert images.min() >= 0 and images.max() <= 1
    assert list(result.timings) == ["encode", "denoise", "decode"]
    assert all(seconds > 0 for seconds in result.timings.values())


def test_the_preview_shows_the_latents_in_one_eighth(
    pipeline: OneRewardPipeline, components: Components
) -> None:
    request = make_request(height=48, width=80)
    progress = RecordingProgress()
    pipeline(request, progress)
    assert len(progress.previews) == 3
    for preview in progress.previews:
        assert preview.shape == (6, 10, 3)
        assert preview.min() >= 0 and preview.max() <= 1
    # at the last step nothing is left to estimate
    finished = pipeline.preview(run_to_latents(pipeline, request), request)
    torch.testing.assert_close(progress.previews[-1], finished, rtol=0, atol=1e-5)
    assert not torch.allclose(progress.previews[0], finished, atol=1e-2)


def test_components_without_a_map_give_no_previews() -> None:
    progress = RecordingProgress()
    OneRewardPipeline(tiny_components(), CPU)(make_request(), progress)
    assert (len(progress.steps), progress.previews) == (3, [])


def test_the_shortest_text_length_that_holds_both_prompts_is_used(
    pipeline: OneRewardPipeline,
) -> None:
    middle = "a cat and a dog and " * 3
    assert pipeline.prompts.text_length(make_request()) == 16
    assert pipeline.prompts.text_length(make_request(prompt=middle)) == 64
    assert pipeline.prompts.text_length(make_request(negative_prompt=middle)) == 64
    text = pipeline.encode_prompt(make_request(prompt=middle), RecordingProgress())
    assert text.prompt_embeds.shape[1] == 64


@pytest.mark.parametrize("which", ["prompt", "negative_prompt"])
def test_a_prompt_that_would_be_cut_is_refused(pipeline: OneRewardPipeline, which: str) -> None:
    count = len(pipeline._flux.tokenizer_2(LONG_PROMPT).input_ids)
    words = which.replace("_", " ")
    with pytest.raises(InputError, match=rf"The {words} has {count} tokens.* at most 64"):
        run(pipeline, make_request(**{which: LONG_PROMPT}))


def test_a_run_leaves_the_global_random_numbers_alone(pipeline: OneRewardPipeline) -> None:
    before = torch.random.get_rng_state()
    run(pipeline, make_request())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("first", [True, False])
def test_runs_in_and_out_of_inference_mode_share_their_prompts(
    pipeline: OneRewardPipeline, components: Components, first: bool
) -> None:
    results = []
    with recorded_calls(components.text_encoder) as calls:
        for inference in (first, not first):
            with torch.inference_mode(inference):
                results.append(run(pipeline, make_request()).images)
    assert len(calls) == 2
    assert torch.equal(*results)
    assert not any(images.is_inference() for images in results)
    results[0].add_(1)  # a node downstream may write into its own copy


def test_a_half_precision_picture_is_taken_as_float(pipeline: OneRewardPipeline) -> None:
    request = make_request()
    half = request.image.half()
    expected = run(pipeline, make_request(image=half.float())).images
    actual = run(pipeline, make_request(image=half, mask=request.mask.half())).images
    assert torch.equal(actual, expected)
