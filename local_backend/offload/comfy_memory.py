"""ComfyUI's bookkeeping: our model parts as ModelPatcher objects of its model management.

ComfyUI then counts them, unloads other models for them, and unloads them for other models.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

from .memory_plan import NO_LIMIT
from .model_part import ModelPart
from .residency import Residency

logger = logging.getLogger("onereward")
_CPU = torch.device("cpu")


class OneRewardPart(nn.Module):
    """What ComfyUI takes for the model, and names in its log. The weights are not below it:
    ComfyUI must not move them one by one.
    """

    device = torch.device("cpu")


class PartPatcher(ModelPatcher):
    """A part as ComfyUI sees it: loaded as a whole, unloaded as a whole."""

    def __init__(self, part: ModelPart, device: torch.device) -> None:
        super().__init__(OneRewardPart(), device, torch.device("cpu"), size=1)
        self.part = part
        self.wanted = Residency()

    def model_size(self) -> int:
        return self.part.device_bytes or self.part.required_bytes(self.wanted)

    def loaded_size(self) -> int:
        return self.part.device_bytes

    def current_loaded_device(self) -> torch.device:
        device: torch.device = self.load_device if self.part.residency else self.offload_device
        return device

    def partially_load(
        self, device_to: torch.device, extra_memory: int = 0, force_patch_weights: bool = False
    ) -> int:
        before = self.part.device_bytes
        self.part.load(self.load_device, self.wanted)
        return self.part.device_bytes - before

    def partially_unload(
        self, device_to: torch.device, memory_to_free: int = 0, force_patch_weights: bool = False
    ) -> int:
        return 0  # so that ComfyUI asks for all of it, by detach

    def detach(self, unpatch_all: bool = True) -> nn.Module:
        self.part.unload()
        model: nn.Module = self.model
        return model


class ComfyMemory:
    """The device of a ComfyUI process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._patchers: dict[ModelPart, PartPatcher] = {}

    def budget(self) -> int:
        """What is free, and what ComfyUI's models hold, which it moves out if need be."""
        if self.device == _CPU:
            return NO_LIMIT
        loaded = sum(
            model.model_loaded_memory()
            for model in model_management.current_loaded_models
            if model.device == self.device and model.model is not None
        )
        free = model_management.get_free_memory(self.device)
        return int(free + loaded - model_management.extra_reserved_memory())

    def load(self, parts: Sequence[tuple[ModelPart, Residency]], work: int) -> None:
        for part, residency in parts:
            if part not in self._patchers:
                self._patchers[part] = PartPatcher(part, self.device)
            elif part.residency != residency:
                self.unload(part)  # what ComfyUI knows of it is wrong, or is about to be
            self._patchers[part].wanted = residency
        patchers = [self._patchers[part] for part, _ in parts]
        self._make_room(patchers, work)
        for patcher in patchers:
            if not _listed([patcher]):
                kind, size = type(patcher.part.module).__name__, patcher.model_size() / 1e9
                logger.info("OneReward loads %s, %.2f GB", kind, size)
                loaded = model_management.LoadedModel(patcher)
                loaded.model_load()
                model_management.current_loaded_models.insert(0, loaded)

    def _make_room(self, patchers: Sequence[PartPatcher], work: int) -> None:
        """Moves out as much as these lack, ours last. ComfyUI's own load_models_gpu would ask for a
        tenth more than a model takes, and for 0.8 GiB of work at least: on a card that a plan fills
        that moves out the transformer before each picture, and the VAE after it.
        """
        if self.device == _CPU:
            return  # nobody makes room there, where ComfyUI keeps what it moved out
        needed = work + sum(patcher.model_size() - patcher.loaded_size() for patcher in patchers)
        ours = _listed(self._patchers.values())
        reserve = model_management.extra_reserved_memory()
        model_management.free_memory(needed + reserve, self.device, keep_loaded=ours)
        if model_management.get_free_memory(self.device) < needed:  # somebody else has taken more
            these = _listed(patchers)
            model_management.free_memory(needed, self.device, keep_loaded=these)

    def unload(self, part: ModelPart) -> None:
        for loaded in _listed([self._patchers[part]] if part in self._patchers else []):
            model_management.current_loaded_models.remove(loaded)
            loaded.model_unload()
        part.unload()

    def recover(self) -> None:
        model_management.free_memory(1e30, self.device)
        model_management.soft_empty_cache()


def _listed(patchers: Collection[PartPatcher]) -> list[model_management.LoadedModel]:
    """ComfyUI's entries of those that are loaded."""
    entries = model_management.current_loaded_models
    return [entry for entry in entries if any(entry.model is patcher for patcher in patchers)]
