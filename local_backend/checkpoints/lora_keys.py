"""The names of a LoRA's tensors: which factor of which layer, and which FLUX layer that is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from .key_maps import Rows, bfl_modules, flux_modules

# Who wrote the file shows in the prefix; the layers below it are named as in one of two layouts.
_DOTTED_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
)
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
TEXT_PREFIXES = ("lora_te", "text_encoder.", "text_encoder_2.", "text_encoders.", "te1.", "te2.")

_FACTORS = (
    ("down", re.compile(r"(.+)\.lora_A(?:\.[^.]+)?\.weight")),
    ("up", re.compile(r"(.+)\.lora_B(?:\.[^.]+)?\.weight")),
    ("down", re.compile(r"(.+)\.lora_down(?:\.[^.]+)?\.weight")),
    ("up", re.compile(r"(.+)\.lora_up(?:\.[^.]+)?\.weight")),
    ("down", re.compile(r"(.+)\.lora\.down\.weight")),
    ("up", re.compile(r"(.+)\.lora\.up\.weight")),
    ("down", re.compile(r"(.+_lora[12]?)\.down\.weight")),
    ("up", re.compile(r"(.+_lora[12]?)\.up\.weight")),
    ("alpha", re.compile(r"(.+)\.alpha")),
)
# What a name contains that is more than two factors, or something else.
_FOREIGN = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".lokr_": "LoKr",
    ".hada_": "LoHa",
    ".oft_": "OFT",
    ".lora_mid.": "LoCon",
    ".on_input": "IA3",
    ".a1.weight": "GLoRA",
    ".lora_A.bias": "a LoRA with biases",
    ".lora_B.bias": "a LoRA with biases",
    ".lora_down.bias": "a LoRA with biases",
    ".lora_up.bias": "a LoRA with biases",
    ".diff": "a LoRA with changed biases or norms",
    ".w_norm": "a LoRA with changed biases or norms",
    ".b_norm": "a LoRA with changed biases or norms",
    ".set_weight": "a LoRA that replaces weights",
    ".reshape_weight": "a LoRA that changes shapes",
    ".scale": "a LoRA with changed biases or norms",
}
_XLABS = re.compile(r"(double|single)_blocks\.(\d+)\.processor\.(qkv|proj)_lora([12]?)")
_XLABS_LAYERS = {
    ("double", "qkv", "1"): "img_attn.qkv",
    ("double", "qkv", "2"): "txt_attn.qkv",
    ("double", "proj", "1"): "img_attn.proj",
    ("double", "proj", "2"): "txt_attn.proj",
    ("single", "qkv", ""): "linear1",
    ("single", "proj", ""): "linear2",
}


@dataclass(frozen=True)
class LoraLayer:
    """A layer of a transformer in one of the two layouts.

    Attributes:
        partial: its last fused rows are left alone (XLabs trains no MLP in linear1).
    """

    name: str
    bfl: bool
    partial: bool = False

    def parts(self, rows: int, hidden: int) -> tuple[Rows, ...]:
        """The diffusers modules that so many output rows belong to."""
        if not self.bfl:
            return (Rows(self.name),)
        parts = flux_modules(self.name, rows, hidden)
        if not self.partial:
            return parts
        return tuple(part for part in parts if all(b > a for a, b in part.spans))


class LoraLayers:
    """Finds the layers of one transformer by whatever name a LoRA gives them."""

    def __init__(self, linears: Mapping[str, nn.Module]) -> None:
        names = [name.split(".") for name in linears]
        doubles = 1 + max((int(n[1]) for n in names if n[0] == "transformer_blocks"), default=-1)
        singles = 1 + max(
            (int(n[1]) for n in names if n[0] == "single_transformer_blocks"), default=-1
        )
        self._layers = {name: LoraLayer(name, True) for name in bfl_modules(doubles, singles)}
        self._layers |= {name: LoraLayer(name, False) for name in linears}
        self._flat = {name.replace(".", "_"): place for name, place in self._layers.items()}

    def find(self, layer: str) -> LoraLayer | None:
        """The layer that a LoRA calls so; None if this transformer has no such layer."""
        for prefix in _FLAT_PREFIXES:
            if layer.startswith(prefix):
                return self._flat.get(layer.removeprefix(prefix))
        for prefix in _DOTTED_PREFIXES:
            layer = layer.removeprefix(prefix)
        return self._layers.get(layer) or self._find_xlabs(layer)

    def _find_xlabs(self, layer: str) -> LoraLayer | None:
        match = _XLABS.fullmatch(layer)
        if match is None:
            return None
        kind, number, what, side = match.groups()
        inner = _XLABS_LAYERS.get((kind, what, side), "")
        name = f"{kind}_blocks.{number}.{inner}"
        return LoraLayer(name, True, partial=True) if name in self._layers else None


def split_name(name: str) -> tuple[str, str] | None:
    """The layer and "down", "up" or "alpha"; None for a tensor of another purpose."""
    for factor, pattern in _FACTORS:
        match = pattern.fullmatch(name)
        if match is not None:
            return match[1], factor
    return None


def foreign_kind(name: str) -> str | None:
    """What kind of adapter has a tensor of this name, if it is a known one that is no LoRA."""
    for part, kind in _FOREIGN.items():
        if part in name:
            return kind
    return None
