"""What the quality gate compares: the levels, every technique alone, and floors of rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from benchmarks.quality_emulated import fp8_linears, fp8_memory, noisy
from onereward_pack.local_backend.acceleration.levels import EVERY_STEP, LEVELS, NONE, Level
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline

#: a pipeline is changed inside it
Around = Callable[[OneRewardPipeline], AbstractContextManager[None]]
WARM = 0.15  # of the steps that the even schedules compute first
#: ms of a CFG step of FLUX.1-Fill on an H100, compiled, with row-wise fp8 products and without; see
#: `python -m local_backend bench`
FP8_COST = 195 / 266


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to sample.

    Attributes:
        kind: "level"; "part", a technique of a level alone; "technique"; or "floor", which is not
            meant to be faster and has no rival in fewer steps.
        level: what the pipeline is told.
        around: what is emulated meanwhile.
        cost: share of none's time that an emulated technique takes on a card; None: it is measured.
    """

    name: str
    kind: str
    level: Level
    around: Around = lambda pipeline: nullcontext()
    cost: float | None = None


def variants(levels: Mapping[str, Level] = LEVELS) -> dict[str, Variant]:
    """All variants but none, by name, the levels first. What a level is made of stands there once,
    as its part.
    """
    named = {name: level for name, level in levels.items() if level != NONE}
    every = [Variant(name=name, kind="level", level=level) for name, level in named.items()]
    every += [part for name, level in named.items() for part in _parts(name, level)]
    seen = [variant.level for variant in every]
    every += [variant for variant in _techniques() if variant.level not in seen]
    every.append(
        Variant(
            name="fp8 products, emulated; an H100's time",
            kind="technique",
            level=NONE,
            around=fp8_linears,
            cost=FP8_COST,
        )
    )
    return {variant.name: variant for variant in every + _floors(named)}


def _parts(name: str, level: Level) -> list[Variant]:
    """A level's techniques, one at a time."""
    parts = {
        f"{name}: extrapolation alone": replace(level, masked_gaps=None),
        f"{name}: masked tokens alone": replace(level, gaps=EVERY_STEP, masked_gaps=EVERY_STEP),
    }
    alone = [part for part in parts if level.masked_gaps and parts[part] != level]
    return [Variant(name=part, kind="part", level=parts[part]) for part in alone]


def _techniques() -> list[Variant]:
    second, third = (((WARM, 1), (1.0, gap)) for gap in (2, 3))
    masked = replace(NONE, masked_gaps=EVERY_STEP)
    named = {
        "extrapolation, every 2nd step": replace(NONE, gaps=second),
        "extrapolation, 2 of 3 steps": replace(NONE, gaps=third),
        "masked tokens, all every 2nd step": replace(masked, refresh=2),
        "masked tokens, all every 4th step": replace(masked, refresh=4),
        "masked tokens, all every 8th step": replace(masked, refresh=8),
        "the same, keys and values standing still": replace(masked, refresh=8, drift=0.0),
        "extrapolation (2nd) of masked tokens (4th)": replace(
            NONE, gaps=second, masked_gaps=second, refresh=4
        ),
    }
    return [Variant(name=name, kind="technique", level=level) for name, level in named.items()]


def _floors(levels: Mapping[str, Level]) -> list[Variant]:
    remembered = [
        Variant(name=f"{name}, memory in fp8", kind="floor", level=level, around=fp8_memory)
        for name, level in levels.items()
        if level.masked_gaps
    ]
    return [
        *remembered,
        Variant(name="velocity noise of 0.1 %", kind="floor", level=NONE, around=noisy),
    ]
