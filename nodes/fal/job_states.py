"""The state machine of a job: states, one table of allowed transitions, one way to change."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..errors import JournalError


class State(str, Enum):
    """Where a job stands. All but the last two are taken to cost what was estimated."""

    SENDING = "sending"  # about to be sent, or the program ended before the answer
    UNKNOWN = "unknown"  # sent, and no usable answer came
    SENT = "sent"  # accepted; its request id is known
    DONE = "done"  # its images are here
    FLAGGED = "flagged"  # finished, and refused by the safety checker: there are no images
    LOST = "lost"  # finished or not, its images are no longer there or here
    FAILED = "failed"  # ended with an error
    CANCELLED = "cancelled"


SPENT = (State.SENDING, State.UNKNOWN, State.SENT, State.DONE, State.FLAGGED, State.LOST)
UNSETTLED = (State.SENDING, State.UNKNOWN, State.SENT)
OPEN = (*UNSETTLED, State.DONE, State.FLAGGED)

RESULT: set[State | None] = {State.DONE, State.FLAGGED}
ENDED: set[State | None] = RESULT | {State.LOST, State.FAILED, State.CANCELLED}
# State -> the states that may follow; None is "not in the journal". What is not here is refused:
# no finished job becomes open again, and no job that cost nothing begins to count as spent.
TRANSITIONS: dict[State | None, set[State | None]] = {
    None: {State.SENDING, State.SENT},  # begun, or adopted by its request id
    # A result comes to a job whose sender died, when the job is collected by its request id.
    State.SENDING: {State.SENT, State.UNKNOWN, *RESULT, None},
    # Not LOST: a 404 about a job that may never have been accepted says nothing.
    State.UNKNOWN: ENDED - {State.LOST},
    State.SENT: {*ENDED, None},
    State.DONE: {State.DONE, State.LOST, None},  # again, evicted, or merged into another row
    State.FLAGGED: {State.FLAGGED},
    State.LOST: {*ENDED, None},  # collected again, with whatever comes
    State.FAILED: {*RESULT, State.FAILED, None},  # a result that is here is paid for
    State.CANCELLED: {*RESULT, State.CANCELLED, None},
}


@dataclass(frozen=True)
class Entry:
    """One job as written down.

    Attributes:
        being_sent: by this process or another one, now.
    """

    id: int
    state: State
    request_id: str | None
    session: str
    estimate: float | None
    meta: str | None
    being_sent: bool


class TransitionError(JournalError):
    """A job stands in a state that the wanted one may not follow; nothing was changed."""


def check_transition(job: int, at: State | None, to: State | None) -> None:
    """Raises TransitionError unless the table allows the step."""
    if to not in TRANSITIONS[at]:
        was, wanted = (state.value if state else "not in it" for state in (at, to))
        raise TransitionError(f"Job {job} of the journal is {was}, so it cannot become {wanted}.")


def state_of(db: sqlite3.Connection, job: int) -> State | None:
    """None for a job that the journal does not hold."""
    row = db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
    return None if row is None else State(row[0])


def create(db: sqlite3.Connection, to: State, columns: Mapping[str, object]) -> int:
    """Write down a new job; its number, which no other job ever had: a late entry of a job that is
    gone never meets another one. A new journal begins to count at a random number.
    """
    check_transition(0, None, to)
    db.execute("UPDATE counter SET last = max(last, (SELECT coalesce(max(id), 0) FROM jobs)) + 1")
    job = int(db.execute("SELECT last FROM counter").fetchone()[0])
    values = {"id": job, **columns, "state": to}
    query = f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
    db.execute(query, (*values.values(),))
    return job


def move(
    db: sqlite3.Connection, job: int, to: State | None, columns: Mapping[str, object] | None = None
) -> None:
    """Change a job's state, and other columns with it. Every transition goes through here or
    `create`, inside a write transaction of the caller.

    Args:
        to: None deletes the job.

    Raises:
        TransitionError: the table does not allow it, or the job is not in the journal.
    """
    at = state_of(db, job)
    if at is None:
        raise TransitionError(f"Job {job} of the journal is no longer there.")
    check_transition(job, at, to)
    if to is None:
        db.execute("DELETE FROM jobs WHERE id = ?", (job,))
        return
    values = {"state": to, **(columns or {})}
    changes = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE jobs SET {changes} WHERE id = ?", (*values.values(), job))


def check_same(db: sqlite3.Connection, job: int, column: str, value: str | None) -> None:
    """Raises TransitionError if the row belongs to another job: what is owed may come after the
    file was replaced by a new one.
    """
    row = db.execute(f"SELECT {column} FROM jobs WHERE id = ?", (job,)).fetchone()
    if row is not None and None not in (value, row[0]) and row[0] != value:
        raise TransitionError(f"Job {job} of the journal is another one than before.")


def marks(values: Sequence[object]) -> str:
    """Placeholders for so many values of a query."""
    return ", ".join("?" * len(values))
