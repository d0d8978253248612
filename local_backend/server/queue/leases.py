"""The queue as a head works it off: it claims jobs under a lease. job_states.py draws the states.

A head holds its jobs by a lease, renewed while it lives. If it dies, the lease runs out, and
`reclaim` frees its jobs (a lease in the sense of Gray and Cheriton, 1989).
"""

from __future__ import annotations

import time

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, select, update

from ..database import ANSWERS, JOBS, LOGS, PAYLOADS
from ..messages import Answer
from .job_states import (
    CANCELLED,
    DONE,
    LATE,
    LOST,
    QUEUED,
    RUNNING,
    Job,
    finish,
    give_back,
    job_of,
    select_jobs,
    write_log,
)

LEASE = 10.0  # seconds a head counts as alive after it last renewed
ATTEMPTS = 2  # a job whose worker died is run once more


class Leases:
    """The jobs of one head, `owner`. Safe for several threads."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine, self._owner = engine, owner

    def claim(self, count: int) -> list[Job]:
        """The next jobs of the queue, for this head alone, until its lease ends."""
        wanted = select_jobs().where(JOBS.c.state == QUEUED, JOBS.c.owner.is_(None))
        wanted = wanted.order_by(JOBS.c.priority, JOBS.c.number).limit(count)
        with self._engine.begin() as db:
            jobs = [job_of(row) for row in db.execute(wanted.with_for_update(skip_locked=True))]
            if jobs:
                mine = JOBS.c.number.in_([job.number for job in jobs])
                until = time.time() + LEASE
                db.execute(update(JOBS).where(mine).values(owner=self._owner, lease=until))
            return jobs

    def start(self, number: int) -> bool:
        """A worker has begun; False if the job is not to be run any more."""
        with self._engine.begin() as db:
            begun = db.execute(
                update(JOBS)
                .where(JOBS.c.number == number, JOBS.c.owner == self._owner, JOBS.c.state == QUEUED)
                .values(state=RUNNING, started=time.time(), attempts=JOBS.c.attempts + 1)
            )
            return bool(begun.rowcount)

    def log(self, number: int, level: str, message: str) -> None:
        with self._engine.begin() as db:
            write_log(db, number, level, message)

    def finish(self, number: int, answer: Answer) -> bool:
        """The job's answer; False if it has one, or belongs to another head by now."""
        with self._engine.begin() as db:
            return finish(db, number, answer, JOBS.c.owner == self._owner)

    def give_back(self, number: int) -> None:
        """Into the queue again, at its old place, as if it had not been begun."""
        with self._engine.begin() as db:
            give_back(db, self._mine(number), counts=False)

    def lost(self, number: int, why: str) -> None:
        """Its worker died: into the queue again, once; the second time it is over."""
        with self._engine.begin() as db:
            row = db.execute(select_jobs().where(self._mine(number))).one_or_none()
            if row is not None:
                _take(db, job_of(row), why)

    def renew(self) -> set[int]:
        """The lease of all jobs of this head; their numbers, less those it is to stop."""
        mine = and_(JOBS.c.owner == self._owner, JOBS.c.state != DONE)
        with self._engine.begin() as db:
            db.execute(update(JOBS).where(mine).values(lease=time.time() + LEASE))
            living = select(JOBS.c.number).where(mine, JOBS.c.cancelled.is_(False))
            return set(db.execute(living).scalars())

    def reclaim(self) -> list[int]:
        """Take jobs from heads that are gone, and end those that may not run again; and those
        whose client's deadline for the start has passed. The numbers of all.
        """
        now = time.time()
        gone = and_(JOBS.c.owner.is_not(None), JOBS.c.lease < now, JOBS.c.state != DONE)
        with self._engine.begin() as db:
            dead = db.execute(select_jobs().where(gone).with_for_update(skip_locked=True)).all()
            for row in dead:
                _take(db, job_of(row), "The server was stopped; the job runs again.")
            late = and_(JOBS.c.state == QUEUED, JOBS.c.start_by < now)
            too_late = list(db.execute(select(JOBS.c.number).where(late)).scalars())
            for number in too_late:
                finish(db, number, LATE, JOBS.c.state == QUEUED)
        return [row.number for row in dead] + too_late

    def forget(self) -> None:
        """Delete the jobs whose answer has been stored for its time."""
        old = and_(JOBS.c.state == DONE, JOBS.c.ended + JOBS.c.keep_seconds < time.time())
        with self._engine.begin() as db:
            numbers = list(db.execute(select(JOBS.c.number).where(old).limit(500)).scalars())
            for table in (ANSWERS, LOGS, PAYLOADS, JOBS):
                db.execute(delete(table).where(table.c.number.in_(numbers)))

    def _mine(self, number: int) -> ColumnElement[bool]:
        return and_(JOBS.c.number == number, JOBS.c.owner == self._owner, JOBS.c.state != DONE)


def _take(db: Connection, job: Job, why: str) -> None:
    this = JOBS.c.number == job.number
    if job.cancelled:
        finish(db, job.number, CANCELLED, this)
    elif job.state == RUNNING and not (job.may_retry and job.attempts < ATTEMPTS):
        finish(db, job.number, LOST, this)
    else:
        give_back(db, this, counts=True)
        if job.state == RUNNING:
            write_log(db, job.number, "WARN", why)
