"""The preview backend: the small model that ships with the pack. It is not OneReward."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from ...nodes.contracts import Capabilities, EditRecipe, EditRequest, EditResult, ProgressSink
from ..offload.devices import pick_device
from ..pipeline.onereward import OneRewardPipeline
from ..pipeline.pipeline_cache import PIPELINE_CACHE
from ..pipeline.preview_components import PREVIEW_FOLDER, load_preview_model
from ..pipeline.validation import check_pixels, check_recipe


class PreviewBackend:
    """A Backend that paints with the preview model."""

    name = "preview model"
    # it was trained on sides from 192 to 320 pixels
    capabilities = Capabilities(
        max_pixels=256 * 256, min_side=256, max_aspect=5 / 3, note="not OneReward"
    )

    def __init__(self, folder: Path = PREVIEW_FOLDER) -> None:
        self._folder = folder

    def check(self, recipe: EditRecipe) -> None:
        """Raises InputError for a recipe the pipeline cannot honour. Loads nothing."""
        check_recipe(recipe)

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        """Any number of jobs may run: they cost nothing but time."""

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """Paints the masked pixels of one crop; see OneRewardPipeline.

        Raises:
            InputError: the request breaks a rule; nothing was loaded, unless it is the prompt's
                length, which only the tokenizer knows.
            ModelNotFoundError, CheckpointError: the model's files are missing or broken.
        """
        check_recipe(request)
        check_pixels(request)
        with PIPELINE_CACHE.pipeline(self._folder, self._build) as pipeline:
            return pipeline(request, progress)

    def _build(self) -> OneRewardPipeline:
        device = pick_device()
        with torch.inference_mode(False):  # so that moved weights are ordinary tensors, too
            components = load_preview_model(self._folder).to(device)
        return OneRewardPipeline(components, device)
