"""Writers of LoRA files for a FLUX transformer, in the names of the common trainers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import FluxTransformer2DModel
from fakes.layouts_names import SWAPPED, bfl_layers
from safetensors.torch import save_file
from torch import Tensor

LoraNames = Literal["peft", "peft_bare", "kohya", "bfl", "bfl_prefixed", "xlabs"]
LORA_NAMES: tuple[LoraNames, ...] = (
    "peft",
    "peft_bare",
    "kohya",
    "bfl",
    "bfl_prefixed",
    "xlabs",
)
XLABS = {
    "img_attn.qkv": "processor.qkv_lora1",
    "txt_attn.qkv": "processor.qkv_lora2",
    "img_attn.proj": "processor.proj_lora1",
    "txt_attn.proj": "processor.proj_lora2",
}


@dataclass(frozen=True, eq=False)
class WrittenLora:
    """A stored LoRA.

    Attributes:
        deltas: what it adds, at strength 1, to the weight of each diffusers layer, as float32.
    """

    path: Path
    deltas: dict[str, Tensor]


def write_lora(
    folder: Path,
    model: FluxTransformer2DModel,
    names: LoraNames = "peft",
    rank: int = 4,
    alpha: float | None = None,
    outside: bool = False,
    seed: int = 0,
) -> WrittenLora:
    """A random LoRA on the blocks' layers (xlabs: on the attention of double blocks).

    Args:
        alpha: stored beside every layer and counted into the deltas; None stores none, as xlabs.
        outside: also on the layers outside the blocks, the final modulation among them, whose
            halves BFL keeps the other way round. Not for xlabs.
    """
    state = model.state_dict()
    generator = torch.Generator().manual_seed(seed)
    tensors, deltas = {}, {}
    for layer, parts in _layers(model, names, outside).items():
        sizes = [len(state[f"{part}.weight"]) for part in parts]
        columns = state[f"{parts[0]}.weight"].shape[1]
        down = torch.randn(rank, columns, generator=generator) / columns**0.5
        up = torch.randn(sum(sizes), rank, generator=generator) * 0.1
        tensors |= _stored(layer, names, down, up, alpha)
        delta = up @ down * (1 if alpha is None else alpha / rank)
        if layer == SWAPPED:
            delta = torch.cat(delta.chunk(2)[::-1])
        deltas |= dict(zip(parts, delta.split(sizes), strict=True))
    path = folder / f"lora-{names}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return WrittenLora(path, deltas)


def _layers(
    model: FluxTransformer2DModel, names: LoraNames, outside: bool
) -> dict[str, tuple[str, ...]]:
    """The file's layers and the diffusers layers in each."""
    layers = bfl_layers(model.state_dict())
    layers = {layer: parts for layer, parts in layers.items() if outside or "_blocks." in layer}
    if names.startswith("peft"):
        return {part: (part,) for parts in layers.values() for part in parts}
    if names == "xlabs":
        return {layer: parts for layer, parts in layers.items() if _inside(layer) in XLABS}
    return layers


def _inside(layer: str) -> str:
    return layer.split(".", 2)[-1]


def _stored(
    layer: str, names: LoraNames, down: Tensor, up: Tensor, alpha: float | None
) -> dict[str, Tensor]:
    if names == "kohya":
        stem, ends = f"lora_unet_{layer.replace('.', '_')}", ("lora_down", "lora_up")
    elif names == "xlabs":
        block = layer.removesuffix(_inside(layer))
        stem, ends = block + XLABS[_inside(layer)], ("down", "up")
    else:
        prefix = {"peft": "transformer.", "bfl_prefixed": "diffusion_model."}.get(names, "")
        stem, ends = prefix + layer, ("lora_A", "lora_B")
    tensors = {f"{stem}.{ends[0]}.weight": down, f"{stem}.{ends[1]}.weight": up}
    if alpha is not None:
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors
