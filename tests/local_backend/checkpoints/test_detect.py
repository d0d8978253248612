"""What a file is, from names and shapes; every file here is a header whose data does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.sparse import Shape, flux_shapes, write_sparse
from onereward_pack.local_backend.checkpoints.detect import Family, expect, recognise
from onereward_pack.local_backend.checkpoints.readers.open import open_tensors
from onereward_pack.nodes.errors import CheckpointError

FILL = flux_shapes(blocks=1)
UNET = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
TO_K = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def prefixed(shapes: dict[str, Shape], prefix: str) -> dict[str, Shape]:
    return {prefix + name: shape for name, shape in shapes.items()}


def t5(width: int, vocabulary: int = 32128, blocks: int = 2) -> dict[str, Shape]:
    layer = "encoder.block.{}.layer.{}.{}.weight"
    shapes: dict[str, Shape] = {
        "shared.weight": (vocabulary, width),
        layer.format(0, 0, "SelfAttention.relative_attention_bias"): (32, 64),
    }
    for block in range(blocks):
        shapes[layer.format(block, 0, "SelfAttention.q")] = (width, width)
        shapes[layer.format(block, 1, "DenseReluDense.wi_0")] = (2 * width, width)
    return shapes


def clip(width: int, prefix: str = "text_model.") -> dict[str, Shape]:
    return {
        f"{prefix}embeddings.token_embedding.weight": (49408, width),
        f"{prefix}encoder.layers.0.self_attn.q_proj.weight": (width, width),
    }


def vae(latent: int, block: str = "encoder.down.0.block.0.conv1.weight") -> dict[str, Shape]:
    return {block: (128, 128, 3, 3), "decoder.conv_in.weight": (512, latent, 3, 3)}


UMT5 = t5(4096, 256384) | {
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64)
}
FIRST_T5 = {name: shape for name, shape in t5(4096).items() if "wi_0" not in name}
LLAMA_T5: dict[str, Shape] = {
    "token_embd.weight": (32128, 4096),
    "enc.blk.0.attn_q.weight": (4096, 4096),
    "enc.blk.0.ffn_gate.weight": (10240, 4096),
}
CASES: dict[str, tuple[dict[str, Shape], Family, str]] = {
    "fill": (FILL, Family.FLUX_FILL, "FLUX.1-Fill"),
    "fill diffusers": (flux_shapes(bfl=False, blocks=1), Family.FLUX_FILL, "FLUX.1-Fill"),
    "fill, one prefix": (prefixed(FILL, "diffusion_model."), Family.FLUX_FILL, "FLUX.1-Fill"),
    "fill in a full checkpoint": (
        prefixed(FILL, "model.diffusion_model.")
        | prefixed(vae(16), "vae.")
        | prefixed(clip(768), "text_encoders.clip_l.transformer."),
        Family.FLUX_FILL,
        "FLUX.1-Fill",
    ),
    "dev": (
        flux_shapes(64, blocks=1),
        Family.OTHER,
        "FLUX.1-dev, whose image input is 64 wide",
    ),
    "dev diffusers": (flux_shapes(64, bfl=False, blocks=1), Family.OTHER, "FLUX.1-dev, "),
    "schnell": (flux_shapes(64, guidance=False, blocks=1), Family.OTHER, "FLUX.1-schnell, "),
    "depth": (flux_shapes(128, blocks=1), Family.OTHER, "control model (Depth or Canny)"),
    "some flux": (flux_shapes(96, blocks=1), Family.OTHER, "image input is 96 wide"),
    "chroma": (
        FILL | {"distilled_guidance_layer.in_proj.weight": (5120, 64)},
        Family.OTHER,
        "Chroma",
    ),
    "flux 2": ({"double_stream_modulation_img.lin.weight": (2, 2)}, Family.OTHER, "FLUX.2"),
    "sd 1.5": (UNET | {TO_K: (320, 768)}, Family.OTHER, "an SD 1.5 checkpoint"),
    "sd 2": (UNET | {TO_K: (320, 1024)}, Family.OTHER, "an SD checkpoint"),
    "sdxl": (
        UNET | {"model.diffusion_model.label_emb.0.0.weight": (1280, 2816)},
        Family.OTHER,
        "an SDXL checkpoint",
    ),
    "sd 3": (
        {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (2, 2)},
        Family.OTHER,
        "an SD3 model",
    ),
    "wan": ({"head.modulation": (1, 2, 5120)}, Family.OTHER, "a Wan model"),
    "qwen": (
        {"transformer_blocks.0.img_mod.1.weight": (2, 2), "img_in.weight": (2, 2)},
        Family.OTHER,
        "a Qwen-Image model",
    ),
    "controlnet": (
        flux_shapes(64, bfl=False, blocks=1) | {"controlnet_x_embedder.weight": (2, 2)},
        Family.OTHER,
        "a FLUX.1 ControlNet",
    ),
    "t5-xxl": (t5(4096), Family.T5, "T5-XXL, 4096 wide"),
    "t5-xxl of llama.cpp": (LLAMA_T5, Family.T5, "T5-XXL, 4096 wide"),
    "a t5 of our own": (t5(48), Family.T5, "a T5 encoder, 48 wide"),
    "t5-base": (t5(768), Family.OTHER, "T5-base, 768 wide"),
    "first t5": (FIRST_T5, Family.OTHER, "T5-XXL of T5's first version"),
    "umt5": (UMT5, Family.OTHER, "UMT5"),
    "clip-l": (clip(768), Family.CLIP, "CLIP-L, 768 wide"),
    "clip-l, newer names": (clip(768, ""), Family.CLIP, "CLIP-L, 768 wide"),
    "clip-g": (clip(1280), Family.OTHER, "CLIP-G, 1280 wide"),
    "flux vae": (vae(16), Family.VAE, "a FLUX VAE"),
    "flux vae, prefixed": (prefixed(vae(16), "first_stage_model."), Family.VAE, "a FLUX VAE"),
    "diffusers vae": (
        vae(16, "encoder.down_blocks.0.resnets.0.conv1.weight"),
        Family.VAE,
        "a FLUX VAE",
    ),
    "sd vae": (vae(4), Family.OTHER, "an SD 1.5 or SDXL VAE, whose latents have 4 channels"),
    "peft lora": ({"transformer.proj_out.lora_A.weight": (4, 8)}, Family.LORA, "a LoRA"),
    "kohya lora": ({"lora_unet_img_in.lora_down.weight": (4, 8)}, Family.LORA, "a LoRA"),
    "xlabs lora": (
        {"double_blocks.0.processor.qkv_lora1.down.weight": (4, 8)},
        Family.LORA,
        "a LoRA",
    ),
    "lokr": ({"lycoris_blocks_0.lokr_w1": (4, 8)}, Family.LORA, "a LoRA"),
    "nothing": ({}, Family.OTHER, "a model of another kind"),
    "who knows": ({"a.weight": (3, 3)}, Family.OTHER, "a model of another kind"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_known_by_names_and_shapes(tmp_path: Path, case: str) -> None:
    shapes, family, words = CASES[case]
    # every name lies about what is inside
    files = open_tensors(write_sparse(tmp_path / "sdxl-fill-t5.safetensors", shapes))
    found, said = recognise(files)
    assert found is family
    assert words in said


def test_a_wrong_file_is_refused_with_what_to_choose(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "flux1-dev.safetensors", flux_shapes(64))
    with pytest.raises(CheckpointError) as refused:
        expect(open_tensors(path), Family.FLUX_FILL)
    assert str(refused.value) == (
        "flux1-dev.safetensors is FLUX.1-dev, whose image input is 64 wide; OneReward needs "
        "FLUX.1-Fill, 384 wide. Choose a OneReward or FLUX.1-Fill transformer."
    )


@pytest.mark.parametrize("family", [f for f in Family if f is not Family.OTHER])
def test_every_family_refuses_the_others(tmp_path: Path, family: Family) -> None:
    for number, (shapes, found, words) in enumerate(CASES.values()):
        files = open_tensors(write_sparse(tmp_path / f"{number}.safetensors", shapes))
        if found is family:
            expect(files, family)
            continue
        with pytest.raises(CheckpointError) as refused:
            expect(files, family)
        assert words in str(refused.value)
        assert "hoose" in str(refused.value)


FOREIGN = {
    "nunchaku": "transformer_blocks.0.qkv_proj.wscales",
    "bitsandbytes NF4": "x_embedder.weight.quant_state.bitsandbytes__nf4",
    "bitsandbytes": "img_in.weight.absmax",
    "NVFP4": "double_blocks.0.img_mlp.0.weight_scale_2",
    "torchao": "img_in._weight_qdata",
}


@pytest.mark.parametrize("words", FOREIGN)
def test_a_foreign_quantisation_is_named(tmp_path: Path, words: str) -> None:
    path = write_sparse(tmp_path / "a.safetensors", FILL | {FOREIGN[words]: (8,)})
    with pytest.raises(CheckpointError, match=f"quantised by .*{words}.*Model Backend"):
        expect(open_tensors(path), Family.FLUX_FILL)
