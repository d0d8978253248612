"""ComfyUI's own MODEL, CLIP and VAE as a backend: ComfyUI's sampler, the authors' recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...nodes.contracts import (
    FLUX_CAPABILITIES,
    EditRecipe,
    EditRequest,
    EditResult,
    ModelSpec,
    ProgressSink,
)
from ...nodes.errors import InputError
from ..checkpoints.configs import scheduler_config
from ..offload.devices import StageTimer
from ..pipeline.latent_preview import LatentRgb
from ..pipeline.validation import check_pixels, check_recipe

LATENT_CHANNELS = 16
TEXT_LENGTH = 512  # T5 tokens; ComfyUI by itself pads FLUX prompts to 256 only
PIXELS_PER_LATENT = 8
PIXELS_PER_TOKEN = 16
GREY = 0.5

Conditioning = list[list[Any]]  # what travels on ComfyUI's CONDITIONING socket


class ComfyModelBackend:
    """A Backend that paints with the models of ComfyUI's own loaders, none of which it changes.

    An instance serves one edit: it encodes each prompt once for all crops.
    """

    name = "ComfyUI model"
    capabilities = replace(FLUX_CAPABILITIES, prompt_embeddings=True)

    def __init__(self, spec: ModelSpec) -> None:
        self._model, self._clip, self._vae = spec.model, spec.clip, spec.vae
        self._texts: dict[str, Conditioning] = {}

    def check(self, recipe: EditRecipe) -> None:
        """Raises InputError for models that cannot do this work, or a recipe that ComfyUI's sampler
        cannot honour. Loads nothing.
        """
        check_recipe(recipe)
        check_model(self._model)
        check_vae(self._vae)
        tokenize(self._clip, "prompt", recipe.prompt)
        tokenize(self._clip, "negative prompt", recipe.negative_prompt)

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        """Any number of jobs may run: they cost nothing but time."""

    # ComfyUI's own mode is inference mode; this is for callers outside its executor.
    @torch.no_grad()
    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """Paints the masked pixels of one crop. Image i is made with the seed request.seed + i, one
        after another. Progress counts the steps of all images.

        ComfyUI's own exceptions, such as interruption and lack of memory, pass through.

        Raises:
            InputError: the request or the models break a rule; nothing was loaded.
        """
        self.check(request)
        check_pixels(request)
        timings = dict.fromkeys(("encode", "denoise", "decode"), 0.0)
        seeds = tuple(range(request.seed, request.seed + request.num_images))
        images = []

        # No device is named: each stage ends with a copy to the CPU.
        with StageTimer(timings, "encode"):
            positive, negative = self._conditions(request, progress)
        model = with_flux_times(self._model, shift_for(request))
        for number, seed in enumerate(seeds):
            progress.check_interrupted()
            with StageTimer(timings, "denoise"):
                latents = sample(model, positive, negative, request, seed, progress, number)
            with StageTimer(timings, "decode"):
                image = self._vae.decode(latents)
                images.append(image.to("cpu", torch.float32).clamp(0, 1))

        return EditResult(
            images=torch.cat(images),
            seeds=seeds,
            has_nsfw_concepts=(False,) * len(seeds),
            timings=timings,
        )

    def _conditions(
        self, request: EditRequest, progress: ProgressSink
    ) -> tuple[Conditioning, Conditioning]:
        """The positive and the negative branch. Where CFG is off, no negative prompt is encoded."""
        prompts = [request.prompt]
        if request.true_cfg > 1:
            prompts.append(request.negative_prompt)
        for prompt in prompts:
            if prompt not in self._texts:
                progress.check_interrupted()
                tokens = tokenize(self._clip, "prompt", prompt)
                self._texts[prompt] = self._clip.encode_from_tokens_scheduled(tokens)
        progress.check_interrupted()
        added = {
            "guidance": request.guidance_scale,
            "concat_latent_image": self._vae.encode(masked_picture(request)),
            "concat_mask": request.mask[:, None].float(),
        }
        branches = [
            [[embeds, {**details, **added}] for embeds, details in self._texts[prompt]]
            for prompt in prompts
        ]
        return branches[0], branches[-1]


def check_model(model: Any) -> None:
    """Raises InputError unless it is a MODEL of FLUX.1-Fill's kind."""
    config = getattr(getattr(model, "model", None), "model_config", None)
    shape = getattr(config, "unet_config", {})
    inputs, outputs = shape.get("in_channels", 0), shape.get("out_channels", 0)
    kind = "empty" if model is None else type(config or model).__name__
    if shape.get("image_model") == "flux":
        # Of 96 channels, 16 are noise, 16 the picture and 64 the mask. Nunchaku's loader says 64
        # of the same model; ComfyUI gives a picture and a mask to any with more than 32.
        if outputs == LATENT_CHANNELS and inputs > 2 * LATENT_CHANNELS:
            return
        kind = f"{kind} with {inputs} input channels"
    raise InputError(
        f"MODEL is {kind}; OneReward is a FLUX.1-Fill, with 96 input channels. "
        "Connect a loader of OneReward or FLUX.1-Fill."
    )


def check_vae(vae: Any) -> None:
    """Raises InputError unless it is a VAE of pictures with FLUX's number of channels."""
    channels = getattr(vae, "latent_channels", None)
    if getattr(vae, "first_stage_model", None) is None:
        what = "empty"
    elif vae.latent_dim != 2:
        what = "not one for pictures"
    elif channels != LATENT_CHANNELS:
        what = f"one with {channels} latent channels"
    else:
        return
    raise InputError(
        f"VAE is {what}; FLUX needs its own, with 16 latent channels. "
        "Connect Load VAE with ae.safetensors."
    )


