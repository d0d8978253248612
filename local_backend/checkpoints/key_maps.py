"""Key maps: a weight's names in BFL's and diffusers' FLUX, llama.cpp's and transformers' T5.

Facts of the published layouts; a name that stands in no table here is an unknown one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Where a FLUX transformer stands in a full checkpoint, and what else stands there.
TRANSFORMER_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
VAE_PREFIXES = ("first_stage_model.", "vae.")
OTHER_PREFIXES = ("text_encoders.", "cond_stage_model.", "conditioner.")

_TOP = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_OUTPUT_NORM = ("final_layer.adaLN_modulation.1", "norm_out.linear")
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_DOUBLE_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
_SINGLE_FUSED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
_BLOCKS: Mapping[str, tuple[str, Mapping[str, str], Mapping[str, tuple[str, ...]]]] = {
    "double_blocks": ("transformer_blocks", _DOUBLE, _DOUBLE_FUSED),
    "single_blocks": ("single_transformer_blocks", _SINGLE, _SINGLE_FUSED),
}
_BLOCK_NAME = re.compile(r"(double_blocks|single_blocks)\.(\d+)\.(.+)")

_LLAMA_LAYERS = {
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}
_LLAMA_TOP = {
    "token_embd.weight": "shared.weight",
    "enc.output_norm.weight": "encoder.final_layer_norm.weight",
}
_LLAMA_NAME = re.compile(r"enc\.blk\.(\d+)\.(\w+)\.weight")


@dataclass(frozen=True)
class Rows:
    """Some rows of a module's fused parent: all of it if there are no spans.

    Attributes:
        module: the diffusers module.
        spans: start and stop of rows, in the order in which diffusers keeps them.
    """

    module: str
    spans: tuple[tuple[int, int], ...] = ()


def flux_modules(bfl: str, rows: int, hidden: int) -> tuple[Rows, ...]:
    """The diffusers modules that a BFL module of this many rows stands for; none if it is unknown.

    Args:
        hidden: the transformer's width, by which fused rows are parted.
    """
    if bfl in _TOP:
        return (Rows(_TOP[bfl]),)
    if bfl == _OUTPUT_NORM[0]:
        # BFL keeps shift above scale, diffusers scale above shift
        half = rows // 2
        return (Rows(_OUTPUT_NORM[1], ((half, rows), (0, half))),)
    match = _BLOCK_NAME.fullmatch(bfl)
    if match is None:
        return ()
    kind, number, inner = match.groups()
    blocks, plain, fused = _BLOCKS[kind]
    if inner in plain:
        return (Rows(f"{blocks}.{number}.{plain[inner]}"),)
    parts = fused.get(inner, ())
    stops = [min(hidden * (i + 1), rows) for i in range(len(parts))]
    if parts:
        stops[-1] = rows
    return tuple(
        Rows(f"{blocks}.{number}.{part}", ((start, stop),))
        for part, start, stop in zip(parts, [0, *stops], stops, strict=False)
    )


def bfl_modules(doubles: int, singles: int) -> list[str]:
    """The BFL names of every module of a FLUX transformer with so many blocks."""
    names = [*_TOP, _OUTPUT_NORM[0]]
    for number in range(doubles):
        names += [f"double_blocks.{number}.{inner}" for inner in (*_DOUBLE, *_DOUBLE_FUSED)]
    for number in range(singles):
        names += [f"single_blocks.{number}.{inner}" for inner in (*_SINGLE, *_SINGLE_FUSED)]
    return names


def split_parameter(name: str) -> tuple[str, str]:
    """A BFL parameter as its module and diffusers' name for it: a norm's scale is weight."""
    module, _, parameter = name.rpartition(".")
    return module, "weight" if parameter == "scale" else parameter


def t5_name(name: str) -> str:
    """transformers' name of a T5 weight, from llama.cpp's or its own."""
    if name in _LLAMA_TOP:
        return _LLAMA_TOP[name]
    match = _LLAMA_NAME.fullmatch(name)
    if match is None or match[2] not in _LLAMA_LAYERS:
        return name
    return f"encoder.block.{match[1]}.{_LLAMA_LAYERS[match[2]]}.weight"


def without_prefix(
    tensors: Mapping[str, object], prefixes: tuple[str, ...], others: tuple[str, ...]
) -> dict[str, str]:
    """The key map of a model in a file, where it may stand under a prefix: the model's tensor names
    -> their names in the file.

    Args:
        others: prefixes of the models that may stand beside it in a full checkpoint.
    """
    prefix = next((p for p in prefixes if any(name.startswith(p) for name in tensors)), "")
    if not prefix:
        return {name: name for name in tensors}
    strangers = tuple(p for p in others if not prefix.startswith(p))
    # what is neither the model's nor known to be another's keeps its name, and is found unknown
    return {name.removeprefix(prefix): name for name in tensors if not name.startswith(strangers)}


def renamed(key_map: Mapping[str, str], rename: Callable[[str], str]) -> dict[str, str]:
    """The same tensors under other names; what would take a name that is taken keeps its own."""
    result: dict[str, str] = {}
    for name, stored in key_map.items():
        new = rename(name)
        result[name if new in result or (new != name and new in key_map) else new] = stored
    return result
