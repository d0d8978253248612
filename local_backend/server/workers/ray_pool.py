"""The workers of a cluster: Ray Serve replicas, each with one job at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError

from ..messages import Event, PaintRequest, Started, WorkerLostError

# What Ray says when the process or the machine of a replica is gone, or its answer with it.
LOST = (RayActorError, NodeDiedError, WorkerCrashedError, ObjectLostError)
UNKNOWN = "of the cluster"


class RayPool:
    """A WorkerPool over the handle of app.Worker."""

    def __init__(self, handle: Any, capacity: int) -> None:
        self._handle = handle.options(stream=True)
        self._capacity = capacity

    @property
    def capacity(self) -> int:
        """See WorkerPool."""
        return self._capacity

    async def paint(self, request: PaintRequest) -> AsyncGenerator[Event, None]:
        """The events of one job; see WorkerPool. A replica that is stopped takes its next job only
        when its sampler has stopped.

        Raises:
            WorkerLostError: the replica died.
        """
        worker = UNKNOWN
        answer = self._handle.run.remote(request)
        try:
            async for event in answer:
                if isinstance(event, Started):
                    worker = event.worker
                yield event
        except LOST as error:
            raise WorkerLostError(worker) from error
        finally:
            answer.cancel()  # nothing, if it has ended
