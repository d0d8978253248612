"""Runs a painter several times and records seconds, step by step, and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from ...nodes.contracts import EditRequest, EditResult, ProgressSink
from ..acceleration.levels import LEVELS, NONE
from ..acceleration.masked_token_attention import token_sets
from ..acceleration.step_schedule import StepKind, plan_steps

Paint = Callable[[EditRequest, ProgressSink], EditResult]

STAGES = ("encode", "denoise", "decode")
RUNS = 3
_LONG = 8.0  # seconds; one run that takes longer is enough


@dataclass(frozen=True)
class Run:
    """One picture: seconds of each of STAGES, and of each step but the first."""

    stages: dict[str, float]
    steps: list[float]

    @property
    def total(self) -> float:
        return sum(self.stages.values())


@dataclass(eq=False)
class Row:
    """What was measured of a configuration.

    Attributes:
        kinds: what is done at each step.
        warm_up: seconds until the first picture was done: loading, compiling, first use.
        peak: bytes of torch on the device while the counted runs went on; None where nobody counts.
        image: the last run's picture, float [1, h, w, 3].
        notes: what the backend reports of its run.
        problem: why there is no figure.
    """

    name: str
    title: str
    kinds: tuple[StepKind, ...]
    warm_up: float | None = None
    runs: list[Run] = field(default_factory=list)
    peak: int | None = None
    image: Tensor | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def middle(self) -> Run | None:
        """The run of the median total; of two the faster one."""
        ordered = sorted(self.runs, key=lambda run: run.total)
        return ordered[(len(ordered) - 1) // 2] if ordered else None

    @property
    def wants_more(self) -> bool:
        """Whether another run would tell more."""
        return len(self.runs) < RUNS and not any(run.total > _LONG for run in self.runs)


class StepClock:
    """A ProgressSink that notes when each step was done, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []  # on CUDA

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        if self._device.type != "cuda":
            self._times.append(perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def status(self, text: str) -> None:
        """Does nothing: the backend's notes hold the same text."""

    def check_interrupted(self) -> None:
        """Nothing to do: Python turns Ctrl+C into KeyboardInterrupt wherever the run is."""

    def seconds(self) -> list[float]:
        """Of each step but the first, whose beginning is not marked. Ask when the run is over."""
        times, events = self._times, self._events
        if events:
            pairs = zip(events, events[1:], strict=False)
            return [start.elapsed_time(end) / 1000 for start, end in pairs]
        return [end - start for start, end in zip(times, times[1:], strict=False)]


def begin_peak(device: torch.device) -> None:
    """The peak of memory is counted from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Bytes allocated at most since begin_peak."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def count(row: Row, paint: Paint, request: EditRequest, device: torch.device) -> None:
    """Adds a run to the row."""
    clock = StepClock(device)
    result = paint(request, clock)
    row.runs.append(Run({stage: result.timings[stage] for stage in STAGES}, clock.seconds()))
    row.image, row.notes = result.images, result.notes


def step_kinds(level: str | None, request: EditRequest, text_tokens: int) -> tuple[StepKind, ...]:
    """What the pipeline does at each step of a request where there is memory for all its caches;
    None: the plain pipeline.
    """
    chosen = NONE if level is None else LEVELS[level]
    share = token_sets(request.mask, chosen.halo).share(text_tokens)
    return plan_steps(chosen, request.num_inference_steps, share)


def milliseconds(seconds: Sequence[float], kinds: Sequence[StepKind]) -> dict[str, float]:
    """The median of each kind that occurs, by its value.

    Args:
        seconds: of every step but the first.
    """
    timed = list(zip(kinds[1:], seconds, strict=True))
    return {
        kind.value: 1000 * median(s for k, s in timed if k is kind)
        for kind in StepKind
        if any(k is kind for k, _ in timed)
    }


def masked_psnr(image: Tensor, other: Tensor, mask: Tensor) -> float:
    """Of the values of [1, h, w, 3] pictures in 0..1 where the mask [1, h, w] is 1; in dB, infinite
    for equal pictures.
    """
    error = (image - other)[mask == 1].square().mean()
    return float(-10 * torch.log10(error))
