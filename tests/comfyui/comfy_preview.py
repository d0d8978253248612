"""The preview model in ComfyUI's own MODEL, CLIP and VAE; for a process with ComfyUI's modules."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import comfy.ldm.modules.diffusionmodules.model as ldm
import comfy.model_detection
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.text_encoders.flux as comfy_flux
import conftest  # noqa: F401  (loads the pack)
import torch
from comfy.supported_models_base import ClipTarget
from onereward_pack.local_backend.pipeline.preview_components import PREVIEW_FOLDER
from safetensors.torch import load_file
from torch import Tensor
from transformers import T5TokenizerFast

CLIP_START, CLIP_END, CLIP_WORDS = 1338, 1339, 49408


def weights(part: str) -> dict[str, Tensor]:
    [path] = (PREVIEW_FOLDER / part).glob("*.safetensors")
    return load_file(path)


def config(part: str) -> dict[str, Any]:
    return json.loads((PREVIEW_FOLDER / part / "config.json").read_text("utf-8"))


def fill_model(**changes: Any) -> comfy.model_patcher.ModelPatcher:
    """The preview transformer as ComfyUI's loader would make it, were it not too small for it."""
    stored = comfy.model_detection.convert_diffusers_mmdit(weights("transformer"))
    shape = comfy.model_detection.detect_unet_config(stored, "")
    shape |= {"num_heads": 6, "axes_dim": [4, 14, 14], "hidden_size": 192}
    shape |= {"context_in_dim": 128, "vec_in_dim": 96, **changes}
    model_config = comfy.supported_models.FluxInpaint(shape)
    model_config.set_inference_dtype(torch.float32, None)
    vae, rgb = config("vae"), json.loads((PREVIEW_FOLDER / "vae/latent_rgb.json").read_text())
    form = model_config.latent_format
    form.scale_factor, form.shift_factor = vae["scaling_factor"], vae["shift_factor"]
    form.latent_rgb_factors = [[2 * value for value in row] for row in rgb["weight"]]
    form.latent_rgb_factors_bias = [2 * value - 1 for value in rgb["bias"]]
    model = model_config.get_model({})
    if not changes:
        model.load_model_weights(stored, "")
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return kind(model, torch.device("cpu"), torch.device("cpu"))


class SmallTokenizer(comfy_flux.FluxTokenizer):
    """FluxTokenizer with the preview model's words."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        make = comfy.sd1_clip.SDTokenizer
        self.clip_l = make(str(PREVIEW_FOLDER / "tokenizer"), embedding_size=96)
        self.t5xxl = make(
            str(PREVIEW_FOLDER / "tokenizer_2"), pad_with_end=False, embedding_size=128,
            embedding_key="t5xxl", tokenizer_class=T5TokenizerFast, has_start_token=False,
            pad_to_max_length=False, max_length=99999999, min_length=256,
        )  # fmt: skip


def flux_clip() -> comfy.sd.CLIP:
    """The preview's text encoders in ComfyUI's own FLUX CLIP."""
    t5 = config("text_encoder_2") | {"dense_act_fn": "gelu_pytorch_tanh"}
    options = {"clip_l_model_config": config("text_encoder"), "t5xxl_model_config": t5}
    options |= {"dtype": torch.float32, "initial_device": torch.device("cpu")}
    target = ClipTarget(SmallTokenizer, comfy_flux.flux_clip(dtype_t5=torch.float32))
    clip = comfy.sd.CLIP(target, model_options=options)
    encoder = clip.cond_stage_model
    encoder.clip_l.special_tokens = {"start": CLIP_START, "end": CLIP_END, "pad": CLIP_END}
    attention = encoder.t5xxl.transformer.encoder.block[0].layer[0].SelfAttention
    attention.relative_attention_max_distance = t5["relative_attention_max_distance"]
    words = weights("text_encoder")
    words = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in words.items()}
    name = "text_model.embeddings.token_embedding.weight"
    words[name] = torch.nn.functional.pad(words[name], (0, 0, 0, CLIP_WORDS - len(words[name])))
    check_loaded(encoder.clip_l.load_sd(words), {"text_projection.weight"})
    check_loaded(encoder.t5xxl.load_sd(weights("text_encoder_2")), set())
    return clip


def check_loaded(strays: Any, fine: set[str]) -> None:
    missing = set(strays.missing_keys) - fine
    assert not missing and not strays.unexpected_keys, (missing, strays.unexpected_keys)


def picture_vae() -> comfy.sd.VAE:
    """The preview's VAE in ComfyUI's own; its middle attention, which ours lacks, adds nothing."""
    shape = {
        "double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3,
        "ch": 24, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 1, "attn_resolutions": [],
    }  # fmt: skip
    stored = weights("vae")
    for name, size in (("quant_conv", 32), ("post_quant_conv", 16)):
        stored[f"{name}.weight"] = torch.eye(size)[..., None, None]
        stored[f"{name}.bias"] = torch.zeros(size)
    for side in ("encoder", "decoder"):
        block = f"{side}.mid_block.attentions.0"
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            stored[f"{block}.{name}.weight"] = torch.zeros(96, 96)
            stored[f"{block}.{name}.bias"] = torch.zeros(96)
        stored[f"{block}.group_norm.weight"] = stored[f"{block}.group_norm.bias"] = torch.ones(96)
    groups = config("vae")["norm_num_groups"]
    with mock.patch.object(ldm.Normalize, "__defaults__", (groups,)):
        vae = comfy.sd.VAE(stored, config={"params": {"ddconfig": shape, "embed_dim": 16}})
    vae.latent_channels = 16  # as VAE finds out by itself where nobody names the shape
    return vae
