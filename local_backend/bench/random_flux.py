"""FLUX.1-Fill with random weights: as fast and as large as the real one, for kernels do not branch
on data. What it paints means nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any
from zlib import crc32

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from ..checkpoints.load import ModelFile
from ..checkpoints.module_weights import ModuleWeights, WeightInfo
from ..offload.flux_parts import FluxFiles
from ..pipeline.flux_components import ASSETS
from ..quantization.stored_weight import Stored

Settings = Mapping[str, Any]

SPREAD = 0.02  # of the weights; norms are ones, so that nothing fades away layer by layer
PARTS = ("transformer", "text_encoder", "text_encoder_2", "vae")
# What the files that most people have are stored in.
_STORED_IN = {
    "transformer": torch.bfloat16,
    "text_encoder": torch.float16,
    "text_encoder_2": torch.float16,
    "vae": torch.float32,
}
_TINY: dict[str, dict[str, Any]] = {
    "transformer": {
        "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32,
        "num_attention_heads": 8, "joint_attention_dim": 64, "pooled_projection_dim": 64,
        "axes_dims_rope": (4, 14, 14),
    },
    "text_encoder": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 1, "projection_dim": 64,
    },
    "text_encoder_2": {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 2},
    "vae": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
}  # fmt: skip


def published_settings(part: str) -> dict[str, Any]:
    """FLUX.1-Fill's own, of one of PARTS."""
    text = (ASSETS / part / "config.json").read_text(encoding="utf-8")
    settings: dict[str, Any] = json.loads(text)
    return settings


def tiny_settings(part: str) -> dict[str, Any]:
    """A FLUX.1-Fill of 8 million weights, to show on a CPU that everything runs."""
    return published_settings(part) | _TINY[part]


class RandomFlux:
    """Opens like files (see flux.open_files), any number of times, with the same weights."""

    def __init__(
        self, settings: Callable[[str], Settings], device: torch.device, *, keep: bool
    ) -> None:
        """Makes no weight yet.

        Args:
            device: where the weights are made.
            keep: they lie in the machine's memory from then on, as a mapped file's do, which
                streamed blocks need. Else they are made anew each time they are read: sooner than
                they could be copied, and what a model takes on the device is counted once.
        """
        self._settings, self._device, self._keep = settings, device, keep
        self._cached: dict[tuple[str, str], Tensor] = {}

    def open(self, *_: object) -> FluxFiles:
        """The four models."""
        transformer, clip, t5, vae = (self._file(part) for part in PARTS)
        return FluxFiles(transformer=transformer, t5=t5, clip=clip, vae=vae)

    def _file(self, part: str) -> ModelFile[Any]:
        module, dtype = _empty_module(part, self._settings(part)), _STORED_IN[part]
        shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        sizes = {
            name: WeightInfo(shape, dtype.itemsize * prod(shape), False)
            for name, shape in shapes.items()
        }

        def read(name: str) -> Stored:
            return Stored(self._weight(part, name, shapes[name]), shapes[name])

        return ModelFile(module, ModuleWeights(sizes, read))

    def _weight(self, part: str, name: str, shape: tuple[int, ...]) -> Tensor:
        if not self._keep:
            return _make_weight(part, name, shape, self._device)
        if (part, name) not in self._cached:
            self._cached[part, name] = _make_weight(part, name, shape, self._device).cpu()
        return self._cached[part, name]


def _make_weight(part: str, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    weight = torch.empty(shape, dtype=_STORED_IN[part], device=device)
    layer, _, leaf = name.rpartition(".")
    if leaf == "weight" and "norm" in layer.rpartition(".")[2]:
        return weight.fill_(1)
    generator = torch.Generator(device).manual_seed(crc32(f"{part}.{name}".encode()))
    return weight.normal_(0, SPREAD, generator=generator)


def _empty_module(part: str, settings: Settings) -> nn.Module:
    """On the meta device, frozen."""
    with torch.inference_mode(False), init_empty_weights(include_buffers=False):
        module = _MAKERS[part](dict(settings))
    return module.eval().requires_grad_(False)


def _make_t5(settings: dict[str, Any]) -> nn.Module:
    model = T5EncoderModel(T5Config.from_dict(settings))
    model.set_input_embeddings(model.shared)  # making it on the meta device unties them
    return model


_MAKERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "transformer": FluxTransformer2DModel.from_config,
    "vae": AutoencoderKL.from_config,
    "text_encoder": lambda settings: CLIPTextModel(CLIPTextConfig.from_dict(settings)),
    "text_encoder_2": _make_t5,
}
