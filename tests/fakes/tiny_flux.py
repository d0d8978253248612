"""A tiny random FLUX.1-Fill with the vocabularies and the settings of the real one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from onereward_pack.local_backend.pipeline.components import Components
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

FLUX_ASSETS = Path(__file__).parents[2] / "local_backend" / "checkpoints" / "flux"


@dataclass(frozen=True, eq=False)
class TinyFlux:
    """The four modules, in float32 and eval mode; vocabularies have FLUX.1's own sizes."""

    transformer: FluxTransformer2DModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: T5EncoderModel


def tiny_flux_fill(seed: int = 0, width: int = 64, head: int = 32) -> TinyFlux:
    """A seeded FLUX.1-Fill of real classes, 7 million weights, most of them vocabulary.

    Args:
        width: of the transformer; 64 fits rows of 32 (Q8_0), 256 fits rows of 256 (Q4_K).
        head: a head's width, a multiple of 32, so that FLUX's split of rope (2, 7, 7) fits.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules = (_transformer(width, head), _vae(), _text_encoder(), _text_encoder_2())
        for module in modules:
            _scatter_vectors(module)
            module.eval().requires_grad_(False)
    return TinyFlux(*modules)


def flux_components(flux: TinyFlux) -> Components:
    """The modules as components, with FLUX.1's tokenizers and schedule."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(FLUX_ASSETS / "scheduler")
    return Components(
        transformer=flux.transformer,
        vae=flux.vae,
        text_encoder=flux.text_encoder,
        text_encoder_2=flux.text_encoder_2,
        tokenizer=CLIPTokenizerFast.from_pretrained(FLUX_ASSETS / "tokenizer"),
        tokenizer_2=T5TokenizerFast.from_pretrained(FLUX_ASSETS / "tokenizer_2"),
        scheduler_config=scheduler.config,
    )


def _transformer(width: int, head: int) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=384,
        out_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=head,
        num_attention_heads=width // head,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        axes_dims_rope=(head // 8, 7 * head // 16, 7 * head // 16),
        guidance_embeds=True,
    )


def _vae() -> AutoencoderKL:
    settings = json.loads((FLUX_ASSETS / "vae" / "config.json").read_text(encoding="utf-8"))
    settings |= {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}
    return AutoencoderKL.from_config(settings)


def _text_encoder() -> CLIPTextModel:
    path = FLUX_ASSETS / "text_encoder" / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "projection_dim": 64,
    }
    return CLIPTextModel(CLIPTextConfig(**settings))


def _text_encoder_2() -> T5EncoderModel:
    path = FLUX_ASSETS / "text_encoder_2" / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 2}
    return T5EncoderModel(T5Config(**settings))


def _scatter_vectors(module: nn.Module) -> None:
    """Norms start as ones and biases as zeros: mixed up, they would not show."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                centre = 0.0 if name.endswith("bias") else 1.0
                parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
