"""A model's settings: what shapes say, and FLUX's published ones for what they cannot say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...nodes.errors import CheckpointError
from .readers.open import read_json

Shapes = Mapping[str, tuple[int, ...]]

FLUX_FOLDER = Path(__file__).parent / "flux"


def scheduler_config() -> dict[str, Any]:
    """FlowMatchEulerDiscreteScheduler's settings as FLUX.1 publishes them."""
    return read_json(FLUX_FOLDER / "scheduler" / "scheduler_config.json")


def transformer_config(shapes: Shapes, path: Path) -> dict[str, Any]:
    """FluxTransformer2DModel's settings; shapes go by diffusers' names.

    Raises:
        CheckpointError: a weight that they are read from is missing.
    """
    read = _Shapes(shapes, path)
    hidden, in_channels = read("x_embedder.weight", 2)
    (head,) = read("transformer_blocks.0.attn.norm_q.weight", 1)
    return read_json(FLUX_FOLDER / "transformer" / "config.json") | {
        "in_channels": in_channels,
        "out_channels": read("proj_out.weight", 2)[0],
        "num_layers": _count(shapes, r"transformer_blocks\.(\d+)\."),
        "num_single_layers": _count(shapes, r"single_transformer_blocks\.(\d+)\."),
        "attention_head_dim": head,
        "num_attention_heads": hidden // max(1, head),
        "joint_attention_dim": read("context_embedder.weight", 2)[1],
        "pooled_projection_dim": read("time_text_embed.text_embedder.linear_1.weight", 2)[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        "axes_dims_rope": [head // 8, 7 * head // 16, 7 * head // 16],
    }


def t5_config(shapes: Shapes, path: Path) -> dict[str, Any]:
    """T5EncoderModel's settings; shapes go by transformers' names.

    Raises:
        CheckpointError: a weight that they are read from is missing.
    """
    read = _Shapes(shapes, path)
    vocabulary, width = read("shared.weight", 2)
    attention = "encoder.block.0.layer.0.SelfAttention"
    buckets, heads = read(f"{attention}.relative_attention_bias.weight", 2)
    return read_json(FLUX_FOLDER / "text_encoder_2" / "config.json") | {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_layers": _count(shapes, r"encoder\.block\.(\d+)\."),
        "num_heads": heads,
        "d_kv": read(f"{attention}.q.weight", 2)[0] // max(1, heads),
        "d_ff": read("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 2)[0],
        "relative_attention_num_buckets": buckets,
    }


def clip_config(shapes: Shapes, path: Path) -> dict[str, Any]:
    """CLIPTextModel's settings; shapes go by transformers' names without "text_model.".

    Raises:
        CheckpointError: a weight that they are read from is missing.
    """
    read = _Shapes(shapes, path)
    vocabulary, width = read("embeddings.token_embedding.weight", 2)
    return read_json(FLUX_FOLDER / "text_encoder" / "config.json") | {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "max_position_embeddings": read("embeddings.position_embedding.weight", 2)[0],
        "num_hidden_layers": _count(shapes, r"encoder\.layers\.(\d+)\."),
        "intermediate_size": read("encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_attention_heads": max(1, width // 64),
    }


def vae_config(shapes: Shapes, path: Path) -> dict[str, Any]:
    """AutoencoderKL's settings; shapes go by diffusers' names.

    Raises:
        CheckpointError: a weight that they are read from is missing.
    """
    read = _Shapes(shapes, path)
    levels = _count(shapes, r"encoder\.down_blocks\.(\d+)\.")
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    return read_json(FLUX_FOLDER / "vae" / "config.json") | {
        "in_channels": read("encoder.conv_in.weight", 4)[1],
        "out_channels": read("decoder.conv_out.weight", 4)[0],
        "latent_channels": read("decoder.conv_in.weight", 4)[1],
        "block_out_channels": [read(first.format(level), 4)[0] for level in range(levels)],
        "layers_per_block": _count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


class _Shapes:
    def __init__(self, shapes: Shapes, path: Path) -> None:
        self._shapes, self._path = shapes, path

    def __call__(self, name: str, dimensions: int) -> tuple[int, ...]:
        shape = self._shapes.get(name)
        if shape is None or len(shape) != dimensions or 0 in shape:
            found = "is missing" if shape is None else f"is {list(shape)}"
            raise CheckpointError(
                f"{name} {found} in {self._path.name}. "
                "The file is damaged or of another model; choose another one."
            )
        return shape


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand in this place of the names."""
    return len({match[1] for match in map(re.compile(pattern).match, shapes) if match})
