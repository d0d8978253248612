"""What an opened model promises: a frozen skeleton, and exactly the weights that belong into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.layouts import write_clip, write_t5, write_transformer, write_vae
from fakes.refusals import rewrite
from fakes.sparse import flux_shapes, write_sparse
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from onereward_pack.local_backend.checkpoints.load import (
    ModelFile,
    open_clip,
    open_t5,
    open_transformer,
    open_vae,
)
from safetensors.torch import load, load_file, save_file
from transformers import T5EncoderModel


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


def opened(folder: Path, flux: TinyFlux) -> list[ModelFile]:
    return [
        open_transformer(write_transformer(folder, flux.transformer).path),
        open_t5(write_t5(folder, flux.text_encoder_2).path),
        open_clip(write_clip(folder, flux.text_encoder).path),
        open_vae(write_vae(folder, flux.vae).path),
    ]


def test_a_module_is_a_frozen_skeleton_with_a_weight_for_every_parameter(
    tmp_path: Path, flux: TinyFlux
) -> None:
    with torch.inference_mode():  # as in ComfyUI
        files = opened(tmp_path, flux)
    for file in files:
        parameters = dict(file.module.named_parameters())
        assert set(file.weights.sizes) == set(parameters)
        assert not file.module.training
        for name, parameter in parameters.items():
            assert parameter.is_meta and not parameter.requires_grad
            assert not parameter.is_inference(), name
            assert file.weights.sizes[name].shape == tuple(parameter.shape)
        # what no file holds must not wait for a file to bring it
        assert not any(buffer.is_meta for buffer in file.module.buffers())


def test_weights_are_views_of_the_file_also_in_inference_mode(
    tmp_path: Path, flux: TinyFlux
) -> None:
    with torch.inference_mode():
        for file in opened(tmp_path, flux):
            for name in file.weights.sizes:
                first, second = file.weights.read(name).data, file.weights.read(name).data
                assert not first.is_inference()
                # scale and shift change places, which no view can do
                swapped = name.startswith("norm_out.")
                assert (first.data_ptr() == second.data_ptr()) != swapped, name


def test_t5_has_one_vocabulary_under_either_name(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_t5(tmp_path, flux.text_encoder_2).path
    stored = load(path.read_bytes())["shared.weight"]  # not mapped: the file is written over
    rewrite(path, {"encoder.embed_tokens.weight": stored}, ["shared.weight"])
    file = open_t5(path)
    assert isinstance(file.module, T5EncoderModel)
    assert file.module.encoder.embed_tokens is file.module.shared
    assert torch.equal(file.weights.read("shared.weight").data, stored)
    assert "encoder.embed_tokens.weight" not in file.weights.sizes


def test_a_transformer_is_found_in_a_full_checkpoint(tmp_path: Path, flux: TinyFlux) -> None:
    tensors = load_file(write_transformer(tmp_path, flux.transformer, "bfl_prefixed").path)
    vae = load_file(write_vae(tmp_path, flux.vae).path)
    clip = load_file(write_clip(tmp_path, flux.text_encoder).path)
    tensors |= {f"vae.{name}": value for name, value in vae.items()}
    tensors |= {f"text_encoders.clip_l.transformer.{name}": value for name, value in clip.items()}
    save_file(tensors, tmp_path / "full.safetensors")
    file = open_transformer(tmp_path / "full.safetensors")
    assert set(file.weights.sizes) == set(dict(flux.transformer.named_parameters()))


def test_a_vae_is_found_under_its_prefix(tmp_path: Path, flux: TinyFlux) -> None:
    written = write_vae(tmp_path, flux.vae)
    tensors = load_file(written.path)
    renamed = {f"first_stage_model.{name}": value for name, value in tensors.items()}
    save_file(renamed, tmp_path / "prefixed.safetensors")
    file = open_vae(tmp_path / "prefixed.safetensors")
    for name, value in written.reference.items():
        assert torch.equal(file.weights.read(name).dense(torch.float32), value)


def test_a_clip_with_its_picture_half_is_a_text_model(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_clip(tmp_path, flux.text_encoder).path
    rewrite(
        path,
        {
            "vision_model.encoder.layers.0.mlp.fc1.weight": torch.ones(2, 2),
            "visual_projection.weight": torch.ones(2, 2),
        },
    )
    file = open_clip(path)
    assert set(file.weights.sizes) == set(dict(flux.text_encoder.named_parameters()))


def test_a_full_size_transformer_opens_as_the_published_one(tmp_path: Path) -> None:
    file = open_transformer(write_sparse(tmp_path / "a.safetensors", flux_shapes()))
    config = file.module.config
    assert (config.num_layers, config.num_single_layers) == (19, 38)
    assert (config.attention_head_dim, config.num_attention_heads) == (128, 24)
    assert tuple(config.axes_dims_rope) == (16, 56, 56)
    assert (config.joint_attention_dim, config.pooled_projection_dim) == (4096, 768)
    assert config.guidance_embeds
    assert sum(info.nbytes for info in file.weights.sizes.values()) == 23_804_782_720


def test_a_transformer_without_guidance_has_no_room_for_it(tmp_path: Path) -> None:
    shapes = flux_shapes(guidance=False, blocks=1)
    file = open_transformer(write_sparse(tmp_path / "a.safetensors", shapes))
    assert not file.module.config.guidance_embeds


def test_opening_leaves_torch_as_it_was(tmp_path: Path, flux: TinyFlux) -> None:
    opened(tmp_path, flux)
    assert not torch.nn.Linear(2, 2).weight.is_meta
