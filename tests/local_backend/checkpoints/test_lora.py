"""LoRAs in every trainer's words: the outputs of diffusers and PEFT, and refusals for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from fakes.layouts_lora import LoraNames, write_lora
from fakes.refusals import refusal, rewrite
from fakes.tiny_flux import tiny_flux_fill
from onereward_pack.local_backend.checkpoints.lora import Lora, linear_layers, open_lora
from safetensors.torch import load_file, save_file
from torch import Tensor

Q = "transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="module")
def transformer() -> FluxTransformer2DModel:
    return tiny_flux_fill().transformer


def output(model: FluxTransformer2DModel) -> Tensor:
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    result: Tensor = model(
        hidden_states=rand(1, 12, 384),
        encoder_hidden_states=rand(1, 5, 64),
        pooled_projections=rand(1, 64),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([1.0]),
        txt_ids=torch.zeros(5, 3),
        img_ids=torch.cat([torch.zeros(12, 1), torch.arange(24.0).view(12, 2)], dim=1),
        return_dict=False,
    )[0]
    return result


def with_lora(model: FluxTransformer2DModel, lora: Lora) -> FluxTransformer2DModel:
    model = deepcopy(model)
    for name, factors in lora.targets.items():
        weight = model.get_submodule(name).weight
        weight += factors.up.float() @ factors.down.float()
    return model


def with_peft(
    model: FluxTransformer2DModel, state: Mapping[str, Tensor], metadata: Any = None
) -> FluxTransformer2DModel:
    """What diffusers and PEFT make of the same tensors."""
    model = deepcopy(model)
    found, alphas = FluxPipeline.lora_state_dict(dict(state), return_alphas=True)
    model.load_lora_adapter(
        found, prefix="transformer", network_alphas=alphas, metadata=metadata, adapter_name="a"
    )
    return model


def agree(model: FluxTransformer2DModel, path: Path, state: Mapping[str, Tensor]) -> None:
    ours, theirs = (
        output(with_lora(model, open_lora(path, linear_layers(model)))),
        output(with_peft(model, state)),
    )
    assert (theirs - output(model)).abs().max() > 1e-2, "the LoRA changes nothing"
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_peft_keys_give_what_peft_gives(
    tmp_path: Path, transformer: FluxTransformer2DModel, alpha: float | None
) -> None:
    path = write_lora(tmp_path, transformer, "peft", alpha=alpha, outside=True).path
    agree(transformer, path, load_file(path))


@pytest.mark.parametrize("prefix", ["", "base_model.model.", "base_model.model.transformer."])
def test_peft_keys_mean_the_same_under_any_prefix(
    tmp_path: Path, transformer: FluxTransformer2DModel, prefix: str
) -> None:
    state = load_file(write_lora(tmp_path, transformer, "peft").path)
    renamed = {prefix + name.removeprefix("transformer."): value for name, value in state.items()}
    save_file(renamed, tmp_path / "a.safetensors")
    agree(transformer, tmp_path / "a.safetensors", state)


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("names", ["kohya", "bfl", "bfl_prefixed"])
def test_bfl_layers_give_what_diffusers_gives(
    tmp_path: Path, transformer: FluxTransformer2DModel, names: LoraNames, alpha: float | None
) -> None:
    path = write_lora(tmp_path, transformer, names, alpha=alpha).path
    # diffusers parts linear1 only at the full model's width
    rewrite(path, {}, [name for name in load_file(path) if "linear1" in name])
    kohya = {}
    for name, value in load_file(path).items():
        layer, dot, end = name.removeprefix("diffusion_model.").partition(".lora_")
        if not dot:
            layer, dot, end = name.removeprefix("diffusion_model.").rpartition(".alpha")
        layer = layer.replace(".", "_")
        end = end.replace("A.", "down.").replace("B.", "up.")
        kohya[f"lora_unet_{layer.removeprefix('lora_unet_')}{dot}{end}"] = value
    agree(transformer, path, kohya)


def test_xlabs_layers_give_what_diffusers_gives(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    path = write_lora(tmp_path, transformer, "xlabs").path
    rand = torch.Generator().manual_seed(1)
    single = "single_blocks.1.processor"
    extra = {
        f"{single}.qkv_lora.down.weight": torch.randn(4, 64, generator=rand),
        f"{single}.qkv_lora.up.weight": torch.randn(192, 4, generator=rand) * 0.1,
        f"{single}.proj_lora.down.weight": torch.randn(4, 320, generator=rand),
        f"{single}.proj_lora.up.weight": torch.randn(64, 4, generator=rand) * 0.1,
    }
    rewrite(path, extra)
    agree(transformer, path, load_file(path))
    assert (
        "single_transformer_blocks.1.proj_mlp"
        not in open_lora(path, linear_layers(transformer)).targets
    )


@pytest.mark.parametrize("names", ["kohya", "bfl_prefixed"])
def test_fused_layers_become_slices_that_share_one_factor(
    tmp_path: Path, transformer: FluxTransformer2DModel, names: LoraNames
) -> None:
    written = write_lora(tmp_path, transformer, names, outside=True)
    targets = open_lora(written.path, linear_layers(transformer)).targets
    assert set(targets) == set(written.deltas)
    for name, delta in written.deltas.items():
        assert torch.allclose(targets[name].up @ targets[name].down, delta, atol=1e-6), name
    block = "single_transformer_blocks.0"
    parts = [targets[f"{block}.{part}"] for part in ("attn.to_q", "attn.to_v", "proj_mlp")]
    assert len({part.down.data_ptr() for part in parts}) == 1


def test_peft_s_settings_in_the_header_count(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    state = load_file(write_lora(tmp_path, transformer, "peft").path)
    targets = sorted({name.split(".lora_")[0].removeprefix("transformer.") for name in state})
    for rslora in (False, True):
        settings = {
            "r": 4,
            "lora_alpha": 12,
            "alpha_pattern": {Q: 1, "norm1.linear": 6},
            "rank_pattern": {},
            "use_rslora": rslora,
            "target_modules": targets,
        }
        settings = {f"transformer.{name}": value for name, value in settings.items()}
        save_file(
            state, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(settings)}
        )
        ours = output(
            with_lora(
                transformer, open_lora(tmp_path / "a.safetensors", linear_layers(transformer))
            )
        )
        theirs = output(with_peft(transformer, state, settings))
        assert (ours - theirs).abs().max() < 1e-5
        plain = output(with_peft(transformer, state))
        assert (ours - plain).abs().max() > 1e-2


def factors(layer: str, inputs: int, outputs: int, rank: int = 2) -> dict[str, Tensor]:
    return {
        f"{layer}.lora_A.weight": torch.ones(rank, inputs),
        f"{layer}.lora_B.weight": torch.ones(outputs, rank),
    }


def opened(path: Path, model: FluxTransformer2DModel, tensors: dict[str, Tensor]) -> Lora:
    save_file(tensors, path / "a.safetensors")
    return open_lora(path / "a.safetensors", linear_layers(model))


def test_text_encoder_parts_are_left_out_and_said(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    layer = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    text = {
        f"{layer}.lora_down.weight": torch.ones(2, 8),
        f"{layer}.lora_up.weight": torch.ones(8, 2),
        f"{layer}.alpha": torch.tensor(1.0),
    }
    lora = opened(tmp_path, transformer, factors(Q, 64, 64) | text)
    assert set(lora.targets) == {Q}
    assert lora.notes == ("its text encoder part (3 weights) is not used",)


def test_zero_differences_are_left_out_and_said(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    zero = {"diffusion_model.img_in.diff_b": torch.zeros(64)}
    lora = opened(tmp_path, transformer, factors(Q, 64, 64) | zero)
    assert lora.notes == ("1 of its weights are zero and change nothing",)


def test_a_lora_of_dev_s_image_input_changes_the_first_part_of_fill_s(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    lora = opened(tmp_path, transformer, factors("x_embedder", 64, 64))
    down = lora.targets["x_embedder"].down
    assert down.shape == (2, 384)
    assert down[:, :64].all() and not down[:, 64:].any()
    assert lora.notes == ("it was made for an input 64 wide and changes only that part",)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_factors_of_any_precision_are_kept_or_widened(
    tmp_path: Path, transformer: FluxTransformer2DModel, dtype: torch.dtype
) -> None:
    tensors = {name: value.to(dtype) for name, value in factors(Q, 64, 64).items()}
    down = opened(tmp_path, transformer, tensors).targets[Q].down
    assert down.dtype == (torch.float32 if dtype == torch.float8_e4m3fn else dtype)


def test_the_transformer_is_not_changed(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    open_lora(write_lora(tmp_path, transformer).path, linear_layers(transformer))
    after = transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


KOHYA = "lora_unet_double_blocks_0_img_attn_qkv"
OTHER = "lora_unet_input_blocks_1_1_proj_in"
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "dora": ({f"{Q}.lora_magnitude_vector": torch.ones(64)}, "is DoRA, which"),
    "dora of kohya": ({f"{KOHYA}.dora_scale": torch.ones(192, 1)}, "is DoRA, which"),
    "lokr": ({f"{KOHYA}.lokr_w1": torch.ones(4, 4)}, "is LoKr, which"),
    "loha": ({f"{KOHYA}.hada_w1_a": torch.ones(4, 4)}, "is LoHa, which"),
    "bias": ({f"{Q}.lora_B.bias": torch.ones(64)}, "is a LoRA with biases"),
    "bias difference": (
        {"diffusion_model.img_in.diff_b": torch.ones(64)},
        "is a LoRA with changed biases or norms",
    ),
    "norm": (
        {"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(32)},
        "is a LoRA with changed biases or norms",
    ),
    "a stray": ({"lora.step": torch.ones(1)}, "holds lora.step, which is no part of a LoRA"),
    "another layer": (factors("transformer_blocks.7.attn.to_q", 64, 64), "changes 1 layer that"),
    "half": ({"proj_out.lora_A.weight": torch.ones(2, 64)}, "has no up factor"),
    "inputs": (factors("transformer_blocks.1.attn.to_q", 65, 64), "65 inputs and 64 outputs, not"),
    "outputs": (factors("proj_out", 64, 63), "64 inputs and 63 outputs, not 64 and 64"),
    "control input": (factors("x_embedder", 128, 64), "128 inputs and 64 outputs, not 384"),
    "fused": (factors("double_blocks.1.img_attn.qkv", 64, 190), "has 64 inputs and 62 outputs"),
    "no mlp": (factors("single_blocks.1.linear1", 64, 192), "64 inputs and 0 outputs, not"),
    "ranks": (
        factors("proj_out", 64, 64) | {"proj_out.lora_B.weight": torch.ones(64, 3)},
        "has ranks 2 and 3",
    ),
    "convolution": (
        factors("proj_out", 64, 64) | {"proj_out.lora_A.weight": torch.ones(2, 64, 3, 3)},
        "a down factor of the shape",
    ),
    "whole numbers": (
        factors("proj_out", 64, 64)
        | {"proj_out.lora_A.weight": torch.ones(2, 64, dtype=torch.int8)},
        "factors of the type I8",
    ),
    "one layer twice": (factors("double_blocks.0.img_attn.qkv", 64, 192), f"second change of {Q}"),
    "one factor twice": ({f"{Q}.lora_down.weight": torch.ones(2, 64)}, "twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_more_or_less_than_a_lora_is_refused(
    tmp_path: Path, transformer: FluxTransformer2DModel, case: str
) -> None:
    tensors, words = REFUSED[case]
    save_file(factors(Q, 64, 64) | tensors, tmp_path / "a.safetensors")
    assert words in refused(tmp_path / "a.safetensors", transformer)


def refused(path: Path, model: FluxTransformer2DModel) -> str:
    opener: Callable[[Path], object] = lambda path: open_lora(path, linear_layers(model))  # noqa: E731
    return refusal(opener, path, may_read=True)


def test_a_lora_for_another_model_is_refused(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    tensors = {
        f"{OTHER}.lora_down.weight": torch.ones(2, 64),
        f"{OTHER}.lora_up.weight": torch.ones(64, 2),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    said = refused(tmp_path / "a.safetensors", transformer)
    assert f"is a LoRA for another model; its layers have names such as {OTHER}" in said


def test_a_lora_of_text_encoders_alone_is_refused(
    tmp_path: Path, transformer: FluxTransformer2DModel
) -> None:
    save_file(factors("text_encoder.fc1", 8, 8), tmp_path / "a.safetensors")
    assert "changes nothing but text encoders" in refused(tmp_path / "a.safetensors", transformer)


def test_a_model_is_no_lora(tmp_path: Path, transformer: FluxTransformer2DModel) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    said = refused(tmp_path / "a.safetensors", transformer)
    assert "is a model of another kind; a LoRA for FLUX.1 is needed" in said


@pytest.mark.parametrize("words", ["{", "[]", '{"transformer.lora_alpha": "much"}'])
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, transformer: FluxTransformer2DModel, words: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(factors(Q, 64, 64), path, {"lora_adapter_metadata": words})
    assert "make no sense" in refused(path, transformer).replace("makes", "make")
