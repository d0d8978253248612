"""Device memory: how much of the VRAM the pipeline may take, alone or beside ComfyUI's models."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

import torch

from .devices import comfy_management, empty_cache, total_memory
from .memory_plan import NO_LIMIT
from .model_part import ModelPart
from .residency import Residency

_OOM_TEXTS = ("out of memory", "alloc_failed", "can't allocate memory")
_RESERVE = 600 * 10**6  # bytes for the device's own context and for what estimates leave out
_STEP_DOWN = 0.9  # of the memory that was not there
_CORRECTED_FOR = 600.0  # seconds


class DeviceMemory(Protocol):
    """A device's memory, shared with others or not."""

    device: torch.device

    def budget(self) -> int:
        """Bytes that our parts and their activations may take together."""

    def load(self, parts: Sequence[tuple[ModelPart, Residency]], work: int) -> None:
        """Brings these parts onto the device together, with `work` bytes left for activations."""

    def unload(self, part: ModelPart) -> None:
        """Takes a part off the device."""

    def recover(self) -> None:
        """After an allocation failed: give back all that is cached."""


class OwnMemory:
    """A device that nobody else in this process uses."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._parts: list[ModelPart] = []

    def budget(self) -> int:
        """The free memory and what our own parts hold."""
        if self.device.type == "cpu":
            return NO_LIMIT
        held = sum(part.device_bytes for part in self._parts)
        return free_memory(self.device) + held - _RESERVE

    def load(self, parts: Sequence[tuple[ModelPart, Residency]], work: int) -> None:
        for part, residency in parts:
            part.load(self.device, residency)
        self._parts = [p for p in self._parts if p.residency and p not in dict(parts)] + [
            *dict(parts)
        ]

    def unload(self, part: ModelPart) -> None:
        part.unload()

    def recover(self) -> None:
        gc.collect()
        empty_cache(self.device)


class Budget:
    """A device's budget, corrected after it ran out of memory: it had less than it reported, often
    because of another process that is gone a while later.
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self._limit: int | None = None  # the correction
        self._reported, self._corrected = 0, 0.0

    def bytes(self) -> int:
        """What the memory reports, or the correction as long as it holds."""
        reported = self._memory.budget()
        more = reported > 1.1 * self._reported
        if self._limit is None or more or monotonic() - self._corrected > _CORRECTED_FOR:
            self.reset()
            return reported
        return min(reported, self._limit)

    def reduce(self, peak: int | None) -> None:
        """After an allocation failed: less than the plan's peak, if there was a plan; a LoRA may be
        too much before there is one.
        """
        self._reported, self._corrected = self._memory.budget(), monotonic()
        most = self._reported if peak is None else min(self._reported, peak)
        self._limit = int(most * _STEP_DOWN)

    def reset(self) -> None:
        """Drops the correction: the budget is what the memory reports."""
        self._limit = None


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated: what the driver has, and what torch caches."""
    module = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):  # Apple's GPU shares the machine's memory
        return total_memory(torch.device("cpu")) // 2
    free, _ = module.mem_get_info(device)
    cached = module.memory_reserved(device) - module.memory_allocated(device)
    return int(free + cached)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error, of torch or of any other library, says that a device's memory is full."""
    known = getattr(comfy_management(), "is_oom", None)
    if known is not None and known(error):  # asked first: it also clears the driver's error
        return True
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(part in message for part in _OOM_TEXTS)


def shared_memory(device: torch.device) -> DeviceMemory:
    """ComfyUI's bookkeeping inside ComfyUI; else the device is ours."""
    if comfy_management() is None:
        return OwnMemory(device)
    from .comfy_memory import ComfyMemory

    return ComfyMemory(device)
