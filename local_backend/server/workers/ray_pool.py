"""The painters of a cluster: Ray Serve replicas, each with one job at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError

from ..messages import Event, PainterLostError, Started, Work

# What Ray says when the process or the machine of a replica is gone, or its answer with it.
LOST = (RayActorError, NodeDiedError, WorkerCrashedError, ObjectLostError)
UNKNOWN = "of the cluster"


class RayPool:
    """A Pool over the handle of app.Painter."""

    def __init__(self, handle: Any, capacity: int) -> None:
        self._handle = handle.options(stream=True)
        self._capacity = capacity

    @property
    def capacity(self) -> int:
        """See Pool."""
        return self._capacity

    async def paint(self, work: Work) -> AsyncGenerator[Event, None]:
        """The events of one job; see Pool. A replica that is told to stop takes its next job only
        when its sampler has stopped.

        Raises:
            PainterLostError: the replica died.
        """
        painter = UNKNOWN
        answer = self._handle.run.remote(work)
        try:
            async for event in answer:
                if isinstance(event, Started):
                    painter = event.painter
                yield event
        except LOST as error:
            raise PainterLostError(painter) from error
        finally:
            answer.cancel()  # nothing, if it has ended
