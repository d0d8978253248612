"""What a step of each kind takes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ...nodes.contracts import EditRequest
from ..acceleration.levels import LEVELS, NONE
from ..acceleration.masked_token_attention import token_sets
from ..acceleration.step_schedule import Work, plan_steps


def step_kinds(level: str | None, request: EditRequest, text_tokens: int) -> tuple[Work, ...]:
    """What the pipeline does at each step of a request where there is memory for all it would keep;
    None: the plain pipeline.
    """
    chosen = NONE if level is None else LEVELS[level]
    share = token_sets(request.mask, chosen.halo).share(text_tokens)
    return plan_steps(chosen, request.num_inference_steps, share)


def milliseconds(seconds: Sequence[float], kinds: Sequence[Work]) -> dict[str, float]:
    """The median of each kind that occurs, by its words.

    Args:
        seconds: of every step but the first.
    """
    timed = list(zip(kinds[1:], seconds, strict=True))
    return {
        kind.value: 1000 * median(s for k, s in timed if k is kind)
        for kind in Work
        if any(k is kind for k, _ in timed)
    }
