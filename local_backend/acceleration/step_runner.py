"""Runs the step schedule: a step's velocity is computed for all tokens, for the masked ones
(masked-token attention), or extrapolated (velocity forecasting).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor

from .kv_cache import KVCacheFormat
from .levels import Level
from .masked_token_attention import (
    MaskedTokenAttention,
    TokenSets,
    masked_token_attention,
    token_sets,
)
from .step_schedule import StepKind, plan_steps
from .velocity_forecast import VelocityForecast

# Runs the model on these tokens, int64 [m], or on all: their guided velocities [1, m, channels].
Compute = Callable[[Tensor | None], Tensor]


@contextmanager
def accelerated_steps(
    level: Level,
    sigmas: Sequence[float],
    mask: Tensor,
    *,
    transformer: FluxTransformer2DModel,
    text: Tensor,
    kv_cache_format: KVCacheFormat | None,
) -> Iterator[WholeSteps | MaskedSteps]:
    """The steps of one run at this level; after the block, its KV cache and processors are gone.

    Args:
        sigmas: the scheduler's, one more than there are steps.
        mask: [1, h, w], 1 = change.
        text: [branches, tokens, channels], on the transformer's device and in its dtype.
        kv_cache_format: how keys and values may be cached; None: not at all.
    """
    branches, text_tokens = text.shape[:2]
    tokens = token_sets(mask, level.halo)
    share = tokens.share(text_tokens) if kv_cache_format else None
    plan = plan_steps(level, len(sigmas) - 1, share)
    if kv_cache_format is None or StepKind.MASKED not in plan:
        yield WholeSteps(plan, sigmas)
        return
    tokens = tokens.on(text.device)
    with masked_token_attention(
        transformer,
        tokens,
        text_tokens=text_tokens,
        branches=branches,
        drift=level.drift if kv_cache_format.change else 0.0,
        kv_cache_format=kv_cache_format,
        dtype=text.dtype,
    ) as attention:
        yield MaskedSteps(plan, sigmas, tokens, attention)


class WholeSteps:
    """All tokens or none at a step."""

    def __init__(self, plan: Sequence[StepKind], sigmas: Sequence[float]) -> None:
        self._plan, self._path = plan, VelocityForecast(sigmas)

    def velocity(self, step: int, compute: Compute) -> Tensor:
        """The guided velocity of this step, [1, tokens, channels]. Steps are asked for in order."""
        if self._plan[step] is StepKind.NOTHING:
            return self._path.predict(step)
        return self._path.add(step, compute(None))


class MaskedSteps:
    """All tokens, the masked ones or none at a step."""

    def __init__(
        self,
        plan: Sequence[StepKind],
        sigmas: Sequence[float],
        tokens: TokenSets,
        attention: MaskedTokenAttention,
    ) -> None:
        self._plan, self._sigmas = plan, sigmas
        self._tokens, self._attention = tokens, attention
        self._masked, self._retained = VelocityForecast(sigmas), VelocityForecast(sigmas)

    def velocity(self, step: int, compute: Compute) -> Tensor:
        """The guided velocity of this step, [1, tokens, channels]. Steps are asked for in order."""
        kind, tokens = self._plan[step], self._tokens
        if kind is StepKind.ALL:
            self._attention.fill(self._sigmas[step])
            velocity = compute(None)
            masked = self._masked.add(step, velocity[:, tokens.masked])
            retained = self._retained.add(step, velocity[:, tokens.retained])
        elif kind is StepKind.MASKED:
            self._attention.reuse(self._sigmas[step])
            masked = self._masked.add(step, compute(tokens.masked))
            retained = self._retained.predict(step)
        else:
            masked, retained = self._masked.predict(step), self._retained.predict(step)
        return self._joined(masked, retained)

    def _joined(self, masked: Tensor, retained: Tensor) -> Tensor:
        tokens = self._tokens
        count = len(tokens.masked) + len(tokens.retained)
        joined = torch.empty(1, count, masked.shape[-1], dtype=masked.dtype, device=masked.device)
        joined[:, tokens.masked] = masked
        joined[:, tokens.retained] = retained
        return joined
