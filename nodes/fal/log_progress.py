"""The denoising steps that a job's log lines tell, on the bar instead of in the words beside it."""

from __future__ import annotations

import re
from dataclasses import replace

from ..contracts import ProgressSink
from .schemas import Status

STEP = re.compile(r"step ([0-9]{1,6}) of ([0-9]{1,6})")  # the whole line, and no other form


class Steps:
    """Moves the bar for one job. It goes back only with a job that goes back to the queue."""

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


def _read(line: str) -> tuple[int, int] | None:
    """The step and their number, if the line tells one."""
    found = STEP.fullmatch(line)
    value, total = (int(found[1]), int(found[2])) if found else (0, 0)
    return (value, total) if 1 <= value <= total else None


def _share(step: tuple[int, int]) -> float:
    return step[0] / step[1]
