"""Workers for the server that do as a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from onereward_pack.local_backend.server.messages import Done, Event, PaintRequest, Started

PNG = b"\x89PNG picture"


def done(work: PaintRequest) -> Done:
    return Done((PNG,) * work.fields["num_images"], "image/png", 64, 48, work.fields["seed"],
                {"inference": 0.5})  # fmt: skip


class Workers:
    """A WorkerPool of `free` workers that takes `ahead` jobs more. Each run takes the next script:
    what the worker does: events to yield, an exception to raise, or an event to wait for.
    """

    def __init__(self, *scripts: list[Any], free: int = 1, ahead: int = 0) -> None:
        self.capacity = free + ahead
        self.works: list[PaintRequest] = []
        self.closed = 0
        self._scripts = list(scripts)
        self._free = asyncio.Semaphore(free)

    async def paint(self, work: PaintRequest) -> AsyncGenerator[Event, None]:
        async with self._free:
            self.works.append(work)
            script = self._scripts.pop(0) if self._scripts else []
            try:
                yield Started("studio 1")
                for step in script:
                    if isinstance(step, BaseException):
                        raise step
                    if isinstance(step, asyncio.Event):
                        await step.wait()
                    else:
                        yield step
                yield done(work)
            finally:
                self.closed += 1
