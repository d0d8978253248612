"""The preview model's folder, and how it becomes components."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, T5EncoderModel
from transformers.utils import logging as transformers_logging

from ...nodes.errors import CheckpointError, ModelNotFoundError
from ..checkpoints.tokenizers import CLIPTokenizerFast, T5TokenizerFast
from .components import Components
from .latent_preview import load_latent_rgb

PREVIEW_FOLDER = Path(__file__).parents[1] / "preview_model"

# The preview model was trained on these numbers of text tokens; fewer are faster.
PREVIEW_TEXT_LENGTHS = (32, 64, 128, 512)

_MODELS = {
    "transformer": FluxTransformer2DModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": T5EncoderModel,
}
# the fast one by name: before transformers 5, CLIPTokenizer takes Chinese apart in another way
_TOKENIZERS: dict[str, Any] = {"tokenizer": CLIPTokenizerFast, "tokenizer_2": T5TokenizerFast}
_LATENT_RGB = "vae/latent_rgb.json"
_JSON_FILES = (
    "scheduler/scheduler_config.json",
    *(f"{part}/config.json" for part in _MODELS),
    *(f"{part}/tokenizer.json" for part in _TOKENIZERS),
    *(f"{part}/tokenizer_config.json" for part in _TOKENIZERS),
    _LATENT_RGB,
)
_WEIGHT_FILES = (
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
)


# ComfyUI runs nodes in inference mode; weights made there could never be compiled or trained on.
@torch.inference_mode(False)
def load_preview_model(folder: Path = PREVIEW_FOLDER) -> Components:
    """The preview model of this diffusers pipeline folder, float32 on the CPU.

    Raises:
        ModelNotFoundError: a file is missing.
        CheckpointError: a file is broken or belongs to another model.
    """
    stored = {name: _read_json(folder, name) for name in _JSON_FILES}
    for name in _WEIGHT_FILES:
        _existing(folder, name)
    with _no_progress_bars():
        models = {part: _load_model(kind, folder / part) for part, kind in _MODELS.items()}
    tokenizers = {
        part: kind.from_pretrained(folder / part, local_files_only=True)
        for part, kind in _TOKENIZERS.items()
    }
    return Components(
        **models,
        **tokenizers,
        scheduler_config=stored["scheduler/scheduler_config.json"],
        text_lengths=PREVIEW_TEXT_LENGTHS,
        latent_rgb=load_latent_rgb(folder / _LATENT_RGB, models["vae"].config.latent_channels),
    )


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ModelNotFoundError(f"{name} is missing from {folder}. Install the pack again.")
    return path


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = _existing(folder, name)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}. Install the pack again.") from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path} holds no JSON object. Install the pack again.")
    return stored


def _load_model(kind: Any, folder: Path) -> Any:
    try:
        model, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} does not load as {kind.__name__}: {error}") from error
    # both libraries fill what is missing with random numbers and go on
    strays = [*info["missing_keys"], *info["unexpected_keys"]]
    if strays:
        library = kind.__module__.partition(".")[0]
        version = sys.modules[library].__version__
        raise CheckpointError(
            f"{folder} does not load as {kind.__name__} of {library} {version}: "
            f"{len(strays)} weights missing or unknown, such as {strays[0]}. Install the pack "
            f"again; if it stays so, the pack does not know this version of {library} yet."
        )
    return model.eval().requires_grad_(False)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """A second's work needs no bar; the library's own setting is put back."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
