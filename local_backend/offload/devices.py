"""Which device this machine has, what it computes in, and how much it holds. Light to import."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

import torch

# The smallest plan at 1 MP: two streamed blocks in 8 bits, activations, tiles of the VAE, reserve.
LEAST_FLUX_BYTES = 5 * 10**9


def comfy_management() -> Any | None:
    """ComfyUI's memory manager, if this is ComfyUI's process."""
    return sys.modules.get("comfy.model_management")


def pick_device() -> torch.device:
    """ComfyUI's device inside ComfyUI; else the machine's accelerator; else the CPU."""
    management = comfy_management()
    if management is not None:
        device: torch.device = management.get_torch_device()
        return device
    if torch.backends.mps.is_available():
        return torch.device("mps")
    for kind in ("cuda", "xpu"):
        module = torch.get_device_module(kind)
        if module.is_available():
            # with its number: asking for "the" device's free memory failed before torch 2.5
            return torch.device(kind, module.current_device())
    return torch.device("cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, as the authors compute, where the device is made for it; else float32."""
    if device.type == "cpu":
        return torch.float32
    management = comfy_management()
    if management is not None:
        return torch.bfloat16 if management.should_use_bf16(device) else torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return torch.bfloat16


def holds_fp8(device: torch.device) -> bool:
    """Whether tensors of 8-bit floats can lie there, to be computed with in another dtype."""
    return device.type != "mps"


def total_memory(device: torch.device) -> int:
    """Bytes of memory the device has; for the CPU, of the machine."""
    if device.type in ("cuda", "xpu"):
        return int(torch.get_device_module(device).get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def synchronize(device: torch.device) -> None:
    """Waits until all work submitted to the device is done."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


class StageTimer:
    """Adds the seconds of a block to a stage's timing, to the block's end on the device.

    Without a device the clock stops at once: the block waits for its device itself.
    """

    def __init__(
        self, timings: dict[str, float], stage: str, device: torch.device | None = None
    ) -> None:
        self._timings, self._stage, self._device = timings, stage, device

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._device is not None:
            synchronize(self._device)
        self._timings[self._stage] += perf_counter() - self._started


def empty_cache(device: torch.device) -> None:
    """Gives memory back that torch keeps for later: the device's, and page-locked memory of the
    machine, where this version of torch can.
    """
    if device.type == "cpu":
        return
    torch.get_device_module(device).empty_cache()
    empty_host_cache = getattr(torch._C, "_host_emptyCache", None)
    if device.type == "cuda" and empty_host_cache is not None:
        synchronize(device)  # what is still copied from cannot be given back
        empty_host_cache()


def can_run_flux() -> bool:
    """Whether there is an accelerator large enough for the smallest plan."""
    device = pick_device()
    return device.type != "cpu" and total_memory(device) >= LEAST_FLUX_BYTES
