"""The queue as its clients see it: every job from its submission until it is forgotten.

job_states.py has the states and who changes them.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, func, insert, select, update

from ..database import ANSWERS, JOBS, LOGS, PAYLOADS
from ..messages import Answer
from .job_states import (
    CANCELLED,
    DONE,
    QUEUED,
    RUNNING,
    Job,
    LogEntry,
    ahead,
    finish,
    job_of,
    select_jobs,
    write_answer,
    write_log,
)


@dataclass(frozen=True)
class NewJob:
    """A job as it arrives.

    Attributes:
        body: the input as it came, JSON.
        start_by: seconds from now until it must have started; None for no deadline.
        keep_seconds, file_seconds: how long its answer and its pictures are kept.
    """

    key_id: str
    body: bytes
    keep_seconds: float
    file_seconds: float
    low_priority: bool = False
    start_by: float | None = None
    may_retry: bool = True
    warnings: tuple[str, ...] = ()


class QueueFullError(Exception):
    """The job was not accepted; the message says why."""


class JobStore:
    """Safe for several threads, and for several heads on one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job: NewJob, max_queue: int, per_minute: int) -> tuple[Job, int]:
        """A new job, and how many stand before it.

        Raises:
            QueueFullError: that many wait already, or the key sent that many in the last minute.
        """
        now = time.time()
        row = dict(
            id=str(uuid.uuid4()), key_id=job.key_id, state=QUEUED, created=now,
            priority=int(job.low_priority), keep_seconds=job.keep_seconds,
            file_seconds=job.file_seconds, may_retry=job.may_retry,
            start_by=None if job.start_by is None else now + job.start_by,
        )  # fmt: skip
        with self._engine.begin() as db:
            self._check_room(db, job.key_id, now, max_queue, per_minute)
            number = _insert(db, row)
            db.execute(insert(PAYLOADS).values(number=number, body=job.body))
            for text in job.warnings:
                write_log(db, number, "WARN", text)
            found = db.execute(select_jobs().where(JOBS.c.number == number)).one()
            return job_of(found), ahead(db, found)

    def refuse(self, job: NewJob, answer: Answer) -> Job:
        """A job that ends before it begins: its answer is stored like any other's."""
        now = time.time()
        row = dict(
            id=str(uuid.uuid4()), key_id=job.key_id, state=DONE, created=now, ended=now,
            priority=int(job.low_priority), keep_seconds=job.keep_seconds,
            file_seconds=job.file_seconds,
        )  # fmt: skip
        with self._engine.begin() as db:
            number = _insert(db, row)
            write_answer(db, number, answer)
            return job_of(db.execute(select_jobs().where(JOBS.c.number == number)).one())

    def find(self, request_id: str, key_id: str) -> Job | None:
        """The key's own job of that id."""
        with self._engine.connect() as db:
            row = db.execute(
                select_jobs().where(JOBS.c.id == request_id, JOBS.c.key_id == key_id)
            ).one_or_none()
        return None if row is None else job_of(row)

    def position(self, job: Job) -> int:
        """How many jobs wait before this one."""
        with self._engine.connect() as db:
            return ahead(db, job)

    def logs(self, number: int, after: int = 0) -> list[LogEntry]:
        """The job's lines, from that index on."""
        wanted = select(LOGS.c.at, LOGS.c.level, LOGS.c.message).where(LOGS.c.number == number)
        with self._engine.connect() as db:
            rows = db.execute(wanted.where(LOGS.c.line >= after).order_by(LOGS.c.line))
            return [LogEntry(*row) for row in rows]

    def answer(self, number: int) -> tuple[int, dict[str, str], bytes] | None:
        """The status, headers and body of a job that is done."""
        wanted = select(JOBS.c.status, ANSWERS.c.headers, ANSWERS.c.body).join(
            ANSWERS, ANSWERS.c.number == JOBS.c.number
        )
        with self._engine.connect() as db:
            row = db.execute(wanted.where(JOBS.c.number == number)).one_or_none()
        return None if row is None else (row.status, json.loads(row.headers), row.body)

    def payload(self, number: int) -> bytes | None:
        """The input of a job that is not done."""
        with self._engine.connect() as db:
            wanted = select(PAYLOADS.c.body).where(PAYLOADS.c.number == number)
            found: bytes | None = db.execute(wanted).scalar_one_or_none()
            return found

    def counts(self) -> dict[str, int]:
        """How many jobs are queued and running."""
        wanted = select(JOBS.c.state, func.count()).where(JOBS.c.state != DONE)
        with self._engine.connect() as db:
            found = {row[0]: row[1] for row in db.execute(wanted.group_by(JOBS.c.state))}
        return {state: found.get(state, 0) for state in (QUEUED, RUNNING)}

    def cancel(self, job: Job) -> str:
        """fal's word for what became of it: OK, CANCELLATION_REQUESTED or ALREADY_COMPLETED."""
        with self._engine.begin() as db:
            if finish(db, job.number, CANCELLED, JOBS.c.state == QUEUED):
                return "OK"
            asked = db.execute(
                update(JOBS)
                .where(JOBS.c.number == job.number, JOBS.c.state == RUNNING)
                .values(cancelled=True)
            )
            return "CANCELLATION_REQUESTED" if asked.rowcount else "ALREADY_COMPLETED"

    def _check_room(
        self, db: Connection, key_id: str, now: float, max_queue: int, per_minute: int
    ) -> None:
        count = select(func.count()).select_from(JOBS)
        if db.execute(count.where(JOBS.c.state == QUEUED)).scalar_one() >= max_queue:
            raise QueueFullError(f"The queue is full: {max_queue} jobs wait. Try again later.")
        recent = and_(JOBS.c.key_id == key_id, JOBS.c.created > now - 60)
        if db.execute(count.where(recent)).scalar_one() >= per_minute:
            raise QueueFullError(f"This key sent {per_minute} jobs in a minute. Try again later.")


def _insert(db: Connection, row: dict[str, Any]) -> int:
    key = db.execute(insert(JOBS).values(row)).inserted_primary_key
    assert key is not None
    number: int = key[0]
    return number
