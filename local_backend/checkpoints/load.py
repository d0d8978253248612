"""Opens the four models of a FLUX.1-Fill pipeline from the files that people have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from ...nodes.errors import CheckpointError, ModelNotFoundError
from .configs import Shapes, clip_config, t5_config, transformer_config, vae_config
from .detect import Family, expect
from .key_maps import (
    OTHER_PREFIXES,
    TRANSFORMER_PREFIXES,
    VAE_PREFIXES,
    flux_modules,
    renamed,
    split_parameter,
    t5_name,
    without_prefix,
)
from .module_weights import (
    Model,
    ModelFile,
    ModuleWeights,
    Slice,
    Source,
    WeightInfo,
    bind,
    shapes_at,
)
from .readers.open import INDEX_SUFFIX, open_tensors, read_json
from .readers.types import TensorFiles
from .vae_keys import autoencoder_slices

__all__ = [
    "ModelFile",
    "ModuleWeights",
    "WeightInfo",
    "open_clip",
    "open_t5",
    "open_transformer",
    "open_vae",
]

_WEIGHT_NAMES = ("diffusion_pytorch_model", "model")

# Tensors that are in many files and carry nothing: a second copy of the vocabulary, the tokenizer,
# what compares text with pictures, a row of numbers that counts from 0.
_IGNORED_T5 = frozenset({"encoder.embed_tokens.weight", "spiece_model", "logit_scale"})
_IGNORED_CLIP = frozenset(
    {
        "text_projection",
        "text_projection.weight",
        "logit_scale",
        "embeddings.position_ids",
        "visual_projection.weight",
    }
)
_CLIP_VISION = "vision_model."


@dataclass(frozen=True)
class _Opened:
    files: TensorFiles
    config: dict[str, Any] | None

    def settings(self, infer: Callable[[Shapes, Path], dict[str, Any]], shapes: Shapes) -> Any:
        """The folder's own settings, or those that the shapes tell."""
        return infer(shapes, self.files.path) if self.config is None else self.config


def open_transformer(path: Path) -> ModelFile[FluxTransformer2DModel]:
    """FLUX.1-Fill: a file or index in diffusers' or BFL's names, or a diffusers folder.

    Raises:
        ModelNotFoundError: the file is not there.
        CheckpointError: it is damaged or something else; found before any weight is read.
        MissingDependencyError: it is a GGUF file and the gguf package is not installed.
    """
    opened = _open(path, Family.FLUX_FILL)
    others = (*VAE_PREFIXES, *OTHER_PREFIXES)
    key_map = without_prefix(opened.files.tensors, TRANSFORMER_PREFIXES, others)
    source = Source(opened.files, key_map)
    slices, unknown = _transformer_slices(source)
    config = opened.settings(transformer_config, shapes_at(source, slices))
    module: FluxTransformer2DModel = _skeleton(
        lambda: FluxTransformer2DModel.from_config(config), path
    )
    return bind(module, source, slices, unknown)


def open_t5(path: Path) -> ModelFile[T5EncoderModel]:
    """The T5 encoder: a file or index in transformers' or llama.cpp's names, or a folder.

    Raises: as open_transformer.
    """
    opened = _open(path, Family.T5)
    key_map = renamed({name: name for name in opened.files.tensors}, t5_name)
    if "shared.weight" not in key_map and "encoder.embed_tokens.weight" in key_map:
        key_map["shared.weight"] = key_map.pop("encoder.embed_tokens.weight")
    source = Source(opened.files, _without(key_map, _IGNORED_T5))
    config = opened.settings(t5_config, _shapes(source))

    def make() -> T5EncoderModel:
        model = T5EncoderModel(T5Config.from_dict(config))
        model.set_input_embeddings(model.shared)  # one vocabulary, whatever the settings say
        return model

    return bind(_skeleton(make, path), source, {n: Slice(n) for n in source.tensors}, ())


def open_clip(path: Path) -> ModelFile[CLIPTextModel]:
    """CLIP-L's text model: a file or index in transformers' names, or a folder.

    Raises: as open_transformer.
    """
    opened = _open(path, Family.CLIP)
    plain = {name: name for name in opened.files.tensors if not name.startswith(_CLIP_VISION)}
    key_map = renamed(plain, lambda name: name.removeprefix("text_model."))
    source = Source(opened.files, _without(key_map, _IGNORED_CLIP))
    config = opened.settings(clip_config, _shapes(source))
    module = _skeleton(lambda: CLIPTextModel(CLIPTextConfig.from_dict(config)), path)
    # older versions of transformers keep the text model below "text_model."
    inner = any(name.startswith("text_model.") for name, _ in module.named_parameters())
    prefix = "text_model." if inner else ""
    return bind(module, source, {prefix + name: Slice(name) for name in source.tensors}, ())


def open_vae(path: Path) -> ModelFile[AutoencoderKL]:
    """FLUX's autoencoder: a file or index in BFL's or diffusers' names, or a diffusers folder.

    Raises: as open_transformer.
    """
    opened = _open(path, Family.VAE)
    others = (*TRANSFORMER_PREFIXES, *OTHER_PREFIXES)
    key_map = without_prefix(opened.files.tensors, VAE_PREFIXES, others)
    source = Source(opened.files, key_map)
    slices, unknown = autoencoder_slices(source)
    config = opened.settings(vae_config, shapes_at(source, slices))
    module: AutoencoderKL = _skeleton(lambda: AutoencoderKL.from_config(config), path)
    return bind(module, source, slices, unknown)


def _open(path: Path, family: Family) -> _Opened:
    config = None
    if path.is_dir():
        config, path = read_json(path / "config.json"), _weights_in(path)
    files = open_tensors(path)
    expect(files, family)
    return _Opened(files, config)


def _weights_in(folder: Path) -> Path:
    for suffix in (".safetensors", INDEX_SUFFIX):
        for name in _WEIGHT_NAMES:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    for pattern in (f"*{INDEX_SUFFIX}", "*.safetensors"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise CheckpointError(
                f"{folder} holds {len(found)} models, such as {found[0].name}. "
                "Choose one of the files."
            )
    raise ModelNotFoundError(f"There are no safetensors weights in {folder}. Download it again.")


def _transformer_slices(source: Source) -> tuple[dict[str, Slice], list[str]]:
    if "img_in.weight" not in source.tensors:
        return {name: Slice(name) for name in source.tensors}, []
    hidden = source.tensors["img_in.weight"].shape[0]
    slices: dict[str, Slice] = {}
    unknown = []
    for name, info in source.tensors.items():
        module, parameter = split_parameter(name)
        parts = flux_modules(module, info.shape[0] if info.shape else 0, hidden)
        targets = {f"{part.module}.{parameter}": Slice(name, part.spans) for part in parts}
        if not parts or targets.keys() & slices.keys():
            unknown.append(name)
        slices |= targets
    return slices, unknown


def _skeleton(make: Callable[[], Model], path: Path) -> Model:
    """A model on the meta device, frozen; CheckpointError if its settings fit no model."""
    try:
        # ComfyUI runs nodes in inference mode; parameters made there stay marked for it
        with torch.inference_mode(False), init_empty_weights(include_buffers=False):
            module = make()
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"The settings of {path.name} fit no model: {error}. Choose another file."
        ) from error
    return module.eval().requires_grad_(False)


def _shapes(source: Source) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in source.tensors.items()}


def _without(key_map: Mapping[str, str], ignored: frozenset[str]) -> dict[str, str]:
    return {name: stored for name, stored in key_map.items() if name not in ignored}
