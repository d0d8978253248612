"""The journal: what was sent, what it may cost and what came back, so that nothing is paid twice.

One sqlite file in ComfyUI's system user folder. A job is written down before it is sent; its
request id as soon as there is one; its result as the bytes that came. Any number of threads and
programs may use the file at once: each call is one transaction on a connection of its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import JournalError
from .spend_limits import check_cap

FILE_NAME = "journal.sqlite3"
SESSION = uuid.uuid4().hex  # one run of the program
KEPT_DAYS = 30
KEPT_BYTES = 2 << 30
BUSY_SECONDS = 10.0

_CREATING = threading.Lock()
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,            -- schemas.job_key
    server TEXT NOT NULL,         -- its queue URL
    about TEXT NOT NULL,          -- seed and size, to know the job's result by
    state TEXT NOT NULL,
    request_id TEXT,
    session TEXT NOT NULL,        -- which run of the program sent it
    run TEXT NOT NULL,            -- which run of a node sent it
    estimate REAL,                -- US dollars, before; NULL = price unknown
    cost REAL,                    -- US dollars, after
    meta TEXT,                    -- the output's own words, as JSON
    created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_key ON jobs (key);
CREATE INDEX IF NOT EXISTS jobs_request ON jobs (request_id);
CREATE TABLE IF NOT EXISTS images (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE TABLE IF NOT EXISTS prices (
    server TEXT PRIMARY KEY,
    unit_price REAL NOT NULL,
    unit TEXT NOT NULL,
    asked REAL NOT NULL
);
"""


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
OPEN = (State.SENDING, State.UNKNOWN, State.SENT, State.DONE, State.FLAGGED)


@dataclass(frozen=True)
class Entry:
    """One job as written down."""

    id: int
    state: State
    request_id: str | None
    session: str
    created: float
    estimate: float | None
    meta: str | None


@dataclass(frozen=True)
class Caps:
    """US dollars that one run of a node, and all since the program started, may cost; 0 = any."""

    run: float
    session: float


