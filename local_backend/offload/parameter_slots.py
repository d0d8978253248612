"""Parameter slots: where in a module each weight of its file belongs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..quantization.linear import StoredLinear
from .block_streaming import TensorSlot

# Modules that hold one and the same parameter: the path and the attribute's name of each.
Holders = Sequence[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class ParameterSlot:
    """Where a weight belongs, and its scale, if it may have one.

    Attributes:
        block: the number of the block that it lies in; None outside the blocks.
        linear: the layer, if it unpacks its weight as it runs.
    """

    tensor: TensorSlot
    block: int | None
    linear: StoredLinear | None = None
    scale: TensorSlot | None = None

    def clear(self) -> None:
        """Lets go of the weight."""
        self.tensor.clear()
        if self.linear is not None and self.scale is not None:
            self.scale.clear()
            self.linear.quantised = None


def parameter_holders(module: nn.Module) -> dict[str, Holders]:
    """For each parameter's first name, all modules that share it (tied weights)."""
    first: dict[int, str] = {}
    found: dict[str, list[tuple[str, str]]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        found.setdefault(first.setdefault(id(parameter), name), []).append((path, leaf))
    return dict(found)


def parameter_slots(
    module: nn.Module,
    names: Iterable[str],
    holders: Mapping[str, Holders],
    blocks: Sequence[tuple[str, nn.Module]],
) -> dict[str, ParameterSlot]:
    """The slots of these parameters.

    Args:
        holders: of the parameters before the linear layers were replaced.
        blocks: the blocks with their paths, in the order in which they run.
    """
    return {name: _slot(module, holders[name], blocks) for name in names}


def buffer_slots(module: nn.Module) -> list[tuple[TensorSlot, Tensor]]:
    """The buffers that a module computes for itself when it is made, such as position ids; no file
    has them.
    """
    return [
        (TensorSlot((module.get_submodule(path), leaf)), tensor)
        for (path, _, leaf), tensor in (
            (name.rpartition("."), tensor) for name, tensor in module.named_buffers()
        )
    ]


def block_list(module: nn.Module, lists: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The blocks with their paths, in the order of the lists."""
    return [
        (f"{name}.{index}", block)
        for name in lists
        for index, block in module.get_submodule(name).named_children()
    ]


def _slot(
    module: nn.Module, holders: Holders, blocks: Sequence[tuple[str, nn.Module]]
) -> ParameterSlot:
    path, leaf = holders[0]
    numbers = (n for n, (name, _) in enumerate(blocks) if path.startswith(name + "."))
    block, linear = next(numbers, None), module.get_submodule(path)
    if isinstance(linear, StoredLinear) and leaf == "weight":
        return ParameterSlot(
            TensorSlot((linear, "data")), block, linear, TensorSlot((linear, "scale"))
        )
    return ParameterSlot(
        TensorSlot(*((module.get_submodule(other), name) for other, name in holders)), block
    )
