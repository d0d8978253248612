"""A job's progress as the node shows it: the bar from its log lines, and the status text beside it.

fal has no field for progress: a status answer has a state, a place in the queue and log lines.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ..contracts import ProgressSink
from .schemas import Status

STEP = re.compile(r"step ([0-9]{1,6}) of ([0-9]{1,6})")  # the whole line, and no other form


class StepProgress:
    """Moves the bar for one job, by log lines that name a denoising step. The bar goes back only
    with a job that goes back to the queue.
    """

    def __init__(self, progress: ProgressSink) -> None:
        self._progress = progress
        self._seen, self._furthest, self._total = 0, 0, 1

    def take(self, status: Status) -> Status:
        """Moves the bar by the lines that are new; the status without those that tell a step."""
        new, self._seen = status.logs[self._seen :], len(status.logs)
        if status.state == "IN_QUEUE":
            self._back()
        elif step := max(filter(None, map(_read, new)), key=_share, default=None):
            self._move(*step)
        return replace(status, logs=tuple(line for line in status.logs if _read(line) is None))

    def _move(self, value: int, total: int) -> None:
        if value * self._total > self._furthest * total:
            self._furthest, self._total = value, total
            self._progress.step(value, total)

    def _back(self) -> None:
        if self._furthest:
            self._furthest = 0
            self._progress.step(0, self._total)


def status_text(status: Status, elapsed: float) -> str:
    """Where a job is, after so many seconds."""
    if status.state == "IN_QUEUE":
        ahead = "" if status.queue_position is None else f", position {status.queue_position}"
        return f"in queue{ahead}, {elapsed:.0f} s"
    line = f": {status.logs[-1][:80]}" if status.logs else ""
    return f"running, {elapsed:.0f} s{line}"


class NoProgress:
    """A sink for work that the user has already cancelled, or does not watch."""

    def step(self, value: int, total: int, preview: object = None) -> None:
        pass

    def status(self, text: str) -> None:
        pass

    def check_interrupted(self) -> None:
        pass


def _read(line: str) -> tuple[int, int] | None:
    """The step and their number, if the line tells one."""
    found = STEP.fullmatch(line)
    value, total = (int(found[1]), int(found[2])) if found else (0, 0)
    return (value, total) if 1 <= value <= total else None


def _share(step: tuple[int, int]) -> float:
    return step[0] / step[1]
