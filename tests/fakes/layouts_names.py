"""The names under which others store FLUX, written down anew: BFL's, ldm's and llama.cpp's.

Nothing here is shared with the code under test. tests/local_backend/test_layouts.py checks it
against diffusers' own conversions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

DOUBLE_BLOCK = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
DOUBLE_BLOCK_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
SINGLE_BLOCK = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
SINGLE_BLOCK_NORMS = {
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
OUTSIDE = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
SWAPPED = "final_layer.adaLN_modulation.1"


def bfl_layers(state: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """BFL's layer to the diffusers layers stacked in it, for those that the model has."""
    names = {}
    for ours, theirs, inside in (
        ("transformer_blocks", "double_blocks", DOUBLE_BLOCK),
        ("single_transformer_blocks", "single_blocks", SINGLE_BLOCK),
    ):
        for i in range(count_blocks(state, ours)):
            for name, parts in inside.items():
                names[f"{theirs}.{i}.{name}"] = tuple(f"{ours}.{i}.{part}" for part in parts)
    outside = {name: parts for name, parts in OUTSIDE.items() if f"{parts[0]}.weight" in state}
    return names | outside


def bfl_norms(state: Mapping[str, Tensor]) -> dict[str, str]:
    """BFL's norm weight to the diffusers one: whole keys."""
    names = {}
    for ours, theirs, inside in (
        ("transformer_blocks", "double_blocks", DOUBLE_BLOCK_NORMS),
        ("single_transformer_blocks", "single_blocks", SINGLE_BLOCK_NORMS),
    ):
        for i in range(count_blocks(state, ours)):
            for name, part in inside.items():
                names[f"{theirs}.{i}.{name}.scale"] = f"{ours}.{i}.{part}.weight"
    return names


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})


def to_bfl(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The diffusers state dict of a FLUX transformer in BFL's names."""
    stored = {}
    for layer, parts in bfl_layers(state).items():
        for kind in ("weight", "bias"):
            value = torch.cat([state[f"{part}.{kind}"] for part in parts])
            stored[f"{layer}.{kind}"] = _swap_halves(value) if layer == SWAPPED else value
    for key, ours in bfl_norms(state).items():
        stored[key] = state[ours]
    return stored


def from_bfl(stored: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back; `state` gives the names and the rows of every part."""
    result = {}
    for layer, parts in bfl_layers(state).items():
        for kind in ("weight", "bias"):
            value = stored[f"{layer}.{kind}"]
            value = _swap_halves(value) if layer == SWAPPED else value
            rows = [len(state[f"{part}.{kind}"]) for part in parts]
            for part, piece in zip(parts, value.split(rows), strict=True):
                result[f"{part}.{kind}"] = piece.clone()
    for key, ours in bfl_norms(state).items():
        result[ours] = stored[key]
    return result


def _swap_halves(value: Tensor) -> Tensor:
    """diffusers keeps (scale, shift) where BFL keeps (shift, scale)."""
    return torch.cat(value.chunk(2)[::-1])


LDM_RULES = (
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.resnets\.(\d+)\.", r".block.\1."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.downsamplers\.0\.", ".downsample."),
    (r"\.upsamplers\.0\.", ".upsample."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.down_blocks\.(\d+)\.", r".down.\1."),
)


def to_ldm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The diffusers state dict of a FLUX VAE in the names of ae.safetensors."""
    blocks = len({key.split(".")[2] for key in state if key.startswith("decoder.up_blocks.")})
    stored = {}
    for key, value in state.items():
        name = re.sub(
            r"\.up_blocks\.(\d+)\.", lambda match: f".up.{blocks - 1 - int(match[1])}.", key
        )
        for pattern, replacement in LDM_RULES:
            name = re.sub(pattern, replacement, name)
        # ldm's attention is made of 1x1 convolutions.
        is_map = ".attn_1." in name and value.dim() == 2
        stored[name] = value[:, :, None, None] if is_map else value
    return stored


T5_LLAMA_RULES = (
    (r"^shared\.", "token_embd."),
    (r"^encoder\.final_layer_norm\.", "enc.output_norm."),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"enc.blk.\1.attn_norm."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"enc.blk.\1.ffn_norm."),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.", r"enc.blk.\1.attn_"),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.", r"enc.blk.\1.ffn_"),
    (r"attn_relative_attention_bias\.", "attn_rel_b."),
    (r"ffn_wi_0\.", "ffn_gate."),
    (r"ffn_wi_1\.", "ffn_up."),
    (r"ffn_wo\.", "ffn_down."),
)


def to_llama(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformers state dict of a T5 encoder in llama.cpp's names."""
    stored = {}
    for key, value in state.items():
        for pattern, replacement in T5_LLAMA_RULES:
            key = re.sub(pattern, replacement, key)
        stored[key] = value
    return stored
