"""Notifies the requests that wait for a change of a job, within one head (one process)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Subscription:
    """One listener's view of one job: it wakes when the job changes."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a change since the last wait, at most so many seconds."""
        await set_or_late(self._event, seconds)
        self._event.clear()


class Notifier:
    """The subscriptions of one event loop. A change that another head makes does not arrive
    here, so a listener waits for a short time only and then reads the database.
    """

    def __init__(self) -> None:
        self._listening: defaultdict[int, set[Subscription]] = defaultdict(set)

    def notify(self, number: int) -> None:
        """The job of that number has changed."""
        for subscription in self._listening.get(number, ()):
            subscription.notify()

    @contextmanager
    def listen(self, number: int) -> Iterator[Subscription]:
        """A subscription to one job. A change between two waits is not missed."""
        subscription = Subscription()
        self._listening[number].add(subscription)
        try:
            yield subscription
        finally:
            self._listening[number].discard(subscription)
            if not self._listening[number]:
                del self._listening[number]


async def set_or_late(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or that long; it is set afterwards. (Before Python 3.12,
    `asyncio.wait_for` may lose a cancellation that comes at the moment of the event.)
    """
    alarm = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        alarm.cancel()
