"""The retry policy: after which outcomes each kind of call is repeated, and with which backoff.

An idempotent call (IDEMPOTENT), a poll (poll_retry) and a download (download_backoff) are repeated.
A submit (SUBMIT) is repeated only where the service cannot have accepted it.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from ..errors import RemoteError
from .cancellation import Cancellation
from .transport import ConnectionLost, Reply

T = TypeVar("T")
ATTEMPTS = 3
LONGEST_PAUSE = 30.0  # seconds
PATIENCE = 30.0  # seconds of failures in a row until a poll is given up
SHORTEST_BACKOFF = 0.25  # seconds
TRANSIENT = (408, 425, 429, 500, 502, 503, 504, *range(520, 531))  # the last are Cloudflare's


@dataclass(frozen=True)
class Retry(Generic[T]):
    """How often something is tried, after which outcomes, and how long apart.

    Attributes:
        backoff: seconds until the next attempt, from the last outcome (a value, or one of
            `failures`) and the number of attempts so far; None if that outcome is final.
        failures: exceptions after which another attempt may go well; any other ends it.
        attempts: how many there are at most.
        patience: seconds from the first failure until no new attempt is made.
    """

    backoff: Callable[[T | Exception, int], float | None]
    failures: tuple[type[Exception], ...] = (ConnectionLost,)
    attempts: float = ATTEMPTS
    patience: float = math.inf

    def run(self, attempt: Callable[[], T], cancellation: Cancellation) -> T:
        """The last outcome: its value, or its failure raised. Cancelling ends every pause."""
        first_failure = math.inf
        for number in count(1):
            outcome: T | Exception
            try:
                outcome = attempt()
            except self.failures as failure:
                outcome = failure
            pause = self.backoff(outcome, number)
            first_failure = min(first_failure, time.monotonic())
            failing = time.monotonic() - first_failure
            if pause is None or number >= self.attempts or failing > self.patience:
                break
            cancellation.sleep(pause)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def is_transient(reply: Reply) -> bool:
    """The same question may get another answer a little later."""
    return reply.status in TRANSIENT


def retry_after(outcome: object) -> float | None:
    """Seconds the service asks to wait, at most LONGEST_PAUSE; None if it does not say, or if there
    is no answer.
    """
    text = outcome.headers.get("Retry-After") if isinstance(outcome, Reply) else None
    if not text:
        return None
    try:
        seconds = float(text) if text.isdecimal() else _seconds_until(text)
    except ValueError:  # neither a number nor a date
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def ask_idempotent(call: Callable[[], Reply], cancellation: Cancellation) -> Reply:
    """The answer to an idempotent request that costs nothing, tried again while it fails for a
    passing reason.

    Raises:
        RemoteError: there was no answer in the last attempt.
    """
    try:
        return IDEMPOTENT.run(lambda: cancellation.call(call), cancellation)
    except ConnectionLost as lost:  # lost or not, it could not have cost anything
        raise RemoteError(str(lost.args[0])) from None


def _linear_backoff(outcome: Reply | Exception, attempts: int) -> float | None:
    if isinstance(outcome, Reply) and not is_transient(outcome):
        return None
    return retry_after(outcome) or 0.5 * attempts


IDEMPOTENT = Retry[Reply](_linear_backoff)


def _submit_backoff(outcome: Reply | Exception, attempts: int) -> float | None:
    """A submit is not idempotent: it is repeated only if the service cannot have accepted it."""
    if isinstance(outcome, ConnectionLost) and not outcome.sent:
        return 0.5 * attempts
    if not isinstance(outcome, Reply):
        return None
    if outcome.status == 429:
        return retry_after(outcome) or float(attempts)
    if outcome.status == 503 and not outcome.from_app and attempts == 1:
        return retry_after(outcome) or 1.0
    return None


SUBMIT = Retry[Reply](_submit_backoff)


def poll_retry(again: Callable[[Reply], bool]) -> Retry[Reply]:
    """For a GET about a job, repeated while `again` holds for its answer, until PATIENCE ends."""

    def backoff(outcome: Reply | Exception, attempts: int) -> float | None:
        if isinstance(outcome, Reply) and not again(outcome):
            return None
        return retry_after(outcome) or min(SHORTEST_BACKOFF * 2 ** (attempts - 1), 4.0)

    return Retry[Reply](backoff, attempts=math.inf, patience=PATIENCE)


def download_backoff(outcome: object, attempts: int) -> float | None:
    """A download is idempotent, and what came is a whole picture."""
    return 0.5 * attempts if isinstance(outcome, Exception) else None


def _seconds_until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
