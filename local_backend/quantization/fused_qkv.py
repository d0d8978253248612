"""Fused QKV projections: query, key and value of an attention in one product instead of three.

diffusers has it as fuse_qkv_projections; this one fuses stored (quantised) weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor

from .linear import StoredLinear

# What diffusers calls the fused layers, and what each is made of, in order.
_FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


class FusedAttention:
    """An attention whose projections multiply in 8 bits. The weights of each three are put under
    each other, and the three become views of them, so that nothing is held twice.
    """

    def __init__(self, attention: FluxAttention) -> None:
        """Takes over the attention of a loaded, resident block that `can_fuse`."""
        self._attention = attention
        self._layers = {
            name: _stack([getattr(attention, part) for part in parts])
            for name, parts in _FUSED.items()
            if hasattr(attention, parts[0])
        }

    def update(self) -> None:
        """Fused as long as no LoRA is on one of the projections."""
        self.undo()
        if any(layer.down is not None for layer in _projections(self._attention)):
            return
        for name, layer in self._layers.items():
            setattr(self._attention, name, layer)
        self._attention.fused_projections = True

    def undo(self) -> None:
        """The three layers run by themselves; their weights stay views."""
        self._attention.fused_projections = False
        for name in self._layers:
            if hasattr(self._attention, name):
                delattr(self._attention, name)


def can_fuse(attention: FluxAttention) -> bool:
    """Whether all of its projections are loaded, multiply in 8 bits, and have a bias."""
    return all(
        isinstance(layer, StoredLinear) and layer.quantised is not None and layer.bias is not None
        for layer in _projections(attention)
    )


def _projections(attention: FluxAttention) -> list[StoredLinear]:
    names = [part for parts in _FUSED.values() for part in parts]
    return [getattr(attention, name) for name in names if hasattr(attention, name)]


def _stack(layers: Sequence[StoredLinear]) -> StoredLinear:
    rows = [layer.shape[0] for layer in layers]
    stacked = StoredLinear((sum(rows), layers[0].shape[1]))
    stacked.quantised = layers[0].quantised
    for name in ("data", "scale", "bias"):
        tensors: list[Tensor] = [getattr(layer, name) for layer in layers]
        whole = torch.cat(tensors)
        setattr(stacked, name, whole)
        for layer, piece in zip(layers, whole.split(rows), strict=True):
            setattr(layer, name, piece)
    return stacked
