"""Our pipeline and ComfyUI's sampler on the same small model, in one process.

test_comfy_model_backend.py starts it from ComfyUI's folder, and judges what every case found out:
one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models
import torch
from comfy_preview import fill_model, flux_clip, picture_vae
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from onereward_pack.local_backend.backends.comfy_model import (
    ComfyModelBackend,
    noise_for,
    sigmas_for,
)
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from onereward_pack.local_backend.pipeline.preview_components import (
    PREVIEW_FOLDER,
    load_preview_model,
)
from onereward_pack.nodes.contracts import EditRequest, EditTask, ModelSpec
from onereward_pack.nodes.errors import InputError
from onereward_pack.nodes.image_io import decode_image, decode_mask
from torch import Tensor

SCENES = PREVIEW_FOLDER.parent / "cli" / "demo_scenes"


class Sink:
    """A ProgressSink that keeps what it is told, and interrupts after a number of steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[Tensor | None] = []
        self._stop_after = stop_after

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        self.steps.append((value, total))
        self.previews.append(preview)

    def status(self, text: str) -> None:
        pass

    def check_interrupted(self) -> None:
        if self._stop_after is not None and len(self.steps) >= self._stop_after:
            raise comfy.model_management.InterruptProcessingException


@cache
def models() -> ModelSpec:
    return ModelSpec(model=fill_model(), clip=flux_clip(), vae=picture_vae())


@cache
def our_pipeline() -> OneRewardPipeline:
    """The preview backend's pipeline, reading as many tokens as FLUX does."""
    components = dataclasses.replace(load_preview_model(), text_lengths=(512,))
    return OneRewardPipeline(components, torch.device("cpu"))


def request(height: int = 256, width: int = 256, **changes: Any) -> EditRequest:
    """The demo's Fill scene, without its middle."""
    top, left = (512 - height) // 2, (512 - width) // 2
    image = decode_image((SCENES / "fill.jpg").read_bytes())
    mask = decode_mask((SCENES / "fill_mask.png").read_bytes())
    here = (slice(None), slice(top, top + height), slice(left, left + width))
    words = {"task": EditTask.FILL, "prompt": "a sailboat", "seed": 2, "num_inference_steps": 4}
    words["acceleration"] = "none"  # what ComfyUI does
    pixels = {"image": image[here][..., :3], "mask": (mask[here] > 0.5).float()}
    return EditRequest(**(words | pixels | changes))


def paint(asked: EditRequest, spec: ModelSpec | None = None, sink: Sink | None = None) -> Tensor:
    return ComfyModelBackend(spec or models()).run(asked, sink or Sink()).images


@cache
def painting() -> Tensor:
    return paint(request())


def decibels(one: Tensor, other: Tensor) -> float:
    """Of the agreement between pictures; 200 for equal ones."""
    return -10 * torch.log10((one - other).square().mean().clamp(min=1e-20)).item()


def in_hole(asked: EditRequest, one: Tensor, other: Tensor) -> float:
    """The same over the pixels that were painted, which are what the models had to agree on."""
    painted = asked.mask[0] > 0.5
    return decibels(one[:, painted], other[:, painted])


def agreement(asked: EditRequest, sampled: bool = False) -> dict[str, Any]:
    """How our pipeline and ComfyUI's sampler agree on a request.

    Args:
        sampled: ours gives its transformer a sample of the picture's latents, as it does; else
            their mean, as ComfyUI does, so that nothing but rounding may differ.
    """
    theirs_told, ours_told = Sink(), Sink()
    theirs = ComfyModelBackend(models()).run(asked, theirs_told)
    sample = DiagonalGaussianDistribution.sample if sampled else lambda self, _: self.mode()
    with mock.patch.object(DiagonalGaussianDistribution, "sample", sample):
        ours = our_pipeline()(asked, ours_told)
    previews = zip(theirs_told.previews, ours_told.previews, strict=True)
    return {
        "decibels": decibels(theirs.images, ours.images),
        "in_hole": in_hole(asked, theirs.images, ours.images),
        "painted": in_hole(asked, theirs.images, asked.image),
        "previews": min(decibels(a, b) for a, b in previews),
        "steps": [theirs_told.steps, ours_told.steps],
        "shape": [list(theirs.images.shape), list(ours.images.shape)],
        "kind": f"{theirs.images.dtype} {theirs.images.device}",
        "range": [theirs.images.min().item(), theirs.images.max().item()],
        "seeds": [theirs.seeds, ours.seeds],
        "flags": theirs.has_nsfw_concepts,
        "timings": [list(theirs.timings), list(ours.timings)],
    }


