"""Fills holes with the exported model on the CPU: FluxFillPipeline's parts with true CFG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline, calculate_shift
from torch import Tensor

CAPTION_LENGTH = 32
NEGATIVE = "nsfw"


def load_pipeline(weights: Path) -> FluxFillPipeline:
    """The exported folder as a float32 pipeline on the CPU."""
    pipe = FluxFillPipeline.from_pretrained(str(weights), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _timesteps(pipe: FluxFillPipeline, steps: int, tokens: int) -> Tensor:
    config = pipe.scheduler.config
    mu = calculate_shift(
        tokens,
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device="cpu", mu=mu)
    timesteps: Tensor = pipe.scheduler.timesteps
    return timesteps


def _decode(pipe: FluxFillPipeline, tokens: Tensor, height: int, width: int) -> Tensor:
    config = pipe.vae.config
    latents = pipe._unpack_latents(tokens, height, width, pipe.vae_scale_factor)
    latents = latents / config.scaling_factor + config.shift_factor
    decoded: Tensor = pipe.vae.decode(latents, return_dict=False)[0].float()
    return (decoded.clamp(-1, 1) + 1) / 2


@torch.no_grad()
def fill(
    pipe: FluxFillPipeline,
    image: Tensor,
    mask: Tensor,
    prompts: Sequence[str],
    cfg: float = 4.0,
    steps: int = 28,
    seed: int = 0,
    length: int = CAPTION_LENGTH,
) -> Tensor:
    """Pictures `[n, 3, h, w]` in 0..1 with the mask `[n, 1, h, w]` (1 = change) repainted.

    Sides are multiples of 16; `length` is the T5 caption's in tokens. Same seed, same picture.
    """
    n, _, height, width = image.shape
    h, w = height // 16, width // 16
    init = pipe.image_processor.preprocess(image, height=height, width=width).float()
    hole = pipe.mask_processor.preprocess(mask, height=height, width=width)
    generator = torch.Generator().manual_seed(seed)
    wanted = pipe.encode_prompt(list(prompts), max_sequence_length=length)
    unwanted = pipe.encode_prompt([NEGATIVE] * n, max_sequence_length=length)
    dtype = wanted[0].dtype
    masked_image = (init * (1 - hole)).to(dtype)
    packed_mask, masked = pipe.prepare_mask_latents(
        hole, masked_image, n, 16, 1, height, width, dtype, "cpu", generator
    )
    condition = torch.cat([masked, packed_mask], -1)
    noise = torch.randn(n, 16, 2 * h, 2 * w, generator=generator, dtype=dtype)
    x = pipe._pack_latents(noise, n, 16, 2 * h, 2 * w)
    image_ids = pipe._prepare_latent_image_ids(n, h, w, "cpu", dtype)
    velocity = _velocity(pipe, condition, image_ids)
    for t in _timesteps(pipe, steps, h * w):
        v = velocity(x, t, wanted)
        if cfg != 1:
            away = velocity(x, t, unwanted)
            v = away + cfg * (v - away)
        x = pipe.scheduler.step(v, t, x, return_dict=False)[0]
    return _decode(pipe, x, height, width)


def _velocity(
    pipe: FluxFillPipeline, condition: Tensor, image_ids: Tensor
) -> Callable[[Tensor, Tensor, tuple[Any, ...]], Tensor]:
    """The transformer as a function of latents, time and an encoded prompt."""

    def velocity(x: Tensor, t: Tensor, prompt: tuple[Any, ...]) -> Tensor:
        text, pooled, text_ids = prompt
        predicted: Tensor = pipe.transformer(
            hidden_states=torch.cat([x, condition], 2),
            timestep=(t / 1000).expand(len(x)),
            guidance=torch.ones(len(x)),
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return predicted

    return velocity


def fill_all(
    pipe: FluxFillPipeline,
    image: Tensor,
    mask: Tensor,
    prompts: Sequence[str],
    cfg: float,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """`fill`, eight pictures at a time; every eight begin with the same seed."""
    parts = [slice(i, i + 8) for i in range(0, len(prompts), 8)]
    return torch.cat([fill(pipe, image[p], mask[p], prompts[p], cfg, steps, seed) for p in parts])
