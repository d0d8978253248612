"""What is measured: the preview model, FLUX.1-Fill with random weights, or the user's own files."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...nodes.errors import InputError
from ..backends.flux import LocalBackend
from ..backends.preview import PreviewBackend
from ..checkpoints.model_paths import ModelPaths
from ..checkpoints.select import find_models, installed_models
from ..offload.device_memory import free_memory
from ..offload.devices import compute_dtype, empty_cache
from ..offload.flux_parts import FluxFiles, open_files
from ..offload.memory_plan import GB
from ..pipeline.components import FLUX_TEXT_LENGTHS, Components
from ..pipeline.pipeline_cache import PIPELINE_CACHE
from ..pipeline.preview_components import PREVIEW_TEXT_LENGTHS, load_preview_model
from .configurations import Configuration
from .measure import Paint
from .options import Options
from .random_flux import RandomFlux, published_settings, tiny_settings
from .reference import Reference, plain_components

_RESIDENT = 40 * GB  # free on a card, all of the pipeline lies there
_FLUX_SIZE, _PREVIEW_SIZE, _TINY_SIZE = 1024, 256, 64


@dataclass(frozen=True, kw_only=True, eq=False)
class TestedModel:
    """A model, and the ways to paint with it.

    Attributes:
        title: what it is, for the report.
        size: a side of the picture, in pixels, where the user names none.
        text_tokens: what the transformer reads of the benchmark's prompt.
        painted: whether the pictures mean anything.
        together: all painters may lie on the device at once, so that their runs can take turns.
        plain: makes the plain pipeline's models.
        files: of a model whose precision and compilation can be chosen.
        opened: opens them.
    """

    title: str
    device: torch.device
    size: int
    text_tokens: int = FLUX_TEXT_LENGTHS[0]
    painted: bool = True
    together: bool = False
    plain: Callable[[], Components]
    files: ModelPaths | None = None
    opened: Callable[[ModelPaths], FluxFiles] = open_files

    @contextmanager
    def painter(self, config: Configuration) -> Iterator[Paint]:
        """Paints as configured. The backend's models stay on the device between configurations, as
        they do between a user's edits. The plain pipeline is freed after the block, if the caller
        keeps no reference to its painter.
        """
        gc.collect()  # of the plain pipeline before
        empty_cache(self.device)
        if config.level is not None:
            yield self._backend(config).run
            return
        if not self.together:
            PIPELINE_CACHE.unload()
        yield Reference(self.plain(), self.device).run

    def _backend(self, config: Configuration) -> PreviewBackend | LocalBackend:
        if self.files is None:
            return PreviewBackend()
        return LocalBackend(replace(self.files, **config.files), self.title, self.opened)


def choose_model(options: Options, device: torch.device) -> TestedModel:
    """The files of --models. Else, for "auto": the OneReward files of the ComfyUI that the pack is
    installed in, if there are any; else random weights of full size, if there is an accelerator;
    else the preview model.

    Raises:
        InputError: both a folder and another kind of weights, or a kind that the device cannot run.
        ModelNotFoundError: the folder lacks a part.
    """
    model = _choose(options, device)
    if options.attention == Options.attention:
        return model
    if model.files is None:
        raise InputError("The preview model has torch's own attention. Leave --attention out.")
    return replace(model, files=replace(model.files, attention=options.attention))


def _choose(options: Options, device: torch.device) -> TestedModel:
    if options.models is not None:
        if options.weights != "auto":
            raise InputError(f"--models and --weights {options.weights}: give one of them.")
        return files_model(find_models(options.models), device)
    if options.weights == "auto" and device.type != "cpu":
        installed = installed_models()
        if installed is not None:
            return files_model(installed, device)
    if options.weights == "preview" or (options.weights == "auto" and device.type == "cpu"):
        return preview_model(device)
    return random_model(device, tiny=options.weights == "tiny")


def preview_model(device: torch.device) -> TestedModel:
    """The model that ships with the pack."""

    def plain() -> Components:
        with torch.inference_mode(False):
            return load_preview_model().to(device)

    together = device.type == "cpu"  # elsewhere the memory of both would be counted as one
    return TestedModel(
        title="preview model",
        device=device,
        size=_PREVIEW_SIZE,
        text_tokens=PREVIEW_TEXT_LENGTHS[0],
        together=together,
        plain=plain,
    )


def files_model(files: ModelPaths, device: torch.device) -> TestedModel:
    """The user's own FLUX.1-Fill."""
    name = files.transformer.name
    return _flux(name, device, files, open_files, size=_FLUX_SIZE, painted=True)


def random_model(device: torch.device, *, tiny: bool) -> TestedModel:
    """FLUX.1-Fill with random weights.

    Raises:
        InputError: full size, and no accelerator to make it on.
    """
    settings, title = published_settings, "FLUX.1-Fill of full size, random weights"
    if tiny:
        settings, title = tiny_settings, "a tiny FLUX.1-Fill, random weights"
    elif device.type == "cpu":
        raise InputError(
            "FLUX.1-Fill of full size would take hours on a CPU. Use --weights preview or tiny."
        )
    keep = device.type == "cpu" or free_memory(device) < _RESIDENT
    flux, nowhere = RandomFlux(settings, device, keep=keep), Path(title)
    files = ModelPaths(
        transformer=nowhere, text_encoder=nowhere, text_encoder_2=nowhere, vae=nowhere
    )
    size = _TINY_SIZE if tiny else _FLUX_SIZE
    return _flux(title, device, files, flux.open, size=size, painted=False)


def _flux(
    title: str,
    device: torch.device,
    files: ModelPaths,
    opened: Callable[[ModelPaths], FluxFiles],
    *,
    size: int,
    painted: bool,
) -> TestedModel:
    def plain() -> Components:
        return plain_components(opened(files), device, compute_dtype(device))

    return TestedModel(
        title=title,
        device=device,
        size=size,
        painted=painted,
        plain=plain,
        files=files,
        opened=opened,
    )
