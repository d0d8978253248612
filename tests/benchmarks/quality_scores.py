"""The quality gate's arithmetic: equal time, worst tenths, leads, points, verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

STEPS = 28
#: scenes are timed, and given their rival, in bands of the masked share: masked tokens save less
#: where more is masked
BANDS = (0.16, 0.32)
#: a level is that much closer to `none` than fewer steps, in dB
LEAD = 5.0
#: sharpness within that of none's, and the task's score not below it by more, in points
POINTS = 2.0
#: dB to none in the mean
FIDELITY = {"regular": 42.0, "high": 34.0}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was measured on one picture of one scene.

    Attributes:
        seconds: of the sampling loop.
        psnr: dB to none's picture, inside the mask.
        truth: dB to the true picture, inside the mask.
        texture: gradient energy inside the mask, over the true picture's.
        score, hit, seen: the judge's; see quality_judges.Finding.
    """

    scene: str
    task: str
    share: float
    variant: str
    steps: int
    seconds: float
    psnr: float
    truth: float
    texture: float
    score: float | None
    hit: bool | None
    seen: str


@dataclass(frozen=True)
class Spread:
    """A mean, its standard error, the mean of the worst tenth, and the worst."""

    mean: float
    error: float
    tenth: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant beside none, and beside fewer steps at equal time.

    Attributes:
        cost: its seconds over none's, all scenes together.
        psnr, rival: dB to none inside the mask; of the rival None where there is none.
        rival_steps: the rival's steps, by band of the masked share.
        rival_cost: the rival's seconds over none's.
        lead: mean of the difference to the rival in dB, and its standard error.
        sharpness: mean texture less none's, in points: percent of the true picture's.
        score: the judges' mean score less none's, in points; and its standard error.
        truth: dB to the true picture less none's.
    """

    variant: str
    cost: float
    psnr: Spread
    rival: Spread | None
    rival_steps: tuple[int, ...]
    rival_cost: float | None
    lead: tuple[float, float] | None
    sharpness: float
    score: tuple[float, float]
    truth: float
    verdict: str = ""

    @property
    def leads(self) -> tuple[float, float] | None:
        """dB before the rival in the mean, and in the worst tenth."""
        if self.rival is None:
            return None
        return self.psnr.mean - self.rival.mean, self.psnr.tenth - self.rival.tenth


def band(share: float) -> int:
    """Which of the bands a masked share belongs to."""
    return sum(share >= edge for edge in BANDS)


def equal_steps(ratio: float, steps: int = STEPS) -> int:
    """How many of none's steps take no less time than that share of all of them.

    Rounded up, in the rival's favour; but all of them would be no rival, it would be none itself.
    """
    return max(1, min(steps - 1, math.ceil(ratio * steps - 1e-9)))


def steps_by_band(ratios: Iterable[tuple[float, float]]) -> dict[int, int]:
    """From a variant's (masked share, seconds over none's), the rival's steps in each band."""
    found: dict[int, list[float]] = {}
    for share, ratio in ratios:
        found.setdefault(band(share), []).append(ratio)
    return {key: equal_steps(statistics.median(found[key])) for key in sorted(found)}


def worst_tenth(values: Sequence[float]) -> float:
    """The mean of the lowest tenth of the values, one at least."""
    return statistics.fmean(sorted(values)[: math.ceil(len(values) / 10)])


def standard_error(values: Sequence[float]) -> float:
    """Of the values' mean."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def spread(values: Sequence[float]) -> Spread:
    return Spread(
        statistics.fmean(values), standard_error(values), worst_tenth(values), min(values)
    )


def summary(
    variant: str,
    samples: Sequence[Sample],
    full: Sequence[Sample],
    rivals: Sequence[Sample] | None,
) -> Row:
    """A variant's row, without a verdict. The sequences hold the same scenes in the same order;
    `full` is none, and without `rivals` time is not compared.
    """
    psnr = spread([s.psnr for s in samples])
    gains = [s.psnr - r.psnr for s, r in zip(samples, rivals or (), strict=bool(rivals))]
    scores = [
        100 * (s.score - f.score)
        for s, f in zip(samples, full, strict=True)
        if s.score is not None and f.score is not None
    ]
    return Row(
        variant=variant,
        cost=_ratio(samples, full, lambda sample: sample.seconds),
        psnr=psnr,
        rival=spread([r.psnr for r in rivals]) if rivals else None,
        rival_steps=_steps(rivals or ()),
        rival_cost=_ratio(rivals, full, lambda sample: sample.seconds) if rivals else None,
        lead=(statistics.fmean(gains), standard_error(gains)) if rivals else None,
        sharpness=100 * _mean_gain(samples, full, lambda sample: sample.texture),
        score=(statistics.fmean(scores), standard_error(scores)) if scores else (0.0, 0.0),
        truth=_mean_gain(samples, full, lambda sample: sample.truth),
    )


def _ratio(some: Sequence[Sample], full: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    return sum(map(of, some)) / sum(map(of, full))


def _mean_gain(
    some: Sequence[Sample], full: Sequence[Sample], of: Callable[[Sample], float]
) -> float:
    return statistics.fmean(of(s) - of(f) for s, f in zip(some, full, strict=True))


def _steps(rivals: Sequence[Sample]) -> tuple[int, ...]:
    steps = {band(sample.share): sample.steps for sample in rivals}
    return tuple(steps[key] for key in sorted(steps))


def level_misses(row: Row, fidelity: float) -> list[str]:
    """Which targets of a level a row misses, in words; none of them for a good level."""
    misses = []
    if row.psnr.mean < fidelity:
        misses.append(f"{row.psnr.mean:.1f} dB to none, {fidelity:g} asked for")
    for lead, where in zip(row.leads or (), ("mean", "worst tenth"), strict=False):
        if lead < LEAD:
            misses.append(f"{lead:.1f} dB before fewer steps in the {where}, {LEAD:g} asked for")
    if abs(row.sharpness) > POINTS:
        misses.append(f"sharpness {row.sharpness:+.1f} points, {POINTS:g} allowed")
    if row.score[0] < -POINTS:
        misses.append(f"task score {row.score[0]:+.1f} points, {POINTS:g} allowed")
    return misses


def technique_misses(row: Row) -> list[str]:
    """Where a technique does not beat fewer steps at equal time."""
    return [
        f"{lead:.1f} dB before fewer steps in the {where}"
        for lead, where in zip(row.leads or (), ("mean", "worst tenth"), strict=False)
        if lead <= 0
    ]
