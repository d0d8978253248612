"""Writers that store the parts of a tiny FLUX.1-Fill as others' files do, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    FluxFillPipeline,
    FluxTransformer2DModel,
)
from fakes.layouts_names import bfl_layers, from_bfl, to_bfl, to_ldm
from fakes.layouts_precision import Encoded, Precision, encode
from fakes.tiny_flux import TinyFlux, flux_components
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

FULL_PREFIX = "model.diffusion_model."
TransformerLayout = Literal["bfl", "bfl_prefixed", "diffusers", "folder", "shards"]
TRANSFORMER_LAYOUTS: tuple[TransformerLayout, ...] = (
    "bfl",
    "bfl_prefixed",
    "diffusers",
    "folder",
    "shards",
)


@dataclass(frozen=True, eq=False)
class Written:
    """A stored module.

    Attributes:
        path: what a user would choose.
        reference: float32 by the module's parameter names: what an exact reader gets.
    """

    path: Path
    reference: dict[str, Tensor]


def write_transformer(
    folder: Path,
    model: FluxTransformer2DModel,
    layout: TransformerLayout = "bfl",
    precision: Precision = "bfloat16",
) -> Written:
    """The transformer in one of TRANSFORMER_LAYOUTS; "shards" returns the index's path."""
    state = model.state_dict()
    # ComfyUI's older form knows no exceptions: it holds every layer in fp8.
    everywhere = precision in ("fp8_scaled", "fp8_scaled_input")
    if layout in ("bfl", "bfl_prefixed"):
        layers = [name for name in bfl_layers(state) if everywhere or "_blocks." in name]
        quantized = [f"{name}.weight" for name in layers]
        prefix = FULL_PREFIX if layout == "bfl_prefixed" else ""
        encoded = encode(to_bfl(state), precision, quantized, prefix)
        path = _save(folder / f"{layout}-{precision}.safetensors", encoded)
        return Written(path, from_bfl(encoded.dense, state))
    encoded = encode(state, precision, matrices(state, "" if everywhere else "transformer_blocks."))
    if layout == "diffusers":
        path = _save(folder / f"diffusers-{precision}.safetensors", encoded)
    elif layout == "folder":
        path = folder / f"transformer-{precision}"
        path.mkdir()
        model.save_config(path)
        _save(path / "diffusion_pytorch_model.safetensors", encoded)
    else:
        path = _save_shards(folder / f"shards-{precision}", encoded)
    return Written(path, encoded.dense)


def write_t5(
    folder: Path,
    model: T5EncoderModel,
    precision: Precision = "float16",
    embedding_copy: bool = False,
) -> Written:
    """The single file of ComfyUI; some files hold the embedding once more under its old name."""
    state = {k: v for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    encoded = encode(state, precision, matrices(state, "encoder.block."))
    if embedding_copy:
        encoded.tensors["encoder.embed_tokens.weight"] = encoded.tensors["shared.weight"].clone()
    return Written(_save(folder / f"t5xxl-{precision}.safetensors", encoded), encoded.dense)


def write_clip(
    folder: Path,
    model: CLIPTextModel,
    precision: Precision = "float16",
    extras: bool = True,
) -> Written:
    """The single file of ComfyUI: always under `text_model.`, whatever transformers calls it.

    Args:
        extras: with the tensors of the whole CLIP that some files keep, and that FLUX ignores.
    """
    state = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in _clip_state(model)}
    encoded = encode(state, precision, matrices(state, "text_model.encoder."))
    if extras:
        width = model.config.hidden_size
        encoded.tensors["text_projection.weight"] = torch.eye(width).to(torch.float16)
        encoded.tensors["logit_scale"] = torch.tensor(4.6052)
        encoded.tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    path = _save(folder / f"clip_l-{precision}.safetensors", encoded)
    return Written(path, _named_like(model, encoded.dense))


def _clip_state(model: CLIPTextModel) -> list[tuple[str, Tensor]]:
    return [
        (name, value) for name, value in model.state_dict().items() if value.is_floating_point()
    ]


def _named_like(model: nn.Module, dense: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Newer transformers have no `text_model.` in the names of a CLIPTextModel."""
    names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in _names(model)}
    return {name: dense[stored] for name, stored in names.items()}


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def write_vae(
    folder: Path,
    model: AutoencoderKL,
    names: Literal["ldm", "diffusers", "folder"] = "ldm",
    precision: Precision = "float32",
) -> Written:
    """ae.safetensors in ldm's names, a single file in diffusers' names, or a folder."""
    state = model.state_dict()
    dense = encode(state, precision).dense
    stored = encode(to_ldm(state) if names == "ldm" else state, precision)
    if names == "folder":
        path = folder / f"vae-{precision}"
        path.mkdir()
        model.save_config(path)
        _save(path / "diffusion_pytorch_model.safetensors", stored)
        return Written(path, dense)
    file = "ae" if names == "ldm" else "vae"
    return Written(_save(folder / f"{file}-{precision}.safetensors", stored), dense)


def write_pipeline(folder: Path, flux: TinyFlux) -> Path:
    """A whole diffusers pipeline folder, as `FluxFillPipeline.save_pretrained` writes it."""
    FluxFillPipeline(**flux_components(flux).pipeline_arguments()).save_pretrained(folder)
    return folder


def matrices(state: Mapping[str, Tensor], inside: str) -> list[str]:
    """The weights that quantisers take: matrices with this in their names, but no embeddings."""
    return [
        key
        for key, value in state.items()
        if value.dim() == 2 and inside in key and "relative_attention" not in key
    ]


def _save(path: Path, encoded: Encoded) -> Path:
    tensors = {key: value.contiguous() for key, value in encoded.tensors.items()}
    save_file(tensors, path, {"format": "pt"} | encoded.metadata)
    return path


def _save_shards(folder: Path, encoded: Encoded, shards: int = 3) -> Path:
    folder.mkdir()
    keys = sorted(encoded.tensors)
    weight_map = {}
    for number in range(shards):
        name = f"diffusion_pytorch_model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {key: encoded.tensors[key] for key in keys[number::shards]}
        _save(folder / name, Encoded(part, encoded.metadata))
        weight_map |= dict.fromkeys(part, name)
    size = sum(value.nbytes for value in encoded.tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    return path