class Journal:
    """The file, and every way it is read or changed.

    Args:
        folder: where it lies; made if it is not there, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        with self._translated():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        with _CREATING, self.open() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                db.execute("PRAGMA auto_vacuum = FULL")
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(SCHEMA + "PRAGMA user_version = 1;")

    def find(self, key: str) -> Entry | None:
        """The newest job for that picture, unless sending it again is the right thing to do."""
        return self._one(f"key = ? AND state IN ({_marks(OPEN)})", (key, *OPEN))

    def find_request(self, request_id: str, server: str) -> Entry | None:
        """The newest job of that request id on that server."""
        return self._one("request_id = ? AND server = ?", (request_id, server))

    def begin(
        self, key: str, server: str, run: str, estimate: float | None, caps: Caps, about: str = ""
    ) -> int | Entry:
        """Write a job down before it is sent: its number, or the open job that is already there.

        Raises:
            InputError: with this job, and all that may still be billed, a cap would be passed.
        """
        with self.open() as db:
            db.execute("BEGIN IMMEDIATE")
            query = f"SELECT {FIELDS} FROM jobs WHERE key = ? AND state IN ({_marks(OPEN)})"
            row = db.execute(query + " ORDER BY id DESC", (key, *OPEN)).fetchone()
            if row is not None:
                return _entry(row)
            check_cap("run", _spent(db, "run", run), estimate, caps.run)
            check_cap("session", _spent(db, "session", SESSION), estimate, caps.session)
            job = db.execute(
                "INSERT INTO jobs (key, server, about, state, session, run, estimate, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (key, server, about, State.SENDING, SESSION, run, estimate, time.time()),
            ).lastrowid
            db.execute("COMMIT")
            assert job is not None
            return job

    def drop(self, job: int) -> None:
        """Forget a job that was never accepted."""
        self._run("DELETE FROM jobs WHERE id = ?", (job,))

    def end(
        self, job: int, state: State, cost: float | None, *, may_be_billed: bool = False
    ) -> None:
        """The job is over. One that may have been billed counts as estimated if `cost` is unknown.

        One that may never have been accepted is not lost because the service does not know it: the
        id it is asked by may be no job's.
        """
        change = (
            "UPDATE jobs SET state = ?, cost = coalesce(?, cost, CASE WHEN ? THEN estimate END)"
        )
        change += " WHERE id = ? AND NOT (state = ? AND ? = ?)"
        values = (state, cost, may_be_billed, job, State.UNKNOWN, state, State.LOST)
        self._run(change, values)

    def answer_unknown(self, collected: int, about: str) -> None:
        """A collected job turns out to be the one of that server whose answer was lost: the lost
        one gets its id and images, if there is exactly one that it can be.
        """
        with self.open() as db:
            db.execute("BEGIN IMMEDIATE")
            query = "SELECT id FROM jobs WHERE (state = ? OR (state = ? AND session != ?))"
            query += " AND about = ? AND server = (SELECT server FROM jobs WHERE id = ?)"
            values = (State.UNKNOWN, State.SENDING, SESSION, about, collected)
            rows = db.execute(query, values).fetchall()
            if len(rows) == 1:
                lost = rows[0][0]
                db.execute(
                    "UPDATE jobs SET (state, request_id, meta) ="
                    " (SELECT state, request_id, meta FROM jobs WHERE id = ?) WHERE id = ?",
                    (collected, lost),
                )
                db.execute("UPDATE images SET job = ? WHERE job = ?", (lost, collected))
                db.execute("DELETE FROM jobs WHERE id = ?", (collected,))
            db.execute("COMMIT")

    def sent(self, job: int, request_id: str) -> None:
        """The job was accepted under this id."""
        change = "UPDATE jobs SET state = ?, request_id = ? WHERE id = ?"
        self._run(change, (State.SENT, request_id, job))

    def unknown(self, job: int, request_id: str | None) -> None:
        """The job was sent, and no usable answer came; its id may have stood on what did come."""
        change = "UPDATE jobs SET state = ?, request_id = ? WHERE id = ?"
        self._run(change, (State.UNKNOWN, request_id, job))

    def adopt(self, request_id: str, server: str) -> int:
        """Write down a job that this journal has never seen, by its request id."""
        with self.open() as db:
            job = db.execute(
                "INSERT INTO jobs (key, server, about, state, request_id, session, run, cost,"
                " created) VALUES ('', ?, '', ?, ?, '', '', 0, ?)",
                (server, State.SENT, request_id, time.time()),
            ).lastrowid
            assert job is not None
            return job

    def keep(
        self, job: int, state: State, images: Sequence[bytes], cost: float | None, meta: str,
        request_id: str | None = None,
    ) -> None:  # fmt: skip
        """The result of a job, all of it or nothing; makes room by dropping the oldest images."""
        with self.open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "UPDATE jobs SET state = ?, cost = coalesce(?, cost), meta = ?,"
                " request_id = coalesce(?, request_id) WHERE id = ?",
                (state, cost, meta, request_id, job),
            )
            db.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?)",
                [(job, number, data) for number, data in enumerate(images)],
            )
            _make_room(db, job)
            db.execute("COMMIT")

    def images(self, job: int) -> list[bytes]:
        """The bytes of a finished job, in order."""
        with self.open() as db:
            query = "SELECT data FROM images WHERE job = ? ORDER BY number"
            return [row[0] for row in db.execute(query, (job,))]

    def spent(self, *, run: str | None = None) -> float:
        """US dollars of this run or, without one, of this session; what is under way included."""
        with self.open() as db:
            return _spent(db, "session", SESSION) if run is None else _spent(db, "run", run)

    def price(self, server: str, youngest: float) -> tuple[float, str] | None:
        """A price asked for at most `youngest` seconds ago: dollars per unit, unit."""
        with self.open() as db:
            query = "SELECT unit_price, unit FROM prices WHERE server = ? AND asked > ?"
            row = db.execute(query, (server, time.time() - youngest)).fetchone()
            return None if row is None else (float(row[0]), str(row[1]))

    def set_price(self, server: str, unit_price: float, unit: str) -> None:
        values = (server, unit_price, unit, time.time())
        self._run("INSERT OR REPLACE INTO prices VALUES (?, ?, ?, ?)", values)

    def _one(self, where: str, values: tuple[object, ...]) -> Entry | None:
        with self.open() as db:
            query = f"SELECT {FIELDS} FROM jobs WHERE {where} ORDER BY id DESC"
            row = db.execute(query, values).fetchone()
            return None if row is None else _entry(row)

    def _run(self, change: str, values: tuple[object, ...]) -> None:
        with self.open() as db:
            db.execute(change, values)

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, for a question that no other method asks.

        Raises:
            JournalError: the file cannot be used.
        """
        with self._translated():
            connection = sqlite3.connect(self._file, timeout=BUSY_SECONDS, isolation_level=None)
            with closing(connection) as db:
                db.execute("PRAGMA foreign_keys = ON")
                yield db

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"The journal of paid jobs cannot be used: {self._file}: {error}. Without it a job "
                "could be paid for twice, so nothing is sent. Make room or repair the rights; if "
                "the file is broken, move it away."
            ) from error


FIELDS = "id, state, request_id, session, created, estimate, meta"


def _entry(row: tuple[object, ...]) -> Entry:
    job, state, request_id, session, created, estimate, meta = row
    return Entry(job, State(state), request_id, session, created, estimate, meta)  # type: ignore[arg-type]


def _spent(db: sqlite3.Connection, column: str, value: str) -> float:
    each = f"coalesce(cost, CASE WHEN state IN ({_marks(SPENT)}) THEN estimate END)"
    query = f"SELECT total({each}) FROM jobs WHERE {column} = ?"
    return float(db.execute(query, (*SPENT, value)).fetchone()[0])


def _make_room(db: sqlite3.Connection, newest: int) -> None:
    """Drops images that are too old, and the oldest while there are too many. What they cost
    counts on until the session ends.
    """
    expired = time.time() - KEPT_DAYS * 86400
    old = "SELECT id FROM jobs WHERE created < ? AND id != ? AND state = ?"
    rows = db.execute(old, (expired, newest, State.DONE)).fetchall()
    drop_images(db, [row[0] for row in rows])
    db.execute("DELETE FROM jobs WHERE created < ? AND session != ?", (expired, SESSION))
    while db.execute("SELECT total(length(data)) FROM images").fetchone()[0] > KEPT_BYTES:
        oldest = db.execute("SELECT min(job) FROM images WHERE job != ?", (newest,)).fetchone()[0]
        if oldest is None:
            return
        drop_images(db, [oldest])


def drop_images(db: sqlite3.Connection, jobs: Sequence[int]) -> None:
    """Forgets what these finished jobs made; what they cost counts on."""
    rows = [(job,) for job in jobs]
    db.executemany("DELETE FROM images WHERE job = ?", rows)
    db.executemany(f"UPDATE jobs SET state = '{State.LOST.value}' WHERE id = ?", rows)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
