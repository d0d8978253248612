"""The networks: FLUX.1-Fill's architecture, small; made and loaded here only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": (24, 48, 96, 96),
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 8,
    "sample_size": 256,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
    "force_upcast": False,
}
TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 384,
    "out_channels": 64,
    "num_layers": 2,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 6,
    "joint_attention_dim": 128,
    "pooled_projection_dim": 96,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 14, 14),
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
#: the T5 embedding under its second name; it is stored once
TIED = "text_encoder_2.encoder.embed_tokens.weight"


def make_vae() -> AutoencoderKL:
    """An untrained VAE: f8, 16 channels."""
    vae: AutoencoderKL = AutoencoderKL(**VAE_CONFIG)
    return vae


def load_vae(work: Path, device: torch.device | str) -> AutoencoderKL:
    """The VAE of the vae stage, float32, frozen, with its shift and scale in the config."""
    vae = make_vae()
    path = work / "vae.safetensors"
    vae.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    vae.register_to_config(
        shift_factor=float(meta["shift_factor"]), scaling_factor=float(meta["scaling_factor"])
    )
    module: torch.nn.Module = vae  # diffusers' own `to` is typed as a function
    module.to(device)
    return vae.eval().requires_grad_(False)


def _clip_model(vocabulary: int, start: int, end: int) -> CLIPTextModel:
    config: dict[str, Any] = dict(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        projection_dim=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        attn_implementation="eager",
    )
    return CLIPTextModel(CLIPTextConfig(**config))


def _t5_model(vocabulary: int) -> T5EncoderModel:
    config: dict[str, Any] = dict(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=64,
        attn_implementation="eager",
    )
    return T5EncoderModel(T5Config(**config))


class Denoiser(torch.nn.Module):
    """The three parts that are trained together: transformer, CLIP text model, T5 encoder."""

    def __init__(self, clip_size: int, t5_size: int, clip_start: int, clip_end: int) -> None:
        """The two sizes are the tokenizers' vocabularies, the rest CLIP's special tokens."""
        super().__init__()
        self.transformer = FluxTransformer2DModel(**TRANSFORMER_CONFIG)
        self.text_encoder = _clip_model(clip_size, clip_start, clip_end)
        self.text_encoder_2 = _t5_model(t5_size)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """FLUX's adaLN-zero start: gates and the output begin at zero."""
        for module in self.transformer.modules():
            if type(module).__name__.startswith("AdaLayerNorm") and hasattr(module, "linear"):
                torch.nn.init.zeros_(module.linear.weight)
                torch.nn.init.zeros_(module.linear.bias)
        torch.nn.init.zeros_(self.transformer.proj_out.weight)
        torch.nn.init.zeros_(self.transformer.proj_out.bias)
        torch.nn.init.normal_(self.text_encoder_2.shared.weight, std=0.5)

    def encode(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled CLIP `[n, 96]` and T5 states `[n, length, 128]`."""
        pooled: Tensor = self.text_encoder(clip_ids).pooler_output
        return pooled, self.text_encoder_2(t5_ids)[0]


def save_half(module: torch.nn.Module, path: Path, meta: dict[str, str] | None = None) -> None:
    """Store a module's weights as fp16 safetensors."""
    state = {
        name: value.detach().to(torch.float16).contiguous().cpu()
        for name, value in module.state_dict().items()
        if name != TIED
    }
    save_file(state, path, metadata=meta)


def load_denoiser(model: Denoiser, path: Path) -> None:
    """Load what `save_half` stored; a ValueError names what is missing or too much."""
    state = {name: value.float() for name, value in load_file(path).items()}
    missing, extra = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name != TIED]
    if missing or extra:
        raise ValueError(
            f"{path} has no {missing} and too much {extra}. Run the model stage again."
        )
