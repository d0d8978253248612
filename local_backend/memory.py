"""Owns the one loaded pipeline and picks its device; the only module that knows comfy's memory."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .checkpoints.preview import load_preview_model
from .pipeline import OneRewardPipeline

logger = logging.getLogger("onereward")


def pick_device() -> torch.device:
    """ComfyUI's device inside ComfyUI; else the machine's accelerator; else the CPU."""
    management = sys.modules.get("comfy.model_management")
    if management is not None:
        device: torch.device = management.get_torch_device()
        return device
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


class PipelineOwner:
    """Holds at most one pipeline, and lets one run at a time use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._folder: Path | None = None
        self._pipeline: OneRewardPipeline | None = None

    @contextmanager
    def pipeline(self, folder: Path) -> Iterator[OneRewardPipeline]:
        """The pipeline of this folder, loaded if it is not the one held, for this block alone."""
        with self._lock:
            if self._pipeline is None or folder != self._folder:
                self.unload()
                self._pipeline, self._folder = _load(folder), folder
            yield self._pipeline

    def unload(self) -> None:
        """Lets go of the pipeline and its prompts, after the run that uses them."""
        with self._lock:
            self._pipeline = self._folder = None


OWNER = PipelineOwner()


def _load(folder: Path) -> OneRewardPipeline:
    device = pick_device()
    logger.info("loading %s on %s", folder.name, device)
    with torch.inference_mode(False):  # so that moved weights are ordinary tensors, too
        components = load_preview_model(folder).to(device)
    return OneRewardPipeline(components, device)
