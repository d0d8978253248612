"""The journal: what was sent, what it may cost and what came back, so that nothing is paid twice.

One sqlite file in ComfyUI's system user folder, and the pictures as files beside it (job_pictures).
A job is written down before it is sent; its request id as soon as there is one; its result as the
bytes that came. Each call is one transaction on a connection of its own, or several small ones
where it drops pictures. Plain files and sqlite, and no diskcache: a picture and the state of its
job change in one transaction, which a cache with a database of its own cannot give.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import JournalError
from . import job_housekeeping
from .job_database import Database
from .job_pictures import PictureFolder, PictureMissingError
from .job_sends import is_leased, new_lease
from .job_states import (
    OPEN,
    UNSETTLED,
    Entry,
    State,
    TransitionError,
    check_same,
    create,
    marks,
    move,
    state_of,
)
from .spend_limits import SpendLimits, check_limit, spent_where

LOG = logging.getLogger("onereward")
SESSION = uuid.uuid4().hex  # one run of the program
FIELDS = "id, state, request_id, session, estimate, meta, lease"  # those of an Entry, and a lease


class Journal(Database):
    """The journal, and every way it is read or changed.

    Attributes:
        pictures: the files of finished jobs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures = PictureFolder(folder)
        with self.translated():
            job_housekeeping.start(self, self.file)

    def find(self, key: str) -> Entry | None:
        """The newest job for that picture, unless sending it again is the right thing to do."""
        with self.open() as db:
            return self._open_job(db, key)

    def find_request(self, request_id: str, server: str) -> Entry | None:
        """The newest job of that request id on that server."""
        if self.sends.owes():
            with self.transaction():  # which writes what is owed; it may be this very id
                pass
        with self.open() as db:
            return self._newest(db, "request_id = ? AND server = ?", (request_id, server))

    def begin(
        self, key: str, server: str, run: str, estimate: float | None, limits: SpendLimits,
        about: str = "", prompt: str | None = None,
    ) -> int | Entry:  # fmt: skip
        """Write a job down before it is sent: its number, or the open job that is already there.
        The caller ends it with `sent`, `unknown` or `drop`; until then it is a live send.

        Raises:
            InputError: with this job, and all that may still be billed, a limit would be passed.
        """
        job = 0
        try:
            with self.transaction() as db:
                entry = self._open_job(db, key)
                if entry is not None:
                    return entry
                spent = spent_where(db, "run = ?", run)
                check_limit("run", spent, estimate, limits.run)
                spent = spent_where(db, "session = ?", SESSION)
                check_limit("session", spent, estimate, limits.session)
                job = create(db, State.SENDING, {
                    "key": key, "server": server, "about": about, "session": SESSION, "run": run,
                    "estimate": estimate, "created": time.time(), "lease": new_lease(),
                    "prompt": _hash(prompt),
                })  # fmt: skip
                self.sends.begin(job, key)  # before another thread can see the row
            return job
        except BaseException:
            self.sends.end(job)
            raise

    def sent(self, job: int, request_id: str) -> None:
        """The job was accepted under this id."""
        self._end_send(job, State.SENT, {"request_id": request_id})

    def unknown(self, job: int, request_id: str | None) -> None:
        """The job was sent, and no usable answer came; its id may have stood on what did come."""
        self._end_send(job, State.UNKNOWN, {"request_id": request_id})

    def drop(self, job: int) -> None:
        """Forget a job that was never accepted."""
        self._end_send(job, None, {})

    def _end_send(self, job: int, to: State | None, columns: dict[str, object]) -> None:
        key = self.sends.key_of(job)

        def change(db: sqlite3.Connection) -> None:
            check_same(db, job, "key", key)
            if to is None and state_of(db, job) not in (State.SENDING, State.SENT):
                return  # another process has written a result meanwhile, or the row is gone
            move(db, job, to, columns)

        try:
            with self.sends.owing(change), self.transaction() as db:
                change(db)
        finally:
            self.sends.end(job)

    def end(
        self, job: int, state: State, cost: float | None, *, may_be_billed: bool = False
    ) -> None:
        """The job is over. One that may have been billed counts as estimated if `cost` is unknown.
        An end that may not follow the job's state changes nothing: one that may never have been
        accepted is not lost because the service does not know it, and a result that another
        process has written stays.
        """
        billed = "coalesce(?, cost, CASE WHEN ? THEN estimate END)"
        with self.transaction() as db:
            try:
                move(db, job, state)
            except TransitionError as error:
                LOG.info("%s", error)
                return
            values = (cost, may_be_billed, job)
            db.execute(f"UPDATE jobs SET cost = {billed} WHERE id = ?", values)

    def answer_unknown(self, collected: int, about: str, prompt: str | None = None) -> None:
        """A collected job turns out to be the one of that server whose answer was lost: the lost
        one gets its id and images, if there is exactly one that it can be. One with another prompt,
        or with an id of its own, it cannot be.
        """
        this = "(SELECT {} FROM jobs WHERE id = ?)"
        where = f"state IN (?, ?) AND about = ? AND server = {this.format('server')}"
        where += f" AND coalesce(request_id = {this.format('request_id')}, 1)"
        where += " AND coalesce(prompt = ?, 1)"
        states = (State.UNKNOWN, State.SENDING)
        values = (*states, about, collected, collected, _hash(prompt))
        with self.transaction() as db:
            entries = self._entries(db, where, values)
            lost = [entry.id for entry in entries if not entry.being_sent]
            if len(lost) != 1:
                return
            query = "SELECT state, request_id, meta FROM jobs WHERE id = ?"
            state, request_id, meta = db.execute(query, (collected,)).fetchone()
            move(db, lost[0], State(state), {"request_id": request_id, "meta": meta})
            db.execute("UPDATE pictures SET job = ? WHERE job = ?", (lost[0], collected))
            move(db, collected, None)

    def adopt(self, request_id: str, server: str) -> int:
        """Write down a job that this journal has never seen, by its request id; its number, also if
        another process has just done so.
        """
        with self.transaction() as db:
            known = self._newest(db, "request_id = ? AND server = ?", (request_id, server))
            if known is not None:
                return known.id
            return create(db, State.SENT, {
                "key": "", "server": server, "about": "", "request_id": request_id, "session": "",
                "run": "", "cost": 0, "created": time.time(), "lease": 0,
            })  # fmt: skip

    def retain(
        self, job: int, state: State, images: Sequence[bytes], cost: float | None, meta: str,
        request_id: str | None = None,
    ) -> None:  # fmt: skip
        """The result of a job, all of it or nothing; makes room by dropping the oldest images.
        Where only the database cannot be written, the files stay, and the row follows with the
        next write of this process.
        """
        files = self.write_pictures(images)

        def change(db: sqlite3.Connection) -> list[str]:
            check_same(db, job, "request_id", request_id)
            self.pictures.check(files)
            move(db, job, state, {"meta": meta})
            query = "UPDATE jobs SET cost = coalesce(?, cost),"
            query += " request_id = coalesce(?, request_id) WHERE id = ?"
            db.execute(query, (cost, request_id, job))
            replaced, _ = _delete_rows(db, job)
            rows = [
                (job, number, name, len(data), zlib.crc32(data))
                for number, (name, data) in enumerate(zip(files, images, strict=True))
            ]
            db.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?)", rows)
            return replaced

        with self.sends.owing(change), self.transaction() as db:
            replaced = change(db)
        self.pictures.delete(replaced)
        try:
            job_housekeeping.make_room(self, job)
        except JournalError as error:  # the result is written all the same
            LOG.warning("No room was made: %s", error)

    def images(self, job: int) -> list[bytes]:
        """The bytes of a finished job, in order.

        Raises:
            PictureMissingError: a file is gone or holds something else. The journal stays as it is:
                the file may be put back, or fetched again from the service.
        """
        rows = self._picture_rows(job)
        while True:
            try:
                with self.translated():
                    return [data or b"" if file is None else self.pictures.read(file, size, crc)
                            for _, file, size, crc, data in rows]  # fmt: skip
            except PictureMissingError:
                before, rows = rows, self._picture_rows(job)
                if rows == before:  # else another process has replaced them meanwhile
                    raise

    def _picture_rows(self, job: int) -> list[tuple[int, str | None, int, int, bytes | None]]:
        query = "SELECT number, file, size, crc, NULL FROM pictures WHERE job = ? UNION ALL"
        query += " SELECT number, NULL, 0, 0, data FROM blobs WHERE job = ? ORDER BY number"
        with self.open() as db:
            return db.execute(query, (job, job)).fetchall()

    def is_live(self, job: int, session: str, lease: float | None) -> bool:
        """Whether a job that stands as being sent is being sent now: by this process, which knows
        its own, or by another one that renews its lease.
        """
        return self.sends.key_of(job) is not None if session == SESSION else is_leased(lease)

    def write_pictures(self, images: Iterable[bytes]) -> list[str]:
        """New files, which a row should name soon; their names."""
        with self.translated():
            return self.pictures.write_all(images)

    def drop_images(self, jobs: Sequence[int]) -> int:
        """Forget what a few finished jobs made, in one short transaction; the freed bytes. What
        they cost counts on. The files are deleted outside the transaction.
        """
        files: list[str] = []
        freed = 0
        with self.transaction() as db:
            for job in jobs:
                names, size = _delete_rows(db, job)
                files, freed = files + names, freed + size
                if state_of(db, job) is State.DONE:
                    move(db, job, State.LOST)
        self.pictures.delete(files)
        return freed

    def expired(self, before: float, newest: int) -> list[int]:
        """The results of earlier sessions that were begun before that time (since 1970). Those of
        this one stay: where the clock is set right meanwhile, they are not as old as they seem.
        """
        query = "SELECT id FROM jobs WHERE created < ? AND session != ? AND id != ? AND state = ?"
        with self.open() as db:
            return [row[0] for row in db.execute(query, (before, SESSION, newest, State.DONE))]

    def forget(self, before: float, newest: int) -> None:
        """Delete the rows of earlier sessions that were begun before that time (since 1970). A job
        that may still have a result stays: where the clock was wrong, it may be a new one.
        """
        query = "DELETE FROM jobs WHERE created < ? AND session != ? AND id != ?"
        query += f" AND state NOT IN ({marks(UNSETTLED)})"
        with self.transaction() as db:
            db.execute(query, (before, SESSION, newest, *UNSETTLED))

    def retained(self) -> tuple[int, int]:
        """Bytes and number of all pictures."""
        with self.open() as db:
            query = "SELECT total(size), count(*) FROM (SELECT size FROM pictures"
            query += " UNION ALL SELECT length(data) FROM blobs)"
            size, number = db.execute(query).fetchone()
            return int(size), int(number)

    def spent(self, *, run: str | None = None, since: float | None = None) -> float:
        """US dollars of this run, or since that time (seconds since 1970), or of this session; what
        is under way included.
        """
        with self.open() as db:
            if since is not None:
                return spent_where(db, "created > ?", since)
            where = ("session = ?", SESSION) if run is None else ("run = ?", run)
            return spent_where(db, *where)

    def price(self, server: str, youngest: float) -> tuple[float, str] | None:
        """A price asked for at most `youngest` seconds ago: dollars per unit, unit."""
        with self.open() as db:
            query = "SELECT unit_price, unit FROM prices WHERE server = ? AND asked > ?"
            row = db.execute(query, (server, time.time() - youngest)).fetchone()
            return None if row is None else (float(row[0]), str(row[1]))

    def set_price(self, server: str, unit_price: float, unit: str) -> None:
        values = (server, unit_price, unit, time.time())
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO prices VALUES (?, ?, ?, ?)", values)

    def _open_job(self, db: sqlite3.Connection, key: str) -> Entry | None:
        return self._newest(db, f"key = ? AND state IN ({marks(OPEN)})", (key, *OPEN))

    def _newest(
        self, db: sqlite3.Connection, where: str, values: tuple[object, ...]
    ) -> Entry | None:
        return next(iter(self._entries(db, where, values, "LIMIT 1")), None)

    def _entries(
        self, db: sqlite3.Connection, where: str, values: tuple[object, ...], limit: str = ""
    ) -> list[Entry]:
        query = f"SELECT {FIELDS} FROM jobs WHERE {where} ORDER BY id DESC {limit}"
        rows = db.execute(query, values).fetchall()
        return [self._entry(*row) for row in rows]

    def _entry(
        self, job: int, state: str, request_id: str | None, session: str,
        estimate: float | None, meta: str | None, lease: float | None,
    ) -> Entry:  # fmt: skip
        sending = State(state) is State.SENDING and self.is_live(job, session, lease)
        return Entry(job, State(state), request_id, session, estimate, meta, sending)


def _delete_rows(db: sqlite3.Connection, job: int) -> tuple[list[str], int]:
    """Let a job name no pictures; the names of the files it had, and the bytes of all of them."""
    rows = db.execute("SELECT file, size FROM pictures WHERE job = ?", (job,)).fetchall()
    blobs = db.execute("SELECT total(length(data)) FROM blobs WHERE job = ?", (job,)).fetchone()[0]
    for table in ("pictures", "blobs"):
        db.execute(f"DELETE FROM {table} WHERE job = ?", (job,))
    return [row[0] for row in rows], int(blobs) + sum(row[1] for row in rows)


def _hash(prompt: str | None) -> str | None:
    """What the journal retains of a prompt."""
    return None if prompt is None else hashlib.sha256(prompt.encode()).hexdigest()[:16]
