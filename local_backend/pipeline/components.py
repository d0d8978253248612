"""The components (diffusers' term) of a FLUX.1-Fill pipeline: models, tokenizers, scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from ..checkpoints.tokenizers import CLIPTokenizerFast, T5TokenizerFast
from ..offload.vram_estimate import TEXT_TOKENS
from .latent_preview import LatentRgb

FLUX_TEXT_LENGTHS = (TEXT_TOKENS,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """What a FLUX.1-Fill pipeline is made of; every module is frozen and in eval mode.

    Attributes:
        scheduler_config: a fresh scheduler is made from it for every run.
        text_lengths: the numbers of T5 tokens the transformer knows, ascending.
        latent_rgb: shows latents while they are denoised; None for no previews.
    """

    transformer: FluxTransformer2DModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: T5EncoderModel
    tokenizer: CLIPTokenizerFast
    tokenizer_2: T5TokenizerFast
    scheduler_config: Mapping[str, Any]
    text_lengths: tuple[int, ...] = FLUX_TEXT_LENGTHS
    latent_rgb: LatentRgb | None = None

    def pipeline_arguments(self) -> dict[str, Any]:
        """What a diffusers Fill pipeline is made from, with a scheduler of its own."""
        return {
            "scheduler": FlowMatchEulerDiscreteScheduler.from_config(self.scheduler_config),
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "text_encoder_2": self.text_encoder_2,
            "tokenizer_2": self.tokenizer_2,
            "transformer": self.transformer,
        }

    def to(self, device: torch.device) -> Components:
        """Moves the modules, in place, and returns itself."""
        # as plain modules: the libraries' own `to` are typed as functions
        modules: list[nn.Module] = [
            self.transformer,
            self.vae,
            self.text_encoder,
            self.text_encoder_2,
        ]
        for module in modules:
            module.to(device)
        return self
