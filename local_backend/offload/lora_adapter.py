"""A LoRA (low-rank adaptation, arXiv:2106.09685) beside a loaded model's weights.

It attaches, detaches and replaces the factors; quantization.linear.StoredLinear.forward adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..checkpoints.lora import Lora
from ..quantization.linear import LowRank, StoredLinear, low_rank, scaled

Layer = Callable[[Tensor], Tensor]


class LoraAdapter:
    """The LoRA of one model, or none. Its factors are not merged into the weights, so another
    strength loads nothing again, and quantised weights lose nothing.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        """`dtype`: what the module computes in."""
        self._module, self._dtype = module, dtype
        self._factors: Mapping[str, LowRank] = {}

    @property
    def targets(self) -> Collection[str]:
        """The names of the layers that the LoRA changes."""
        return self._factors.keys()

    @property
    def device_bytes(self) -> int:
        """What it takes on a device."""
        numbers = sum(f.down.numel() + f.up.numel() for _, f in self._layers())
        return numbers * self._dtype.itemsize

    def replace(self, lora: Lora | None, strength: float) -> None:
        """Takes over another LoRA, or none; the one before has to be detached."""
        targets = {} if lora is None else lora.targets
        self._factors = {name: scaled(factors, strength) for name, factors in targets.items()}

    @torch.inference_mode(False)
    @torch.no_grad()
    def attach(self, device: torch.device) -> None:
        """Puts the factors beside the layers' weights."""
        for linear, factors in self._layers():
            linear.down = factors.down.to(device, self._dtype)
            linear.up = factors.up.to(device, self._dtype)

    def detach(self) -> None:
        """Takes the factors off the layers."""
        for linear, _ in self._layers():
            linear.down = linear.up = None

    def extended(self, name: str, layer: Layer, device: torch.device) -> Layer:
        """A layer that is not in the module, with its factors added; they lie on the device."""
        factors = self._factors.get(name)
        if factors is None:
            return layer
        down, up = (factor.to(device, self._dtype) for factor in (factors.down, factors.up))
        return lambda inputs: layer(inputs) + low_rank(inputs, down, up)

    def _layers(self) -> Iterator[tuple[StoredLinear, LowRank]]:
        """The layers in the module that it changes; those that were left out are not among them."""
        for name, factors in self._factors.items():
            layer = self._module.get_submodule(name)
            if isinstance(layer, StoredLinear):
                yield layer, factors
