"""Whole files that are not quite the model: weights missing, unknown, of another shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes.layouts import write_clip, write_t5, write_transformer, write_vae
from fakes.refusals import refusal, rewrite
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from onereward_pack.local_backend.checkpoints.load import (
    ModelFile,
    open_clip,
    open_t5,
    open_transformer,
    open_vae,
)
from onereward_pack.nodes.errors import CheckpointError, ModelNotFoundError
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_missing_weights_are_counted_and_one_is_named(
    tmp_path: Path, flux: TinyFlux, layout: str
) -> None:
    path = write_transformer(tmp_path, flux.transformer, layout).path
    end = "linear2.bias" if layout == "bfl" else "proj_out.bias"
    single = "single_blocks" if layout == "bfl" else "single_transformer_blocks"
    rewrite(path, {}, [f"{single}.{block}.{end}" for block in (0, 1)])
    said = refusal(open_transformer, path)
    assert "2 weights missing, such as single_transformer_blocks.0.proj_out.bias" in said


def test_a_block_that_is_missing_is_noticed(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_transformer(tmp_path, flux.transformer, "bfl").path
    moved = {n: v for n, v in load_file(path).items() if n.startswith("double_blocks.1.")}
    rewrite(path, {n.replace(".1.", ".7.", 1): v for n, v in moved.items()}, moved)
    assert "weights unknown" in refusal(open_transformer, path)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("img_in.extra", "bfl"),
        ("double_blocks.0.img_attn.qkv.lora", "bfl"),
        ("transformer_blocks.0.attn.to_q.codebook", "diffusers"),
        ("model_ema.decay", "bfl_prefixed"),
    ],
)
def test_an_unknown_leftover_is_refused(
    tmp_path: Path, flux: TinyFlux, name: str, written: str
) -> None:
    path = write_transformer(tmp_path, flux.transformer, written).path
    rewrite(path, {name: torch.ones(2)})
    assert f"1 weight unknown, such as {name}" in refusal(open_transformer, path)


def test_a_weight_under_both_its_names_is_refused(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_transformer(tmp_path, flux.transformer, "bfl").path
    norm = "double_blocks.0.img_attn.norm.query_norm"
    rewrite(path, {f"{norm}.weight": torch.ones(32)})
    assert "1 weight unknown" in refusal(open_transformer, path)


@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_a_wrong_shape_is_named_with_both_shapes(
    tmp_path: Path, flux: TinyFlux, layout: str
) -> None:
    path = write_transformer(tmp_path, flux.transformer, layout).path
    name = "txt_in.bias" if layout == "bfl" else "context_embedder.bias"
    rewrite(path, {name: torch.ones(65)})
    assert "context_embedder.bias in" in refusal(open_transformer, path)
    assert "is [65], not [64]" in refusal(open_transformer, path)


def test_a_fused_weight_with_too_few_rows_is_refused(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_transformer(tmp_path, flux.transformer, "bfl").path
    name = "single_blocks.0.linear1.weight"
    for rows in (1, 64, 191, 300):
        rewrite(path, {name: torch.ones(rows, 64)})
        assert "not [" in refusal(open_transformer, path)


def test_a_folder_s_config_must_fit_its_weights(tmp_path: Path, flux: TinyFlux) -> None:
    folder = write_transformer(tmp_path, flux.transformer, "folder").path
    config = json.loads((folder / "config.json").read_text())
    for change in ({"joint_attention_dim": 80}, {"num_layers": 3}, {"num_single_layers": 1}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=r"not \[64, 80\]|weights (missing|unknown)"):
            open_transformer(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_layers": "many"}))
    with pytest.raises(CheckpointError, match="fit no model"):
        open_transformer(folder)


def test_a_folder_without_weights_or_config_is_said(tmp_path: Path, flux: TinyFlux) -> None:
    folder = write_transformer(tmp_path, flux.transformer, "folder").path
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "model.bin")
    with pytest.raises(ModelNotFoundError, match="no safetensors weights"):
        open_transformer(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"config\.json is not there"):
        open_transformer(folder)


def test_a_folder_of_two_models_asks_which(tmp_path: Path, flux: TinyFlux) -> None:
    folder = write_transformer(tmp_path, flux.transformer, "folder").path
    stored = folder / "diffusion_pytorch_model.safetensors"
    (folder / "one.safetensors").write_bytes(stored.read_bytes())
    stored.rename(folder / "two.safetensors")
    with pytest.raises(CheckpointError, match="holds 2 models"):
        open_transformer(folder)


def writers(folder: Path, flux: TinyFlux) -> dict[str, tuple[Path, Callable[[Path], ModelFile]]]:
    return {
        "transformer": (write_transformer(folder, flux.transformer).path, open_transformer),
        "t5": (write_t5(folder, flux.text_encoder_2).path, open_t5),
        "clip": (write_clip(folder, flux.text_encoder).path, open_clip),
        "diffusers vae": (write_vae(folder, flux.vae, "diffusers").path, open_vae),
    }


def test_each_model_is_refused_in_another_s_place(tmp_path: Path, flux: TinyFlux) -> None:
    written = writers(tmp_path, flux)
    for path, own in written.values():
        for _, opener in written.values():
            if opener is not own:
                assert "hoose" in refusal(opener, path)


@pytest.mark.parametrize("kind", ["transformer", "t5", "clip", "diffusers vae"])
def test_a_model_without_its_last_weight_or_with_one_more_is_refused(
    tmp_path: Path, flux: TinyFlux, kind: str
) -> None:
    path, opener = writers(tmp_path, flux)[kind]
    biases = {"t5": "encoder.final_layer_norm.weight", "transformer": "txt_in.bias"}
    last = biases.get(kind) or sorted(n for n in load_file(path) if n.endswith(".bias"))[-1]
    value = load_file(path)[last]
    rewrite(path, {"leftover.weight": torch.ones(1)})
    assert "1 weight unknown, such as leftover.weight" in refusal(opener, path)
    rewrite(path, {}, ["leftover.weight", last])
    assert "1 weight missing" in refusal(opener, path)
    rewrite(path, {last: value[:-1]})
    assert "not [" in refusal(opener, path)


def test_settings_that_shapes_cannot_give_are_an_error_of_the_file(
    tmp_path: Path, flux: TinyFlux
) -> None:
    path = write_t5(tmp_path, flux.text_encoder_2).path
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rewrite(path, {}, [bias])
    assert f"{bias} is missing" in refusal(open_t5, path)
