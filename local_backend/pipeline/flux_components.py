"""FLUX.1-Fill's models with what else a pipeline needs: tokenizers, schedule and preview map."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from ..checkpoints.tokenizers import CLIPTokenizerFast, T5TokenizerFast
from ..offload.flux_parts import FluxParts
from .components import Components
from .latent_preview import load_latent_rgb

ASSETS = Path(__file__).parents[1] / "checkpoints" / "flux"


def flux_components(parts: FluxParts) -> Components:
    """The parts with what else a pipeline needs; see with_assets."""
    return with_assets(
        transformer=parts.transformer.module,
        vae=parts.vae.module,
        text_encoder=parts.clip.module,
        text_encoder_2=parts.t5.module,
    )


def with_assets(
    *,
    transformer: FluxTransformer2DModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    text_encoder_2: T5EncoderModel,
) -> Components:
    """The models with the tokenizers, the schedule and the preview map that the pack carries."""
    channels = vae.config["latent_channels"]
    schedule = json.loads((ASSETS / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Components(
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=CLIPTokenizerFast.from_pretrained(ASSETS / "tokenizer", local_files_only=True),
        tokenizer_2=T5TokenizerFast.from_pretrained(ASSETS / "tokenizer_2", local_files_only=True),
        scheduler_config=schedule,
        latent_rgb=load_latent_rgb(ASSETS / "vae" / "latent_rgb.json", channels),
    )
