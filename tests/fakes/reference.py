"""True CFG for FLUX.1-Fill written the long way: two transformer calls a step, no caches.

What OneReward's published recipe says, with diffusers' own pipeline doing everything but the loop.
It also encodes the unmasked picture, as diffusers' Fill pipeline does at full strength.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxFillPipeline
from diffusers.pipelines.flux.pipeline_flux_fill import calculate_shift
from onereward_pack.local_backend.pipeline.components import Components
from onereward_pack.nodes.contracts import EditRequest
from torch import Tensor


@torch.no_grad()
def two_pass_latents(components: Components, request: EditRequest, text_length: int) -> Tensor:
    """Packed latents [1, tokens, 64] of the request's first image."""
    flux = FluxFillPipeline(**components.pipeline_arguments())
    generator = torch.Generator("cpu").manual_seed(request.seed)
    height, width = request.image.shape[1:3]
    timesteps = _set_timesteps(flux.scheduler, request)
    image = flux.image_processor.preprocess(request.image.permute(0, 3, 1, 2))
    latents, image_ids = flux.prepare_latents(
        image, timesteps[:1], 1, 16, height, width, torch.float32, "cpu", generator
    )
    hole = request.mask[:, None]
    mask, masked_image = flux.prepare_mask_latents(
        hole, image * (1 - hole), 1, 16, 1, height, width, torch.float32, "cpu", generator
    )

    def velocity(prompt: str, time: Tensor) -> Tensor:
        words, pooled, text_ids = flux.encode_prompt(
            prompt, prompt_2=None, max_sequence_length=text_length
        )
        guided = components.transformer.config.guidance_embeds
        answer: Tensor = components.transformer(
            hidden_states=torch.cat([latents, masked_image, mask], dim=2),
            timestep=time[None] / 1000,
            guidance=torch.tensor([request.guidance_scale]) if guided else None,
            encoder_hidden_states=words,
            pooled_projections=pooled,
            txt_ids=text_ids,
            img_ids=image_ids,
        ).sample
        return answer

    for time in timesteps:
        guided = velocity(request.prompt, time)
        if request.true_cfg > 1:
            away = velocity(request.negative_prompt, time)
            guided = away + request.true_cfg * (guided - away)
        latents = flux.scheduler.step(guided, time, latents).prev_sample
    return latents


@torch.no_grad()
def decode(components: Components, latents: Tensor, height: int, width: int) -> Tensor:
    """Packed latents to a picture [1, h, w, 3] in 0..1."""
    vae = components.vae
    latents = FluxFillPipeline._unpack_latents(latents, height, width, 8)
    latents = latents / vae.config.scaling_factor + vae.config.shift_factor
    return (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _set_timesteps(scheduler: FlowMatchEulerDiscreteScheduler, request: EditRequest) -> Tensor:
    steps = request.num_inference_steps
    tokens = request.mask[0].numel() // 256
    config = scheduler.config
    mu = calculate_shift(
        tokens,
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    scheduler.set_begin_index(0)
    timesteps: Tensor = scheduler.timesteps
    return timesteps
