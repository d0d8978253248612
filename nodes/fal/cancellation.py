"""Cancellation: every wait and every call ends at once on a cancel or at the deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from ..contracts import ProgressSink
from ..errors import RemoteTimeoutError

T = TypeVar("T")
TICK = 0.1


class Cancellation:
    """The deadline of one job, and the user's cancel.

    Args:
        progress: whose interruption ends every wait within TICK seconds.
        limit: seconds from now until every wait ends with RemoteTimeoutError.
    """

    def __init__(self, progress: ProgressSink, limit: float) -> None:
        self._progress, self._limit, self._start = progress, limit, time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def check(self) -> None:
        """Raise if the user cancelled, or RemoteTimeoutError if the time is over."""
        self._progress.check_interrupted()
        if self.elapsed > self._limit:
            raise RemoteTimeoutError(
                f"The job was not finished after {self._limit:g} s, the deadline. Running the same "
                "again, with the same seed, collects it if it finished; a longer deadline can be "
                "set on OneReward Fal Backend."
            )

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, TICK))

    def call(self, blocking: Callable[[], T]) -> T:
        """The value of a blocking call. A wait that ends early leaves the call to its own
        time-outs, so it must be one that does no harm, such as a GET.
        """
        outcome = in_background(blocking)
        while not wait([outcome], timeout=TICK).done:
            self.check()
        return outcome.result()


def in_background(blocking: Callable[[], T]) -> Future[T]:
    """The call's outcome, from a thread that does not keep the program alive."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(blocking())
        except BaseException as error:  # handed to whoever waits
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True, name="onereward-call").start()
    return outcome
