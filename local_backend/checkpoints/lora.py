"""Reads a LoRA (low-rank adaptation, Hu et al. 2021) of any layout for the diffusers transformer.

The factors are applied in quantization/linear.py, where each layer adds them to its output.

diffusers' own converters pass over what they do not know and take FLUX's full width for granted,
so the names are read here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nodes.errors import CheckpointError
from ..quantization.linear import LowRank
from .detect import Family, expect
from .key_maps import Rows
from .lora_keys import TEXT_PREFIXES, LoraLayers, foreign_kind, split_name
from .readers.open import open_tensors
from .readers.types import FLOAT_TYPES, FP8_TYPES, TensorFiles

_PEFT_SETTINGS = "lora_adapter_metadata"
_ENTRY = "x_embedder"


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA for one transformer.

    Attributes:
        targets: by the names of the transformer's modules.
        notes: what the user should know about the file.
    """

    targets: Mapping[str, LowRank]
    notes: tuple[str, ...]


def linear_layers(transformer: nn.Module) -> dict[str, nn.Linear]:
    """The layers a LoRA may be for, by their names in the transformer."""
    modules = transformer.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


# ComfyUI runs nodes in inference mode; weights made there could never be compiled.
@torch.inference_mode(False)
def open_lora(path: Path, layers: Mapping[str, nn.Linear]) -> Lora:
    """Reads a LoRA under the key names of PEFT, kohya, BFL or XLabs.

    Args:
        layers: those of the transformer that it must fit.

    Raises:
        ModelNotFoundError: the file is not there.
        CheckpointError: it is damaged, no LoRA, not only a LoRA, or one for another model.
    """
    files = open_tensors(path)
    expect(files, Family.LORA)
    return _Reader(files, layers).read()


