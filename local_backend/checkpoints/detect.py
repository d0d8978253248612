"""Detects what a model file is, by the names and shapes in its header, never by the file's name.

The families are those a FLUX.1-Fill pipeline is made of; other known models are named for errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ...nodes.errors import CheckpointError
from .key_maps import OTHER_PREFIXES, TRANSFORMER_PREFIXES, VAE_PREFIXES, without_prefix
from .quant_metadata import foreign_format
from .readers.types import TensorFiles

FILL_CHANNELS = 384  # of FLUX.1-Fill's image input: noise 64, picture 64, mask 256

Shapes = Mapping[str, tuple[int, ...]]


class Family(str, Enum):
    """The kinds of file that a FLUX.1-Fill pipeline is made of, and everything else."""

    FLUX_FILL = "FLUX.1-Fill transformer"
    T5 = "T5 encoder"
    CLIP = "CLIP text encoder"
    VAE = "VAE"
    LORA = "LoRA"
    OTHER = "other"


_NEEDS = {
    Family.FLUX_FILL: f"OneReward needs FLUX.1-Fill, {FILL_CHANNELS} wide. "
    "Choose a OneReward or FLUX.1-Fill transformer.",
    Family.T5: "FLUX.1 needs the encoder of T5-XXL. Choose a file such as t5xxl_fp16.safetensors.",
    Family.CLIP: "FLUX.1 needs CLIP-L's text model. Choose a file such as clip_l.safetensors.",
    Family.VAE: "FLUX.1 needs its own VAE. Choose ae.safetensors.",
    Family.LORA: "a LoRA for FLUX.1 is needed. Choose one, or none.",
}

_FLUX_BLOCK = "double_blocks.0.img_attn.qkv.weight"
_FLUX_BLOCK_DIFFUSERS = "transformer_blocks.0.norm1_context.linear.weight"
_SINGLE_BLOCK_DIFFUSERS = "single_transformer_blocks.0.proj_mlp.weight"
_CONTROL_WIDTHS = {128: "a FLUX.1 control model (Depth or Canny)"}

# What only an adapter's names contain; XLabs' layers are called qkv_lora1 and the like.
_ADAPTERS = (
    ".lora_A.",
    ".lora_down.",
    ".lora.down.",
    "_lora.down.",
    "_lora1.down.",
    "_lora2.down.",
    ".lokr_w1",
    ".hada_w1_",
    ".oft_",
    ".dora_scale",
    ".lora_magnitude_vector",
)

# A tensor that only models of this kind have; looked up from top to bottom.
_OTHERS = {
    "distilled_guidance_layer.in_proj.weight": "Chroma",
    "double_stream_modulation_img.lin.weight": "FLUX.2",
    "double_stream_modulation_img.linear.weight": "FLUX.2",
    "txt_in.individual_token_refiner.blocks.0.norm1.weight": "a HunyuanVideo model",
    "redux_up.weight": "FLUX.1-Redux",
    "controlnet_x_embedder.weight": "a FLUX.1 ControlNet",
    "controlnet_blocks.0.weight": "a ControlNet",
    "input_hint_block.0.weight": "a ControlNet",
    "joint_blocks.0.x_block.attn.qkv.weight": "an SD3 model",
    "pos_embed.proj.weight": "an SD3 model",
    "transformer_blocks.0.img_mod.1.weight": "a Qwen-Image model",
    "head.modulation": "a Wan model",
    "cap_embedder.1.weight": "a Lumina or Z-Image model",
    "adaln_single.linear.weight": "an LTX or PixArt model",
    "conv_norm_out.weight": "an SD model in diffusers' layout",
    "model.layers.0.self_attn.q_proj.weight": "a language model",
    "transformer.resblocks.0.ln_1.weight": "a CLIP in OpenCLIP's layout",
    "decoder.up_blocks.0.conv_in.weight": "a VAE of another kind",
}
_T5_WIDTHS = {512: "T5-small", 768: "T5-base", 1024: "T5-large", 2048: "T5-XL", 4096: "T5-XXL"}
_CLIP_WIDTHS = {768: "CLIP-L", 1024: "CLIP-H", 1280: "CLIP-G"}
_T5_XXL, _CLIP_L = 4096, 768


def recognise(files: TensorFiles) -> tuple[Family, str]:
    """The file's family, and what it is as text for the user, from its header alone."""
    if any(part in name for name in files.tensors for part in _ADAPTERS):
        return Family.LORA, "a LoRA"
    others = (*VAE_PREFIXES, *OTHER_PREFIXES)
    names = without_prefix(files.tensors, TRANSFORMER_PREFIXES, others)
    shapes = {name: files.tensors[stored].shape for name, stored in names.items()}
    for look in (_other_model, _flux, _unet, _t5, _clip, _vae):
        found = look(shapes)
        if found is not None:
            return found
    return Family.OTHER, "a model of another kind"


