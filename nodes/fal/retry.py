"""Which failures pass, and how long to wait for that."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

from ..errors import RemoteError
from .cancellation import Waiting
from .transport import ConnectionLost, Reply

LONGEST_PAUSE = 30.0  # seconds
TRIES = 3
TRANSIENT = (408, 425, 429, 500, 502, 503, 504, *range(520, 531))  # the last are Cloudflare's


def is_transient(reply: Reply) -> bool:
    """The same question may get another answer a little later."""
    return reply.status in TRANSIENT


def retry_after(reply: Reply | None) -> float | None:
    """Seconds the service asks to wait, at most LONGEST_PAUSE; None if it does not say."""
    text = reply.headers.get("Retry-After") if reply else None
    if not text:
        return None
    try:
        seconds = float(text) if text.isdecimal() else _seconds_until(text)
    except ValueError:  # neither a number nor a date
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def patiently(call: Callable[[], Reply], waiting: Waiting) -> Reply:
    """The answer to a harmless request, tried three times while it fails for a passing reason.

    Raises:
        RemoteError: there was none in the last try.
    """
    for attempt in range(1, TRIES):
        reply = None
        try:
            reply = waiting.call(call)
            if not is_transient(reply):
                return reply
        except ConnectionLost:
            pass
        waiting.sleep(retry_after(reply) or 0.5 * attempt)
    try:
        return waiting.call(call)
    except ConnectionLost as lost:  # lost or not, it could not have cost anything
        raise RemoteError(str(lost.args[0])) from None


def _seconds_until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