def case_recipe() -> dict[str, Any]:
    return agreement(request(num_inference_steps=28), sampled=True)


def brief(height: int = 256, width: int = 256, **changes: Any) -> EditRequest:
    """Two steps: a difference of the engines is in the first already."""
    return request(height, width, num_inference_steps=2, **changes)


def case_cfg_4() -> dict[str, Any]:
    return agreement(brief())


def case_cfg_1() -> dict[str, Any]:
    return agreement(brief(true_cfg=1.0))


def case_not_square() -> dict[str, Any]:
    return agreement(brief(192, 320))


def case_two_images() -> dict[str, Any]:
    both, second = paint(brief(num_images=2)), paint(brief(seed=3))
    return agreement(brief(num_images=2)) | {"second": torch.equal(both[1:], second)}


def case_long_prompt() -> dict[str, Any]:
    """Longer than CLIP's 77 tokens and ComfyUI's 256, with what ComfyUI takes for weights."""
    return agreement(brief(prompt="a (red:1.9) sailboat, " * 30))


def case_guidance() -> dict[str, Any]:
    asked = brief(guidance_scale=30.0)
    return agreement(asked) | {"change": decibels(paint(asked), paint(brief()))}


def case_schedule() -> dict[str, float]:
    """The largest difference of the noise levels from our scheduler's, by size and steps."""
    found = {}
    for height, width, steps in ((64, 64, 1), (256, 256, 28), (768, 512, 28), (1024, 1024, 50)):
        image, mask = torch.zeros(1, height, width, 3), torch.zeros(1, height, width)
        asked = dataclasses.replace(request(num_inference_steps=steps), image=image, mask=mask)
        scheduler = our_pipeline().new_scheduler()
        our_pipeline().set_timesteps(scheduler, steps, height * width // 256)
        differences = (sigmas_for(asked) - scheduler.sigmas).abs()
        found[f"{width}x{height}, {steps}"] = differences.max().item()
    return found


def case_noise() -> dict[str, bool]:
    """Whether the noise is our pipeline's, in the precision each computes in."""
    same, asked, model = {}, request(192, 320), models().model
    for dtype in (torch.float32, torch.bfloat16):
        components = load_preview_model()
        components.transformer.to(dtype)
        components.vae.to(dtype)
        pipeline = OneRewardPipeline(components, torch.device("cpu"))
        packed, _ = pipeline.prepare_latents(asked, torch.Generator().manual_seed(5))
        ours = pipeline._unpack(packed, asked).float()
        with mock.patch.object(model.model, "manual_cast_dtype", dtype):
            same[str(dtype)] = torch.equal(noise_for(model, asked, 5), ours)
    return same


@contextmanager
def counting() -> Iterator[dict[str, list[Any]]]:
    """Counts what the text encoders read, and how many branches the transformer runs in a step."""
    model, clip = models().model.model.diffusion_model, models().clip.cond_stage_model
    calls: dict[str, list[Any]] = {"texts": [], "rows": []}
    hooks = (
        clip.t5xxl.transformer.register_forward_pre_hook(
            lambda _m, _a, given: calls["texts"].append(list(given["embeds"].shape)),
            with_kwargs=True,
        ),
        model.register_forward_pre_hook(lambda _m, given: calls["rows"].append(len(given[0]))),
    )
    yield calls
    for hook in hooks:
        hook.remove()


def case_work_done() -> dict[str, Any]:
    backend, found = ComfyModelBackend(models()), {}
    for name, asked in (
        ("first crop", request()),
        ("second crop", request(192, 320)),
        ("cfg 1", request(true_cfg=1.0)),
    ):
        with counting() as calls:
            backend.run(asked, Sink())
        found[name] = calls
    with counting() as calls:
        paint(request(true_cfg=0.5, negative_prompt="unread"))
    return found | {"cfg 0.5": calls}


def case_interrupted() -> dict[str, Any]:
    """Stopped after three of four steps, before the first, and then painted to the end."""
    before, sinks, ends = painting(), (Sink(3), Sink(0)), []
    for sink in sinks:
        try:
            paint(request(), sink=sink)
        except comfy.model_management.InterruptProcessingException as error:
            ends.append(type(error).__name__)
    after = paint(request())
    steps = [len(sink.steps) for sink in sinks]
    return {"ends": ends, "steps": steps, "same_after": torch.equal(before, after)}


def plain_sampling(model: Any) -> Tensor:
    """What a KSampler node of ComfyUI makes of a MODEL, with its own schedule."""
    texts = [[torch.zeros(1, 8, 128), {"pooled_output": torch.zeros(1, 96)}]]
    noise = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return comfy.sample.sample(
            model, noise, 3, 1.0, "euler", "simple", texts, texts, torch.zeros_like(noise),
            disable_pbar=True,
        )  # fmt: skip


def case_untouched() -> dict[str, Any]:
    """What the user's own objects are before and after a run that was interrupted, and a whole."""
    model, clip = fill_model(), models().clip.clone()
    clip.set_tokenizer_option("t5xxl_min_length", 300)

    def state() -> list[str]:
        times = model.get_model_object("model_sampling")
        seen = (
            model.object_patches,
            model.model_options,
            model.patches,
            comfy.samplers.calculate_sigmas(times, "simple", 4),
            clip.tokenizer_options,
            [batch[:3] + [len(batch)] for batch in clip.tokenize("(a:1.5) b")["t5xxl"]],
        )
        return [repr(value) for value in seen]

    before, made = state(), plain_sampling(model)
    try:
        paint(request(), ModelSpec(model=model, clip=clip, vae=models().vae), Sink(3))
    except comfy.model_management.InterruptProcessingException:
        pass
    paint(request(), ModelSpec(model=model, clip=clip, vae=models().vae))
    return {
        "before": before,
        "after": state(),
        "samples_as_before": torch.equal(made, plain_sampling(model)),
    }


class Thousandths(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """What ComfyUI's ModelSamplingSD3 node sets: times up to 1000."""


def case_other_times() -> dict[str, Any]:
    """A MODEL and a CLIP that went through nodes for another schedule and another padding."""
    model, clip = models().model.clone(), models().clip.clone()
    model.add_object_patch("model_sampling", Thousandths(model.model.model_config))
    clip.set_tokenizer_option("t5xxl_min_length", 77)
    clip.set_tokenizer_option("t5xxl_min_padding", 600)
    changed = paint(request(), ModelSpec(model=model, clip=clip, vae=models().vae))
    return {"same": torch.equal(changed, painting())}


def case_no_preview() -> list[bool]:
    form = models().model.model.latent_format
    sink = Sink()
    with mock.patch.object(form, "latent_rgb_factors", None):
        paint(request(num_inference_steps=2), sink=sink)
    return [preview is None for preview in sink.previews]


def refusal(prompt: str = "a cat", **parts: Any) -> dict[str, Any]:
    """What is said about the wrong models, and whether anything ran before it was."""
    spec = dataclasses.replace(models(), **parts)
    with counting() as calls, mock.patch.object(comfy.sd.VAE, "encode") as encode:
        try:
            paint(request(prompt=prompt), spec)
        except InputError as error:
            return {"said": str(error), "ran": encode.called or any(calls.values())}
    return {"said": "", "ran": True}


def case_refusals() -> dict[str, Any]:
    video, other = picture_vae(), picture_vae()
    video.latent_dim, other.latent_channels = 3, 4
    sd15 = comfy.supported_models.SD15({"in_channels": 4, "out_channels": 4})
    elsewhere = mock.Mock(model=mock.Mock(model_config=sd15))
    clip_l = mock.Mock(tokenize=lambda *_a, **_k: {"l": [[(1, 1.0)]]})
    return {
        "FLUX.1-dev": refusal(model=fill_model(in_channels=16)),
        "FLUX.1-Depth": refusal(model=fill_model(in_channels=32)),
        "SD 1.5": refusal(model=elsewhere),
        "no MODEL": refusal(model=None),
        "video VAE": refusal(vae=video),
        "SD VAE": refusal(vae=other),
        "no VAE": refusal(vae=None),
        "CLIP alone": refusal(clip=clip_l),
        "no CLIP": refusal(clip=None),
        "600 words": refusal("red " * 600),
    }


def found_out(case: Callable[[], Any]) -> Any:
    try:
        with torch.inference_mode():  # as ComfyUI runs its nodes
            return case()
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    cases = {name: case for name, case in globals().items() if name.startswith("case_")}
    facts = {name.removeprefix("case_"): found_out(case) for name, case in cases.items()}
    sys.stdout.write("\n" + json.dumps(facts))
