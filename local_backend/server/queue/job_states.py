"""The states of a job of the queue, and the changes that several modules make to its row.

    JobStore.add     Leases.claim               Leases.start           finish
    ---------> queued ---------> queued, owned ------------> running -------------> done
                 ^                    |                         |   of Leases, JobStore
                 +--------------------+-------------------------+
                   give_back, by Leases.give_back, lost or reclaim

store.py (JobStore) adds, refuses (done at once) and cancels jobs. leases.py (Leases) claims,
starts, finishes and gives back; it reclaims a dead head's jobs and forgets those that are done.
dispatcher.py calls it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from .. import errors
from ..database import ANSWERS, JOBS, LOGS, PAYLOADS
from ..messages import Answer

QUEUED, RUNNING, DONE = "queued", "running", "done"
CANCELLED = errors.platform(499, errors.CANCELLED, "Request was cancelled")
LATE = errors.platform(
    504, "request_timeout", "The request was not started in time",
    **{"X-Fal-Request-Timeout-Type": "user"},
)  # fmt: skip
LOST = errors.platform(
    503, "runner_disconnected", "The worker stopped in the middle of the job, twice"
)


@dataclass(frozen=True)
class Job:
    """A row of the queue. Times are seconds since 1970."""

    number: int
    id: str
    key_id: str
    state: str
    priority: int
    created: float
    started: float | None
    ended: float | None
    keep_seconds: float
    file_seconds: float
    attempts: int
    may_retry: bool
    cancelled: bool
    status: int | None
    error_type: str | None


@dataclass(frozen=True)
class LogEntry:
    at: float
    level: str
    message: str


_COLUMNS = [JOBS.c[name] for name in Job.__dataclass_fields__]


def select_jobs() -> Select[Any]:
    return select(*_COLUMNS)


def job_of(row: Row[Any]) -> Job:
    return Job(**row._mapping)


def ahead(db: Connection, job: Any) -> int:
    before = or_(
        JOBS.c.priority < job.priority,
        and_(JOBS.c.priority == job.priority, JOBS.c.number < job.number),
    )
    wanted = select(func.count()).select_from(JOBS).where(JOBS.c.state == QUEUED, before)
    return int(db.execute(wanted).scalar_one())


def write_log(db: Connection, number: int, level: str, message: str) -> None:
    lines = select(func.count()).select_from(LOGS).where(LOGS.c.number == number)
    line = db.execute(lines).scalar_one()
    row = {"number": number, "line": line, "at": time.time(), "level": level, "message": message}
    db.execute(insert(LOGS).values(row))


def finish(db: Connection, number: int, answer: Answer, rule: ColumnElement[bool]) -> bool:
    """Whether this is the job's answer; it is not if it has one, or the rule does not hold."""
    ended = db.execute(
        update(JOBS)
        .where(JOBS.c.number == number, JOBS.c.state != DONE, rule)
        .values(state=DONE, ended=time.time())
    )
    if ended.rowcount:
        write_answer(db, number, answer)
        db.execute(delete(PAYLOADS).where(PAYLOADS.c.number == number))
    return bool(ended.rowcount)


def write_answer(db: Connection, number: int, answer: Answer) -> None:
    kind = answer.headers.get("X-Fal-Error-Type")
    this = JOBS.c.number == number
    db.execute(update(JOBS).where(this).values(status=answer.status, error_type=kind))
    body = json.dumps(answer.body).encode()
    row = {"number": number, "headers": json.dumps(dict(answer.headers)), "body": body}
    db.execute(insert(ANSWERS).values(row))


def give_back(db: Connection, rule: ColumnElement[bool], *, counts: bool) -> None:
    """Into the queue again; a run that had begun is one of the job's attempts if it `counts`."""
    begun = case((JOBS.c.state == RUNNING, 0 if counts else 1), else_=0)
    free = {"state": QUEUED, "owner": None, "lease": None, "started": None}
    db.execute(update(JOBS).where(rule).values(attempts=JOBS.c.attempts - begun, **free))
