"""What a run at the fake fal server must end with, and the checks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fakes.fal_edits import Attempt
from fakes.fal_server import FalServer
from onereward_pack.nodes.errors import OneRewardError, RemoteError, SubmissionUnknownError


@dataclass(frozen=True)
class Ends:
    """How a run ends, and the same run again, after the fault is over.

    Attributes:
        error: the class in errors.py; None if the first run succeeds.
        words: what its message holds, split at |, in any case.
        billed: what it says about money.
        accepted: jobs at the service after the first and after the second run.
        painted: the second run ends with the picture; else with the same error, and no submit.
    """

    error: type[OneRewardError] | None
    words: str = ""
    billed: bool = False
    accepted: tuple[int, int] = (0, 1)
    painted: bool = True


FINE = Ends(None, accepted=(1, 1))


def refused(error: type[OneRewardError], words: str) -> Ends:
    """It never became a job."""
    return Ends(error, words)


def kept(error: type[OneRewardError], words: str, painted: bool = True) -> Ends:
    """There is a job, and the next run goes on with it."""
    return Ends(error, words, True, (1, 1), painted)


def over(error: type[OneRewardError], words: str, billed: bool) -> Ends:
    """The service has ended or lost the job, so that the next run needs another."""
    return Ends(error, words, billed, (1, 2))


def unknown(jobs: int) -> Ends:
    """Nobody here can know whether there is a job."""
    words = "not known whether|not sent again|dashboard|Collect|seed"
    return Ends(SubmissionUnknownError, words, True, (jobs, jobs), False)


@contextmanager
def foreign_host() -> Iterator[FalServer]:
    """Another host, which must not even be spoken to."""
    with FalServer() as server:
        yield server
        assert server.requests == []


def check_twice(fal: FalServer, again: Callable[[], Attempt], first: Attempt, ends: Ends) -> None:
    """The first run has ended as it must; so does the second, which is run here."""
    check_first(fal, first, ends)
    submits = len(fal.calls("submit"))
    second = again()
    assert len(fal.jobs) == ends.accepted[1], second.told
    assert second.painted is ends.painted, second.told
    if not ends.painted:
        assert public(second.error) is ends.error, second.told
    if ends.accepted[0] == ends.accepted[1]:
        assert len(fal.calls("submit")) == submits


def check_first(fal: FalServer, first: Attempt, ends: Ends) -> None:
    """The error says what it must, and nothing that is secret."""
    assert public(first.error) is ends.error, first.told
    assert len(fal.jobs) == ends.accepted[0]
    if first.error is None:
        assert first.painted
        return
    said = str(first.error)
    assert [word for word in ends.words.split("|") if word.lower() not in said.lower()] == [], said
    assert len(said) < 1000 and "base64" not in said
    assert fal.key not in first.told and "sig=" not in first.told
    if isinstance(first.error, RemoteError):
        assert first.error.may_be_billed is ends.billed, said
    if ends.accepted[0] and ends.error is not SubmissionUnknownError:
        assert next(iter(fal.jobs)) in said


def public(error: OneRewardError | None) -> type | None:
    """The class that callers know it by."""
    known = (c for c in type(error).__mro__ if c.__module__ == OneRewardError.__module__)
    return next(known, None)
