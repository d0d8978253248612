"""What a head and its painters hand each other: one job, and the events of its run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Work:
    """One job, complete: a painter reads nothing else.

    Attributes:
        request_id: the job's name, for log lines.
        fields: the checked input, in fal's words, without the two pictures.
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
    """The painter of that name has begun."""

    painter: str


@dataclass(frozen=True)
class Line:
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
    """What a client is told at the end: the model's output, or an error in fal's shape."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job's own fault, or the model's."""

    answer: Answer


Event = Started | Line | Done | Failed


class PainterLostError(Exception):
    """The painter died in the middle of the job; another may do it.

    Attributes:
        painter: its name, as far as it is known.
    """

    def __init__(self, painter: str) -> None:
        super().__init__(f"painter {painter} is gone")
        self.painter = painter


class Pool(Protocol):
    """Painters. `paint` waits until one is free."""

    @property
    def capacity(self) -> int:
        """How many jobs it makes sense to hand over at once."""

    def paint(self, work: Work) -> AsyncGenerator[Event, None]:
        """The events of one job: Started, lines, and Done or Failed at the end. Closing the
        generator stops the job.

        Raises:
            PainterLostError: the painter died.
        """
