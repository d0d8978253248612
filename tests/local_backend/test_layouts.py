"""The fakes' own conversions, against diffusers' and gguf's."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from diffusers.loaders import FluxLoraLoaderMixin
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from fakes.layouts import write_pipeline
from fakes.layouts_lora import LoraNames, write_lora
from fakes.layouts_names import from_bfl, to_bfl, to_ldm, to_llama
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from safetensors.torch import load_file
from torch import Tensor


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_diffusers_reads_the_bfl_names_back(
    flux: TinyFlux, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = flux.transformer.state_dict()
    split = torch.split

    def tiny_split(value: Tensor, rows: tuple[int, ...], dim: int) -> tuple[Tensor, ...]:
        # diffusers' conversion knows FLUX's own width only.
        return split(value, [64 * count // 3072 for count in rows], dim)

    monkeypatch.setattr(torch, "split", tiny_split)
    found = convert_flux_transformer_checkpoint_to_diffusers(to_bfl(state))
    same(found, state)


def test_the_bfl_names_lead_back(flux: TinyFlux) -> None:
    state = flux.transformer.state_dict()
    same(from_bfl(to_bfl(state), state), state)


def test_diffusers_reads_the_ldm_names_back(flux: TinyFlux) -> None:
    found = convert_ldm_vae_checkpoint(to_ldm(flux.vae.state_dict()), dict(flux.vae.config))
    same(found, flux.vae.state_dict())


def test_llama_names_are_those_of_gguf(flux: TinyFlux) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    state = {
        key: value
        for key, value in flux.text_encoder_2.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    expected = {f"{names.get_name(key.removesuffix('.weight'))}.weight" for key in state}
    assert set(to_llama(state)) == expected


def test_a_pipeline_folder_has_the_parts_of_flux(flux: TinyFlux, tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "pipeline", flux)
    assert {path.name for path in folder.iterdir()} == {
        "model_index.json",
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "transformer",
        "vae",
    }


@pytest.mark.parametrize(
    ("names", "alpha"),
    [("peft", None), ("peft", 2.0), ("peft_bare", 2.0), ("kohya", 2.0), ("xlabs", None)],
)
def test_diffusers_finds_the_same_change_in_a_lora(
    names: LoraNames, alpha: float | None, flux: TinyFlux, tmp_path: Path
) -> None:
    written = write_lora(tmp_path, flux.transformer, names, rank=4, alpha=alpha)
    stored = load_file(written.path)
    # diffusers parts this fused layer by FLUX's own width only.
    known = {key: value for key, value in stored.items() if "linear1" not in key}
    found, alphas = FluxLoraLoaderMixin.lora_state_dict(known, return_alphas=True)
    deltas = {}
    for key in found:
        layer, end, _ = key.partition(".lora_A.weight")
        if end:
            scale = float(alphas[f"{layer}.alpha"]) / 4 if alphas else 1
            delta = scale * found[f"{layer}.lora_B.weight"] @ found[key]
            deltas[layer.removeprefix("transformer.")] = delta
    missing = set(written.deltas) - set(deltas)
    assert names == "kohya" or not missing
    assert all("single" in layer and "proj_out" not in layer for layer in missing)
    for layer, delta in deltas.items():
        torch.testing.assert_close(delta, written.deltas[layer])