def expect(files: TensorFiles, family: Family) -> None:
    """Raises CheckpointError, saying what the file is, unless it is one of this family that the
    pack can read. Reads nothing but the header.
    """
    foreign = foreign_format(files)
    if foreign is not None:
        raise CheckpointError(
            f"{files.path.name} is quantised by {foreign}, which this pack cannot read. Choose a "
            "bf16, fp8 or GGUF file, or open it with its own loader and connect OneReward Model "
            "Backend."
        )
    found, description = recognise(files)
    if found is not family:
        raise wrong_family(files.path.name, description, family)


def wrong_family(name: str, found: str, family: Family) -> CheckpointError:
    """What to raise where a file of one family is needed and `found` is what it is."""
    return CheckpointError(f"{name} is {found}; {_NEEDS[family]}")


def _other_model(shapes: Shapes) -> tuple[Family, str] | None:
    for name, description in _OTHERS.items():
        if name in shapes:
            return Family.OTHER, description
    return None


def _flux(shapes: Shapes) -> tuple[Family, str] | None:
    if _FLUX_BLOCK in shapes:
        entry, output, guidance = "img_in", "final_layer.linear", "guidance_in.in_layer"
    elif _FLUX_BLOCK_DIFFUSERS in shapes and _SINGLE_BLOCK_DIFFUSERS in shapes:
        entry, output = "x_embedder", "proj_out"
        guidance = "time_text_embed.guidance_embedder.linear_1"
    else:
        return None
    wide, out = shapes.get(f"{entry}.weight", ()), shapes.get(f"{output}.weight", ())
    if len(wide) != 2 or len(out) != 2:
        return Family.OTHER, "a part of a FLUX.1 model"
    width = wide[1]
    if width == FILL_CHANNELS and out[0] == 64:
        return Family.FLUX_FILL, "FLUX.1-Fill"
    kind = _CONTROL_WIDTHS.get(width, "a FLUX.1 model")
    if width == 64:
        kind = "FLUX.1-dev" if f"{guidance}.weight" in shapes else "FLUX.1-schnell"
    return Family.OTHER, f"{kind}, whose image input is {width} wide"


def _unet(shapes: Shapes) -> tuple[Family, str] | None:
    if "input_blocks.0.0.weight" not in shapes:
        return None
    if "label_emb.0.0.weight" in shapes:
        return Family.OTHER, "an SDXL checkpoint"
    text = shapes.get("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", ())
    return Family.OTHER, "an SD 1.5 checkpoint" if text[1:] == (768,) else "an SD checkpoint"


def _t5(shapes: Shapes) -> tuple[Family, str] | None:
    if "enc.blk.0.attn_q.weight" in shapes:
        embedding, gate = shapes.get("token_embd.weight", ()), "enc.blk.0.ffn_gate.weight"
        second = "enc.blk.1.attn_rel_b.weight"
    elif "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes:
        embedding = shapes.get("shared.weight", shapes.get("encoder.embed_tokens.weight", ()))
        gate = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
        second = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    else:
        return None
    if second in shapes:
        return Family.OTHER, "UMT5"
    width = embedding[1] if len(embedding) == 2 else 0
    name = _T5_WIDTHS.get(width, "a T5 encoder")
    if gate not in shapes:
        return Family.OTHER, f"{name} of T5's first version"
    # a width that no published T5 has is somebody's own FLUX's
    ours = width == _T5_XXL or width not in _T5_WIDTHS
    return Family.T5 if ours else Family.OTHER, f"{name}, {width} wide"


def _clip(shapes: Shapes) -> tuple[Family, str] | None:
    for prefix in ("text_model.", ""):
        if f"{prefix}encoder.layers.0.self_attn.q_proj.weight" in shapes:
            break
    else:
        return None
    embedding = shapes.get(f"{prefix}embeddings.token_embedding.weight", ())
    if len(embedding) != 2:
        return Family.OTHER, "a part of a CLIP model"
    width = embedding[1]
    ours = width == _CLIP_L or width not in _CLIP_WIDTHS
    name = _CLIP_WIDTHS.get(width, "a CLIP text encoder")
    return Family.CLIP if ours else Family.OTHER, f"{name}, {width} wide"


def _vae(shapes: Shapes) -> tuple[Family, str] | None:
    plain = {name: name for name in shapes}
    names = without_prefix(plain, VAE_PREFIXES, (*TRANSFORMER_PREFIXES, *OTHER_PREFIXES))
    latent = shapes.get(names.get("decoder.conv_in.weight", ""), ())
    blocks = ("encoder.down.0.block.0.conv1.weight", "encoder.down_blocks.0.resnets.0.conv1.weight")
    if not any(name in names for name in blocks):
        found = "encoder.layers.0.weight" in names or "taesd_encoder.0.weight" in names
        return (Family.OTHER, "a tiny preview VAE") if found else None
    if len(latent) != 4:
        return Family.OTHER, "a part of a VAE, or one for video"
    if latent[1] == 16:
        return Family.VAE, "a FLUX VAE"
    kind = {4: "an SD 1.5 or SDXL VAE", 32: "a FLUX.2 VAE"}.get(latent[1], "a VAE")
    return Family.OTHER, f"{kind}, whose latents have {latent[1]} channels"
