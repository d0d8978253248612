"""Who may take how much of the device: alone in a process, or as one of ComfyUI's models."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ..pipeline.onereward import OneRewardPipeline
from .devices import comfy_management, empty_cache, total_memory
from .memory_plan import NO_LIMIT
from .model_part import Part
from .placement import Memory
from .residency import Fit

_OOM_WORDS = ("out of memory", "alloc_failed", "can't allocate memory")
_RESERVE = 600 * 10**6  # bytes for the device's own context and for what arithmetic forgets


class OwnMemory:
    """A device that nobody else in this process uses."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._parts: list[Part] = []

    def budget(self) -> int:
        """The free memory and what our own parts hold."""
        if self.device.type == "cpu":
            return NO_LIMIT
        held = sum(part.device_bytes for part in self._parts)
        return free_memory(self.device) + held - _RESERVE

    def load(self, parts: Sequence[tuple[Part, Fit]], work: int) -> None:
        for part, fit in parts:
            part.load(self.device, fit)
        self._parts = [p for p in self._parts if p.fit and p not in dict(parts)] + [*dict(parts)]

    def unload(self, part: Part) -> None:
        part.unload()

    def recover(self) -> None:
        gc.collect()
        empty_cache(self.device)


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated: what the driver has, and what torch keeps for later."""
    module = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):  # Apple's GPU shares the machine's memory
        return total_memory(torch.device("cpu")) // 2
    free, _ = module.mem_get_info(device)
    kept = module.memory_reserved(device) - module.memory_allocated(device)
    return int(free + kept)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left, in whoever's words: not every allocation is torch's."""
    known = getattr(comfy_management(), "is_oom", None)
    if known is not None and known(error):  # asked first: it also clears the driver's error
        return True
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(said in words for said in _OOM_WORDS)


def shared_memory(device: torch.device) -> Memory:
    """ComfyUI's bookkeeping inside ComfyUI; else the device is ours."""
    if comfy_management() is None:
        return OwnMemory(device)
    from .comfy_memory import ComfyMemory

    return ComfyMemory(device)


class PipelineOwner:
    """Holds at most one pipeline, and lets one run at a time use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._key: Hashable = None
        self._pipeline: OneRewardPipeline | None = None

    @contextmanager
    def pipeline(
        self, key: Hashable, build: Callable[[], OneRewardPipeline]
    ) -> Iterator[OneRewardPipeline]:
        """The pipeline of this key, built if it is not the one held, for this block alone."""
        with self._lock:
            if self._pipeline is None or key != self._key:
                self.unload()
                self._pipeline, self._key = build(), key
            yield self._pipeline

    def unload(self) -> None:
        """Lets go of the pipeline and its prompts, after the run that uses them."""
        with self._lock:
            if self._pipeline is not None:
                self._pipeline.placement.close()
            self._pipeline = self._key = None


OWNER = PipelineOwner()
