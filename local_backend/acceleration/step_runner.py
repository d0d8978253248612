"""One run's way through its steps: what the model computes, and what stands in for the rest."""

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
from .step_schedule import Work, plan_steps
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
    """What a level makes of a run. Nothing of it is left behind, however the block is left.

    Args:
        sigmas: the scheduler's, one more than there are steps.
        mask: [1, h, w], 1 = change.
        text: [branches, tokens, channels], on the transformer's device and in its dtype.
        kv_cache_format: how keys and values may be remembered; None: not at all.
    """
    branches, text_tokens = text.shape[:2]
    tokens = token_sets(mask, level.halo)
    share = tokens.share(text_tokens) if kv_cache_format else None
    plan = plan_steps(level, len(sigmas) - 1, share)
    if kv_cache_format is None or Work.MASKED not in plan:
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

    def __init__(self, plan: Sequence[Work], sigmas: Sequence[float]) -> None:
        self._plan, self._path = plan, VelocityForecast(sigmas)

    def velocity(self, step: int, compute: Compute) -> Tensor:
        """What this step goes with, [1, tokens, channels]; to be asked for in order."""
        if self._plan[step] is Work.NOTHING:
            return self._path.predict(step)
        return self._path.add(step, compute(None))


class MaskedSteps:
    """All tokens, the masked ones or none at a step."""

    def __init__(
        self,
        plan: Sequence[Work],
        sigmas: Sequence[float],
        tokens: TokenSets,
        attention: MaskedTokenAttention,
    ) -> None:
        self._plan, self._sigmas = plan, sigmas
        self._tokens, self._attention = tokens, attention
        self._masked, self._kept = VelocityForecast(sigmas), VelocityForecast(sigmas)

    def velocity(self, step: int, compute: Compute) -> Tensor:
        """What this step goes with, [1, tokens, channels]; to be asked for in order."""
        work, tokens = self._plan[step], self._tokens
        if work is Work.ALL:
            self._attention.keep(self._sigmas[step])
            velocity = compute(None)
            masked = self._masked.add(step, velocity[:, tokens.masked])
            kept = self._kept.add(step, velocity[:, tokens.kept])
        elif work is Work.MASKED:
            self._attention.reuse(self._sigmas[step])
            masked = self._masked.add(step, compute(tokens.masked))
            kept = self._kept.predict(step)
        else:
            masked, kept = self._masked.predict(step), self._kept.predict(step)
        return self._joined(masked, kept)

    def _joined(self, masked: Tensor, kept: Tensor) -> Tensor:
        tokens = self._tokens
        count = len(tokens.masked) + len(tokens.kept)
        joined = torch.empty(1, count, masked.shape[-1], dtype=masked.dtype, device=masked.device)
        joined[:, tokens.masked] = masked
        joined[:, tokens.kept] = kept
        return joined
