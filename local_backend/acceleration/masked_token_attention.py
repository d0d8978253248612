"""Masked-token attention with a KV cache: steps that compute the masked tokens and the text alone,
and attend to all other tokens' keys and values of an earlier step.

In the manner of sparse inference for edits (SIGE, arXiv:2211.02048), with attention's keys and
values as what is reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import (
    FluxAttention,
    FluxTransformer2DModel,
    _get_qkv_projections,
)
from torch import Tensor
from torch.nn import functional

from .kv_cache import CachedTensor, KVCacheFormat

# its types know neither the pair that FLUX gives nor that one tensor comes back
_rotated: Callable[..., Any] = apply_rotary_emb
TOKEN_PIXELS = 16  # a token is that many pixels wide and high


@dataclass(frozen=True, eq=False)
class TokenSets:
    """The tokens of a picture, row by row, in two parts.

    Attributes:
        masked: int64 [m], those with a masked pixel, and their halo.
        retained: int64 [k], all others: their keys and values are reused.
    """

    masked: Tensor
    retained: Tensor

    def share(self, text_tokens: int) -> float | None:
        """The part of all tokens that a masked step computes; None if every token is masked."""
        if not len(self.retained):
            return None
        masked, retained = len(self.masked), len(self.retained)
        return (masked + text_tokens) / (masked + retained + text_tokens)

    def on(self, device: torch.device) -> TokenSets:
        return TokenSets(self.masked.to(device), self.retained.to(device))


def token_sets(mask: Tensor, halo: int) -> TokenSets:
    """The tokens of a mask [1, h, w], 1 = change, sides multiples of 16; a halo in tokens."""
    touched = functional.max_pool2d(mask.float()[None], TOKEN_PIXELS)
    if halo:
        touched = functional.max_pool2d(touched, 2 * halo + 1, stride=1, padding=halo)
    chosen = touched.flatten() > 0
    return TokenSets(chosen.nonzero().flatten(), (~chosen).nonzero().flatten())


class _Mode(Enum):
    FILL = "all tokens are computed, and the retained ones' keys and values cached"
    REUSE = "only masked tokens are computed, beside the cached keys and values"


class MaskedTokenAttention:
    """The attention of all blocks, with a KV cache for the unmasked tokens.

    Keys and values change slowly and steadily from step to step. At a later step the cached ones
    are moved on along the line through their last two values, by `drift` times as much.
    """

    def __init__(self, indices: Tensor, branches: int, drift: float) -> None:
        """`indices`: int64 [k], of the retained tokens in the joint sequence, the text first."""
        self.indices, self.branches, self.drift = indices, branches, drift
        self.mode = _Mode.FILL
        self.ahead = torch.zeros((), device=indices.device)  # in units of the last change
        self._times: list[float] = []

    def shape(self, attn: FluxAttention) -> tuple[int, int, int, int]:
        """Of a block's cached keys, and of its values: [branches, k, heads, channels]."""
        return _shape(attn, self.branches, len(self.indices))

    def fill(self, sigma: float) -> None:
        """The next run of the model computes all tokens, at this noise, and fills the cache."""
        self.mode = _Mode.FILL
        self._times = [*self._times, sigma][-2:]

    def reuse(self, sigma: float) -> None:
        """The next run of the model computes the masked tokens alone, at this noise."""
        self.mode = _Mode.REUSE
        ahead = 0.0
        if len(self._times) == 2:
            before, last = self._times
            ahead = self.drift * (sigma - last) / (last - before)
        self.ahead.fill_(ahead)


class CachedFluxAttnProcessor:
    """diffusers' FluxAttnProcessor for one block; it holds the block's KV cache."""

    _attention_backend = None  # diffusers asks its processors for these two
    _parallel_config = None

    def __init__(
        self,
        attention: MaskedTokenAttention,
        attn: FluxAttention,
        kv_cache_format: KVCacheFormat,
        dtype: torch.dtype,
    ) -> None:
        self._of = attention
        shape, device = attention.shape(attn), attention.indices.device
        self._keys = CachedTensor(shape, kv_cache_format, device, dtype)
        self._values = CachedTensor(shape, kv_cache_format, device, dtype)

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        query, key, value = _joint_projections(attn, hidden_states, encoder_hidden_states)
        query = _rotated(query, image_rotary_emb, sequence_dim=1)
        key = _rotated(key, image_rotary_emb, sequence_dim=1)
        if self._of.mode is _Mode.FILL:
            self._keys.put(key[:, self._of.indices])
            self._values.put(value[:, self._of.indices])
        else:
            key = torch.cat([key, self._keys.get(self._of.ahead)], dim=1)
            value = torch.cat([value, self._values.get(self._of.ahead)], dim=1)
        states = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        states = states.flatten(2, 3).to(query.dtype)
        if encoder_hidden_states is None:
            return states
        length = encoder_hidden_states.shape[1]
        text, image = states[:, :length].contiguous(), states[:, length:].contiguous()
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


def _joint_projections(
    attn: FluxAttention, hidden_states: Tensor, encoder_hidden_states: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [branches, tokens, heads, channels], normed, the text first."""
    projected = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
    query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in projected[:3])
    query, key = attn.norm_q(query), attn.norm_k(key)
    if encoder_hidden_states is None:
        return query, key, value
    text = (part.unflatten(-1, (-1, attn.head_dim)) for part in projected[3:])
    text_query, text_key, text_value = text
    return (
        torch.cat([attn.norm_added_q(text_query), query], dim=1),
        torch.cat([attn.norm_added_k(text_key), key], dim=1),
        torch.cat([text_value, value], dim=1),
    )


@contextmanager
def masked_token_attention(
    transformer: FluxTransformer2DModel,
    tokens: TokenSets,
    *,
    text_tokens: int,
    branches: int,
    drift: float,
    kv_cache_format: KVCacheFormat,
    dtype: torch.dtype,
) -> Iterator[MaskedTokenAttention]:
    """Inside, the transformer's attention has a KV cache; after, its own processors are back and
    the cache is gone, however the block was left.
    """
    attention = MaskedTokenAttention(tokens.retained + text_tokens, branches, drift)
    layers = _attentions(transformer)
    before = [attn.processor for attn in layers]
    try:
        for attn in layers:
            # Any: by its types, diffusers takes none but its own
            cached: Any = CachedFluxAttnProcessor(attention, attn, kv_cache_format, dtype)
            attn.set_processor(cached)
        yield attention
    finally:
        for attn, processor in zip(layers, before, strict=True):
            attn.set_processor(processor)


def kv_cache_bytes(
    transformer: FluxTransformer2DModel,
    tokens: TokenSets,
    branches: int,
    kv_cache_format: KVCacheFormat,
) -> int:
    """What the KV caches of all blocks take."""
    shapes = [_shape(a, branches, len(tokens.retained)) for a in _attentions(transformer)]
    return 2 * sum(kv_cache_format.bytes(shape) for shape in shapes)


def _shape(attn: FluxAttention, branches: int, retained: int) -> tuple[int, int, int, int]:
    return branches, retained, attn.inner_dim // attn.head_dim, attn.head_dim


def _attentions(transformer: FluxTransformer2DModel) -> list[FluxAttention]:
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    return [block.attn for block in blocks]
