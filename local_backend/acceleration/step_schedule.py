"""The step schedule: at each step of a run the model computes all tokens, the masked ones alone
(masked-token attention), or nothing (velocity forecasting). levels.py has its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from .levels import Gaps, Level

_REFERENCE_STEPS = 28  # what a level's gaps are written for


class StepKind(Enum):
    """What the model computes at a step: all tokens, the masked ones and the text, or nothing."""

    ALL = "all tokens"
    MASKED = "masked tokens"
    NOTHING = "extrapolated"


def plan_steps(level: Level, steps: int, share: float | None) -> tuple[StepKind, ...]:
    """One entry per step; the first one computes all tokens.

    Args:
        share: of all tokens, text included, that a masked step computes; None where keys and
            values cannot be cached.
    """
    whole = tuple(StepKind.ALL if runs else StepKind.NOTHING for runs in _runs(level.gaps, steps))
    if share is None or level.masked_gaps is None:
        return whole
    masked = tuple(_refreshed(_runs(level.masked_gaps, steps), level.refresh))
    cheaper = cost(masked, share) < level.masked_below * cost(whole, share)
    return masked if cheaper else whole


def cost(plan: tuple[StepKind, ...], share: float) -> float:
    """What the plan costs, in steps of all tokens."""
    return plan.count(StepKind.ALL) + share * plan.count(StepKind.MASKED)


def _runs(gaps: Gaps, steps: int) -> list[bool]:
    """At which steps the model runs."""
    runs, due = [], 0
    for step in range(steps):
        runs.append(step >= due)
        if runs[-1]:
            due = step + _gap(gaps, (step + 1) / steps, steps)
    return runs


def _gap(gaps: Gaps, share: float, steps: int) -> int:
    """Longer in a run of more steps, so that the time between is the same; 1 stays every step."""
    gap = next(gap for until, gap in gaps if share <= until or until == 1.0)
    return gap if gap == 1 else max(1, round(gap * steps / _REFERENCE_STEPS))


def _refreshed(runs: list[bool], refresh: int) -> Iterator[StepKind]:
    """The first run computes all tokens, and then one in so many; never the last: no later
    step would reuse what it caches.
    """
    number, last = 0, sum(runs) - 1
    for run in runs:
        if not run:
            yield StepKind.NOTHING
            continue
        whole = number % refresh == 0 and (number < last or refresh == 1 or not number)
        yield StepKind.ALL if whole else StepKind.MASKED
        number += 1
