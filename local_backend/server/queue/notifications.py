"""Wakes those who wait for news of a job, within one head."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class News:
    """What one listener hears of one job."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until there is news since the last wait, or that long."""
        await set_or_late(self._event, seconds)
        self._event.clear()


class Watch:
    """For one event loop. News from another head is not heard here: waits are to be short."""

    def __init__(self) -> None:
        self._listening: defaultdict[int, set[News]] = defaultdict(set)

    def notify(self, number: int) -> None:
        """The job of that number has changed."""
        for news in self._listening.get(number, ()):
            news.tell()

    @contextmanager
    def listen(self, number: int) -> Iterator[News]:
        """What is told while this is open is not missed, also between two waits."""
        news = News()
        self._listening[number].add(news)
        try:
            yield news
        finally:
            self._listening[number].discard(news)
            if not self._listening[number]:
                del self._listening[number]


async def set_or_late(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or that long; it is set afterwards. Before Python 3.12 `wait_for`
    may lose a cancellation that comes at the moment of the event.
    """
    alarm = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        alarm.cancel()
