"""Our parts among ComfyUI's models: it counts them, moves others out of their way, and moves them
out of others' way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

from .parts import Fit, Part


class OneRewardPart(nn.Module):
    """What ComfyUI takes for the model, and names in its log. The weights are not below it:
    ComfyUI must not move them one by one.
    """

    device = torch.device("cpu")


class PartPatcher(ModelPatcher):
    """A part as ComfyUI sees it: loaded as a whole, unloaded as a whole."""

    def __init__(self, part: Part, device: torch.device) -> None:
        super().__init__(OneRewardPart(), device, torch.device("cpu"), size=1)
        self.part = part
        self.wanted = Fit()

    def model_size(self) -> int:
        return self.part.device_bytes or self.part.needs(self.wanted)

    def loaded_size(self) -> int:
        return self.part.device_bytes

    def current_loaded_device(self) -> torch.device:
        return self.load_device if self.part.fit else self.offload_device

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
        """With `unpatch_all` off, ComfyUI takes it off its list to put it there again: it stays."""
        if unpatch_all:
            self.part.unload()
        return self.model


class ComfyMemory:
    """The device of a ComfyUI process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._patchers: dict[Part, PartPatcher] = {}

    def budget(self) -> int:
        """What is free, and what ComfyUI's models hold, which it moves out if need be."""
        loaded = sum(
            model.model_loaded_memory()
            for model in model_management.current_loaded_models
            if model.device == self.device and model.model is not None
        )
        free = model_management.get_free_memory(self.device)
        return int(free + loaded - model_management.extra_reserved_memory())

    def load(self, parts: Sequence[tuple[Part, Fit]], work: int) -> None:
        for part, fit in parts:
            if part not in self._patchers:
                self._patchers[part] = PartPatcher(part, self.device)
            elif part.fit not in (None, fit):
                self.unload(part)  # what ComfyUI knows of its size is about to be wrong
            self._patchers[part].wanted = fit
        patchers = [self._patchers[part] for part, _ in parts]
        try:
            model_management.load_models_gpu(patchers, memory_required=work, force_full_load=True)
        except BaseException:  # an interruption, too: ComfyUI has crossed some off its list by now
            for part, _ in parts:
                self.unload(part)
            raise

    def unload(self, part: Part) -> None:
        patcher = self._patchers.get(part)
        for loaded in list(model_management.current_loaded_models):
            if patcher is not None and loaded.model is patcher:
                model_management.current_loaded_models.remove(loaded)
                loaded.model_unload()
        part.unload()

    def recover(self) -> None:
        model_management.free_memory(1e30, self.device)
        model_management.soft_empty_cache()