def tokenize(clip: Any, name: str, prompt: str) -> dict[str, Any]:
    """A prompt's tokens as the authors make them: padded to 512, and every sign meant literally,
    where ComfyUI would read parentheses as weights. Leaves the CLIP as it is.

    Args:
        name: what the user calls this prompt.

    Raises:
        InputError: it is no CLIP for FLUX, or there are more tokens than the model reads.
    """
    kinds = set() if clip is None else set(clip.tokenize(""))
    if kinds != {"l", "t5xxl"}:
        raise InputError(
            f"CLIP is {' + '.join(sorted(kinds)) or 'empty'}; FLUX reads l + t5xxl. "
            'Connect DualCLIPLoader with clip_l, t5xxl and the type "flux".'
        )
    # Options given here outweigh those the CLIP carries, and do not stay with it.
    options = {"t5xxl_min_length": TEXT_LENGTH, "t5xxl_min_padding": 0}
    tokens: dict[str, Any] = clip.tokenize(prompt, tokenizer_options=options, disable_weights=True)
    count = max(len(batch) for batch in tokens["t5xxl"])
    if count > TEXT_LENGTH:
        raise InputError(
            f"The {name} has {count} tokens; the model reads at most {TEXT_LENGTH}. Shorten it."
        )
    return tokens


def masked_picture(request: EditRequest) -> Tensor:
    """The picture with a mid-grey hole, float32 [1, h, w, 3] in 0..1."""
    mask = request.mask[..., None].float()
    return request.image.float() * (1 - mask) + GREY * mask


def shift_for(request: EditRequest) -> float:
    """FLUX's shift of the times towards noise for a picture of this size: linear in the number of
    picture tokens, by the published scheduler's settings (diffusers' calculate_shift).
    """
    height, width = request.image.shape[1:3]
    tokens = (height // PIXELS_PER_TOKEN) * (width // PIXELS_PER_TOKEN)
    config = scheduler_config()
    few, many = config["base_image_seq_len"], config["max_image_seq_len"]
    small, large = config["base_shift"], config["max_shift"]
    return float(small + (tokens - few) * (large - small) / (many - few))


def sigmas_for(request: EditRequest) -> Tensor:
    """Noise levels, float32 [steps + 1]: even from 1 to 1 / steps, then shifted; 0 last."""
    steps, shift = request.num_inference_steps, shift_for(request)
    times = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    sigmas = comfy.model_sampling.flux_time_shift(shift, 1.0, times)
    return torch.cat((sigmas, sigmas.new_zeros(1))).float()


class FluxTimes(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
    """How FLUX was trained, whatever ModelSampling node the MODEL went through."""


def with_flux_times(model: Any, shift: float) -> Any:
    """A clone of the MODEL that samples as FLUX does; the weights are shared, nothing is copied."""
    times = FluxTimes(model.model.model_config)
    times.set_parameters(shift=shift)
    clone = model.clone()
    clone.add_object_patch("model_sampling", times)
    return clone


def noise_for(model: Any, request: EditRequest, seed: int) -> Tensor:
    """Float32 [1, 16, h/8, w/8], the numbers our own pipeline draws for this seed."""
    height, width = (side // PIXELS_PER_LATENT for side in request.image.shape[1:3])
    shape = (1, LATENT_CHANNELS, height, width)
    generator = torch.Generator("cpu").manual_seed(seed)
    # The authors draw in the precision they compute in, and a first time in vain.
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    torch.randn(shape, generator=generator, dtype=dtype)
    return torch.randn(shape, generator=generator, dtype=dtype).float()


def sample(
    model: Any,
    positive: Conditioning,
    negative: Conditioning,
    request: EditRequest,
    seed: int,
    progress: ProgressSink,
    number: int,
) -> Tensor:
    """From noise to latents for the VAE, image `number` of the request."""
    noise = noise_for(model, request, seed)
    latents: Tensor = comfy.sample.sample_custom(
        model,
        noise,
        max(1.0, request.true_cfg),  # at 1, ComfyUI runs the positive branch alone
        comfy.samplers.sampler_object("euler"),
        sigmas_for(request),
        positive,
        negative,
        torch.zeros_like(noise),
        callback=reporter(model, request, progress, number),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return latents


def reporter(
    model: Any, request: EditRequest, progress: ProgressSink, number: int
) -> Callable[[int, Tensor, Tensor, int], None]:
    """What ComfyUI's sampler calls in every step, with the latents it expects in the end."""
    steps, latent_rgb = request.num_inference_steps, latent_rgb_of(model)

    def report(step: int, denoised: Tensor, _latents: Tensor, _total: int) -> None:
        progress.check_interrupted()
        preview = None if latent_rgb is None else latent_rgb.picture(denoised)
        progress.step(number * steps + step + 1, steps * request.num_images, preview)

    return report


def latent_rgb_of(model: Any) -> LatentRgb | None:
    """The model's map from latents to colours, if it has one; ComfyUI's gives -1..1."""
    latent_format = model.get_model_object("latent_format")
    if latent_format.latent_rgb_factors is None:
        return None
    bias = latent_format.latent_rgb_factors_bias or (0.0, 0.0, 0.0)
    weight = torch.tensor(latent_format.latent_rgb_factors)
    return LatentRgb(weight / 2, (torch.tensor(bias) + 1) / 2)
