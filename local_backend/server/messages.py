"""The messages between a head and its workers: one paint request, and the events of its run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class PaintRequest:
    """One job, complete: a worker reads nothing else.

    Attributes:
        request_id: the job's name, for log lines.
        fields: the checked input under fal's names, without the two pictures.
        image, mask: the picture files as they came.
        max_pixels: a picture that says it has more is not opened.
    """

    request_id: str
    fields: Mapping[str, Any]
    image: bytes
    mask: bytes
    max_pixels: int


@dataclass(frozen=True)
class Started:
    """The worker of that name has begun."""

    worker: str


@dataclass(frozen=True)
class LogLine:
    """One line for the job's log."""

    message: str
    level: str = "INFO"


@dataclass(frozen=True)
class Done:
    """The pictures, encoded, and what was used to make them."""

    images: tuple[bytes, ...]
    content_type: str
    width: int
    height: int
    seed: int
    timings: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """The answer to the client at the end: the model's output, or an error in fal's shape."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job's own fault, or the model's."""

    answer: Answer


Event = Started | LogLine | Done | Failed


class WorkerLostError(Exception):
    """The worker died in the middle of the job; another may do it.

    Attributes:
        worker: its name, as far as it is known.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker} is gone")
        self.worker = worker


class WorkerPool(Protocol):
    """Workers. `paint` waits until one is free."""

    @property
    def capacity(self) -> int:
        """How many jobs it makes sense to hand over at once."""

    def paint(self, request: PaintRequest) -> AsyncGenerator[Event, None]:
        """The events of one job: Started, lines, and Done or Failed at the end. Closing the
        generator stops the job.

        Raises:
            WorkerLostError: the worker died.
        """