class _Reader:
    def __init__(self, files: TensorFiles, layers: Mapping[str, nn.Linear]) -> None:
        self._files = files
        self._name = files.path.name
        self._linears = layers
        self._layers = LoraLayers(self._linears)
        self._settings = _peft_settings(files)
        self._targets: dict[str, LowRank] = {}
        self._notes: list[str] = []

    def read(self) -> Lora:
        text = [name for name in self._files.tensors if name.startswith(TEXT_PREFIXES)]
        if text:
            self._notes.append(f"its text encoder part ({len(text)} weights) is not used")
        layers = self._sort(sorted(self._files.tensors.keys() - set(text)))
        self._check_known(layers)
        for layer, factors in layers.items():
            self._add(layer, factors)
        if not self._targets:
            raise CheckpointError(
                f"{self._name} changes nothing but text encoders. Choose another."
            )
        return Lora(self._targets, tuple(self._notes))

    def _sort(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Layers by their names in the file -> down, up and alpha -> tensor names."""
        layers: dict[str, dict[str, str]] = {}
        zeros = 0
        for name in names:
            split = split_name(name)
            if split is not None:
                factors = layers.setdefault(split[0], {})
                if split[1] in factors:
                    raise CheckpointError(f"{self._name} has {split[0]} twice. Choose another.")
                factors[split[1]] = name
            elif ".diff" in name and not self._files.read(name).float().any():
                zeros += 1
            else:
                self._refuse(name)
        if zeros:
            self._notes.append(f"{zeros} of its weights are zero and change nothing")
        return layers

    def _refuse(self, name: str) -> None:
        kind = foreign_kind(name)
        if kind is None:
            raise CheckpointError(
                f"{self._name} holds {name}, which is no part of a LoRA. Choose another file."
            )
        raise CheckpointError(
            f"{self._name} is {kind}, which this pack cannot add. Choose a plain LoRA, or load it "
            "with ComfyUI's own loader and connect OneReward Model Backend."
        )

    def _check_known(self, layers: Mapping[str, object]) -> None:
        strangers = [layer for layer in layers if self._layers.find(layer) is None]
        if strangers and len(strangers) == len(layers):
            raise CheckpointError(
                f"{self._name} is a LoRA for another model; its layers have names such as "
                f"{strangers[0]}. Choose a LoRA for FLUX.1."
            )
        if strangers:
            count = "1 layer" if len(strangers) == 1 else f"{len(strangers)} layers"
            raise CheckpointError(
                f"{self._name} changes {count} that this transformer lacks, such as "
                f"{strangers[0]}. Choose a LoRA for FLUX.1."
            )

    def _add(self, layer: str, factors: Mapping[str, str]) -> None:
        place = self._layers.find(layer)
        assert place is not None, layer
        down, up = self._factor(layer, factors, "down"), self._factor(layer, factors, "up")
        if down.shape[0] != up.shape[1]:
            raise self._wrong(layer, f"ranks {down.shape[0]} and {up.shape[1]}")
        scale = self._scale(place.name, factors, down.shape[0])
        if scale != 1:
            up = up.float() * scale
        hidden = int(self._linears[_ENTRY].out_features)
        for part in place.parts(up.shape[0], hidden):
            rows = [up[start:stop] for start, stop in part.spans] or [up]
            piece = rows[0] if len(rows) == 1 else torch.cat(rows)
            self._put(layer, part, self._widened(part.module, down), piece)

    def _put(self, layer: str, part: Rows, down: Tensor, up: Tensor) -> None:
        linear = self._linears.get(part.module)
        if linear is None:
            raise self._wrong(layer, f"a change of {part.module}, which this transformer lacks")
        wanted = (linear.in_features, linear.out_features)
        if (down.shape[1], up.shape[0]) != wanted:
            found = f"{down.shape[1]} inputs and {up.shape[0]} outputs"
            raise self._wrong(layer, f"{found}, not {wanted[0]} and {wanted[1]}")
        if part.module in self._targets:
            raise self._wrong(layer, f"a second change of {part.module}")
        self._targets[part.module] = LowRank(down, up)

    def _factor(self, layer: str, factors: Mapping[str, str], factor: str) -> Tensor:
        if factor not in factors:
            raise self._wrong(layer, f"no {factor} factor")
        info = self._files.tensors[factors[factor]]
        tensor = self._files.read(factors[factor])
        if info.dtype not in FLOAT_TYPES | FP8_TYPES:
            raise self._wrong(layer, f"factors of the type {info.dtype}")
        if tensor.dim() < 2 or any(side != 1 for side in tensor.shape[2:]):
            raise self._wrong(layer, f"a {factor} factor of the shape {list(tensor.shape)}")
        tensor = tensor.flatten(1)
        return tensor.float() if info.dtype in FP8_TYPES else tensor

    def _scale(self, module: str, factors: Mapping[str, str], rank: int) -> float:
        """alpha / rank; without an alpha anywhere it is 1, as everybody takes it."""
        if "alpha" in factors:
            return float(self._files.read(factors["alpha"]).float().reshape(-1)[0]) / max(1, rank)
        try:
            return _peft_scale(self._settings, module, rank)
        except (re.error, TypeError, ValueError, AttributeError) as error:
            raise self._wrong(module, "a strength in its header that makes no sense") from error

    def _widened(self, module: str, down: Tensor) -> Tensor:
        """FLUX.1-dev's input is the first part of Fill's: such a LoRA leaves the rest alone."""
        width = int(self._linears[module].in_features) if module in self._linears else 0
        latent = int(self._linears["proj_out"].out_features)
        if module != _ENTRY or down.shape[1] != latent or width <= latent:
            return down
        self._notes.append(f"it was made for an input {latent} wide and changes only that part")
        return functional.pad(down, (0, width - latent))

    def _wrong(self, layer: str, what: str) -> CheckpointError:
        return CheckpointError(f"{layer} in {self._name} has {what}. Choose a LoRA for FLUX.1.")


def _peft_settings(files: TensorFiles) -> dict[str, Any]:
    """What PEFT wrote into the header about the transformer's part."""
    try:
        stored = json.loads(files.metadata.get(_PEFT_SETTINGS, "{}"))
        settings = {name.removeprefix("transformer."): value for name, value in stored.items()}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{files.path.name} describes itself in words that make no sense. Choose another file."
        ) from error
    return settings


def _peft_scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = settings.get("lora_alpha", rank)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
