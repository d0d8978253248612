"""Which device this machine has, what it computes in, and how much it holds. Light to import."""

from __future__ import annotations

import sys
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
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


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


def total_memory(device: torch.device) -> int:
    """Bytes of memory the device has; for the CPU, of the machine."""
    if device.type in ("cuda", "xpu"):
        return int(torch.get_device_module(device).get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def can_run_flux() -> bool:
    """Whether there is an accelerator large enough for the smallest plan."""
    device = pick_device()
    return device.type != "cpu" and total_memory(device) >= LEAST_FLUX_BYTES
