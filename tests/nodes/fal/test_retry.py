"""Which failures pass, and how long a service may make us wait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest
from fakes.backend import Interrupted, RecordingProgress
from fakes.fal_edits import hurry
from onereward_pack.nodes.errors import RemoteError
from onereward_pack.nodes.fal.cancellation import Cancellation
from onereward_pack.nodes.fal.retry import (
    ATTEMPTS,
    LONGEST_PAUSE,
    Retry,
    ask_idempotent,
    is_transient,
    retry_after,
)
from onereward_pack.nodes.fal.transport import ConnectionLost, Reply
from requests.structures import CaseInsensitiveDict


def reply(status: int, wait: str | None = None) -> Reply:
    return Reply(status, CaseInsensitiveDict({} if wait is None else {"Retry-After": wait}), b"")


def answering(*answers: Reply | ConnectionLost) -> tuple[Callable[[], Reply], list[float]]:
    """A call that gives one answer after the other, the last for ever; when it was made."""
    left, made = list(answers), []

    def call() -> Reply:
        made.append(time.monotonic())
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, ConnectionLost):
            raise answer
        return answer

    return call, made


def ask(call: Callable[[], Reply], progress: RecordingProgress | None = None) -> Reply:
    return ask_idempotent(call, Cancellation(progress or RecordingProgress(), 30))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524, 530])
def test_these_answers_pass(status: int) -> None:
    assert is_transient(reply(status))


@pytest.mark.parametrize("status", [200, 202, 301, 400, 401, 402, 403, 404, 409, 422, 499, 501])
def test_these_answers_stay(status: int) -> None:
    assert not is_transient(reply(status))


@pytest.mark.parametrize(("text", "seconds"), [
    ("5", 5.0), ("0", 0.0), ("31", LONGEST_PAUSE), ("9" * 400, LONGEST_PAUSE), (None, None),
    ("", None), ("-3", None), ("1.5", None), ("soon", None), ("\u00b2", None),
    ("Mon, 01 Jan 2024 00:00:00 GMT", 0.0), ("Mon, 01 Jan 2024 00:00:00 -0000", 0.0),
    ("Fri, 01 Jan 2999 00:00:00 GMT", LONGEST_PAUSE), ("Mon, 32 Jan 2024 00:00:00 GMT", None),
    ("Mon, 01 Jan 99999 00:00:00 GMT", None),
])  # fmt: skip
def test_a_wait_is_read_as_seconds_or_a_date_and_is_never_long(
    text: str | None, seconds: float | None
) -> None:
    assert retry_after(reply(429, text)) == seconds
    assert retry_after(None) is None


def test_a_date_soon_is_waited_for() -> None:
    found = retry_after(reply(503, formatdate(time.time() + 10, usegmt=True)))
    assert found is not None and 5 < found <= 10


@pytest.mark.parametrize("trouble", [reply(503), ConnectionLost("Lost.", sent=True)])
def test_what_passes_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, trouble: Reply | ConnectionLost
) -> None:
    hurry(monkeypatch, 50)
    call, made = answering(trouble, trouble, reply(200))
    assert ask(call).status == 200 and len(made) == ATTEMPTS == 3


def test_what_does_not_pass_is_asked_once() -> None:
    call, made = answering(reply(404), reply(200))
    assert ask(call).status == 404 and len(made) == 1


def test_the_last_answer_is_given_and_the_last_loss_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 50)
    call, made = answering(reply(503))
    assert ask(call).status == 503 and len(made) == 3
    call, made = answering(ConnectionLost("Lost.", sent=True))
    with pytest.raises(RemoteError, match="Lost. Nothing was billed"):
        ask(call)
    assert len(made) == 3


def test_the_service_says_how_long_to_wait() -> None:
    call, made = answering(reply(429, "1"), reply(200))
    assert ask(call).status == 200
    assert 0.95 < made[1] - made[0] < 5


def test_a_cancel_ends_the_wait() -> None:
    class Later(RecordingProgress):
        def check_interrupted(self) -> None:
            if made:
                raise Interrupted

    call, made = answering(reply(429, "30"))
    start = time.monotonic()
    with pytest.raises(Interrupted):
        ask(call, Later())
    assert time.monotonic() - start < 5


def retry_of(call: Callable[[], Reply], **policy: float) -> Reply:
    def backoff(outcome: Reply | Exception, attempts: int) -> float | None:
        return None if isinstance(outcome, Reply) and outcome.ok else 0.01 * attempts

    return Retry[Reply](backoff, **policy).run(call, Cancellation(RecordingProgress(), 30))


def test_a_policy_without_a_number_of_attempts_ends_when_patience_does() -> None:
    call, made = answering(reply(503))
    assert retry_of(call, attempts=math.inf, patience=0.1).status == 503
    assert len(made) > ATTEMPTS and 0.1 < made[-1] - made[0] < 5


def test_patience_begins_with_the_first_failure() -> None:
    call, made = answering(ConnectionLost("Lost.", sent=True), reply(200))

    def slow() -> Reply:
        time.sleep(0.2)
        return call()

    assert retry_of(slow, patience=0.1).ok and len(made) == 2


def test_an_exception_that_the_policy_does_not_name_is_not_retried() -> None:
    made = []

    def call() -> Reply:
        made.append(1)
        raise RemoteError("Refused.")

    with pytest.raises(RemoteError, match="Refused"):
        retry_of(call)
    assert len(made) == 1
