"""Where each of a model's weights belongs, and how it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..quantization.linear import StoredLinear
from ..quantization.stored_weight import Stored
from .block_streaming import Slot


@dataclass(frozen=True, eq=False)
class Place:
    """Where a weight of the file belongs, and its scale, if it may have one."""

    slot: Slot
    block: int | None
    linear: StoredLinear | None = None
    scale: Slot | None = None


def owners(module: nn.Module) -> dict[str, list[tuple[str, str]]]:
    """For each parameter's first name, the modules that hold it and what they call it."""
    first: dict[int, str] = {}
    found: dict[str, list[tuple[str, str]]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        found.setdefault(first.setdefault(id(parameter), name), []).append((path, leaf))
    return found


def constants(module: nn.Module) -> list[tuple[Slot, Tensor]]:
    """What is there before anything is loaded, as the module works it out for itself: such as the
    numbers of its places.
    """
    return [
        (Slot((module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])), tensor)
        for name, tensor in module.named_buffers()
    ]


def block_list(module: nn.Module, lists: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The blocks with their names, in the order of the lists."""
    return [
        (f"{name}.{index}", block)
        for name in lists
        for index, block in module.get_submodule(name).named_children()
    ]


def moved(stored: Stored, device: torch.device) -> Stored:
    """The same weight on the device."""
    scale = None if stored.scale is None else stored.scale.to(device)
    return replace(stored, data=stored.data.to(device), scale=scale)
