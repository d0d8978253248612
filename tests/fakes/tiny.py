"""A tiny random FLUX.1-Fill of real diffusers and transformers classes, and requests for it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from onereward_pack.local_backend.pipeline.components import Components
from onereward_pack.local_backend.pipeline.preview_components import PREVIEW_FOLDER
from onereward_pack.nodes.contracts import EditRequest, EditTask
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)


def tiny_components(**changes: Any) -> Components:
    """Seeded components of a few thousand weights; the tokenizers are the preview model's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "transformer": tiny_transformer(),
            "vae": _vae(),
            "text_encoder": _text_encoder(),
            "text_encoder_2": _text_encoder_2(),
        }
    parts |= {
        "tokenizer": CLIPTokenizerFast.from_pretrained(PREVIEW_FOLDER / "tokenizer"),
        "tokenizer_2": T5TokenizerFast.from_pretrained(PREVIEW_FOLDER / "tokenizer_2"),
        "scheduler_config": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config,
        "text_lengths": (16, 64),
    }
    parts |= changes
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        parts[name].eval().requires_grad_(False)
    return Components(**parts)


def tiny_transformer(guidance_embeds: bool = True) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=384,
        out_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.36,
        shift_factor=0.12,
    )


def _text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=1340,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1338,
        eos_token_id=1339,
        pad_token_id=1339,
    )
    return CLIPTextModel(config)


def _text_encoder_2() -> T5EncoderModel:
    config = T5Config(vocab_size=458, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config)


def make_request(height: int = 64, width: int = 64, **changes: Any) -> EditRequest:
    """A request on random pixels with a rectangular hole off the latent grid."""
    generator = torch.Generator().manual_seed(7)
    mask = torch.zeros(1, height, width)
    mask[:, 13:41, 10:37] = 1
    words: dict[str, Any] = {
        "task": EditTask.FILL,
        "prompt": "a cat",
        "image": torch.rand(1, height, width, 3, generator=generator),
        "mask": mask,
        "num_inference_steps": 3,
        "acceleration": "none",
    }
    return EditRequest(**(words | changes))
