"""A look at held-out scenes at the end of the model stage: hole, result, target."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from .grid import save_grid
from .models import SCHEDULER_CONFIG, Denoiser
from .packing import image_ids, pack, pack_mask, unpack
from .scenes import TASKS, SceneBank
from .tokenizers import CaptionIds

log = logging.getLogger("onereward")


@dataclass(frozen=True)
class Sheet:
    """What is drawn: the scenes' tasks and px, the sampler's steps and true CFG."""

    tasks: tuple[str, ...]
    size: int
    steps: int
    cfg: float


def _timesteps(
    scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int, device: torch.device
) -> Tensor:
    """FluxFillPipeline's own schedule for that many picture tokens."""
    config = SCHEDULER_CONFIG
    slope = (config["max_shift"] - config["base_shift"]) / (
        config["max_image_seq_len"] - config["base_image_seq_len"]
    )
    mu = config["base_shift"] + slope * (tokens - config["base_image_seq_len"])
    sigmas: list[float] = np.linspace(1.0, 1 / steps, steps).tolist()
    scheduler.set_timesteps(sigmas=sigmas, device=device, mu=mu)
    timesteps: Tensor = scheduler.timesteps
    return timesteps


@torch.no_grad()
def sample(
    model: Denoiser,
    ids: CaptionIds,
    caption: Tensor,
    negative: Tensor,
    masked: Tensor,
    mask: Tensor,
    sheet: Sheet,
) -> Tensor:
    """Latents `[n, 16, h, w]` for captions and masks, with true CFG and seed 0."""
    n, _, h, w = masked.shape
    device = masked.device
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULER_CONFIG)
    timesteps = _timesteps(scheduler, sheet.steps, h * w // 4, device)
    generator = torch.Generator(device).manual_seed(0)
    x = pack(torch.randn(n, 16, h, w, device=device, generator=generator))
    condition = torch.cat([pack(masked.float()), pack_mask(mask)], -1)
    both = torch.cat([caption, negative])
    pooled, text = model.encode(ids.clip[both], ids.t5[both])
    for t in timesteps:
        v = model.transformer(
            hidden_states=torch.cat([torch.cat([x, condition], -1)] * 2),
            timestep=(t / 1000).expand(2 * n),
            guidance=torch.ones(2 * n, device=device),
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=device),
            img_ids=image_ids(h // 2, w // 2, device),
            return_dict=False,
        )[0].float()
        positive, unwanted = v.chunk(2)
        x = scheduler.step(unwanted + sheet.cfg * (positive - unwanted), t, x, return_dict=False)[0]
    return unpack(x, h, w)


@torch.no_grad()
def draw_held_out(
    model: Denoiser,
    vae: AutoencoderKL,
    ids: CaptionIds,
    bank: SceneBank,
    sheet: Sheet,
    path: Path,
) -> None:
    """Write hole, result and target of every scene of the sheet, and log the removals' PSNR."""
    scenes = bank.batch(len(sheet.tasks), sheet.size, sheet.size, sheet.tasks)
    image, mask = scenes.image, scenes.mask
    config = vae.config
    posterior = vae.encode((image * 2 - 1) * (1 - mask)).latent_dist
    masked = (posterior.sample() - config["shift_factor"]) * config["scaling_factor"]
    negative = torch.full_like(scenes.caption, bank.captions.negative)
    latents = sample(model, ids, scenes.caption, negative, masked, mask, sheet)
    latents = latents / config["scaling_factor"] + config["shift_factor"]
    result = vae.decode(latents).sample.float().clamp(-1, 1) / 2 + 0.5
    removed = scenes.task == TASKS.index("remove")
    mse = (((result - image) ** 2) * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    db = (10 * torch.log10(1 / mse[removed])).mean().item()
    log.info("removal psnr in mask %.2f", db)
    log.info("captions: %s", bank.texts(scenes))
    hole = image * (1 - mask) + 0.5 * mask
    save_grid(torch.stack([hole, result, image], 1).flatten(0, 1), 12, path, 0.5)
