"""The journal's sqlite database: connections, transactions, tables, and the step from version 1.

Any number of threads and processes may use it at once. sqlite's WAL wants a local disk: a journal
on a network drive is for one machine at a time.

Version 1 had the pictures inside the database. The step to version 2 is one short transaction: it
renames the table of the pictures and changes no row. The pictures leave it later, one by one
(job_housekeeping).

A program of version 1 that meets a journal of version 2 stops with OUTDATED as its error, before it
sends anything: it reads `images`, which is a view that cannot be read, and adds jobs without a
lease, which a trigger refuses. It can still write down how a job ends that it has under way.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import JournalError
from .job_sends import sends_of

FILE_NAME = "journal.sqlite3"
BUSY_SECONDS = 10.0
VERSION = 2
OUTDATED = (
    "a newer version of ComfyUI-OneReward has changed this file and lost nothing in it. Update the "
    "nodes that write this message, and restart ComfyUI"
)
JOBS = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,            -- schemas.job_key
    server TEXT NOT NULL,         -- its queue URL
    about TEXT NOT NULL,          -- seed and size, to know the job's result by
    state TEXT NOT NULL,          -- job_states.State
    request_id TEXT,
    session TEXT NOT NULL,        -- which run of the program sent it
    run TEXT NOT NULL,            -- which run of a node sent it
    estimate REAL,                -- US dollars, before; NULL = price unknown
    cost REAL,                    -- US dollars, after
    meta TEXT,                    -- what else the job made, as JSON
    created REAL NOT NULL
);
CREATE INDEX jobs_key ON jobs (key);
CREATE INDEX jobs_request ON jobs (request_id);
CREATE TABLE images (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE TABLE prices (
    server TEXT PRIMARY KEY,
    unit_price REAL NOT NULL,
    unit TEXT NOT NULL,
    asked REAL NOT NULL
);
"""
# From version 1 to 2. `blobs` holds the pictures that are not files yet; it stays, empty.
FILES = f"""
ALTER TABLE images RENAME TO blobs;
ALTER TABLE jobs ADD COLUMN lease REAL;  -- job_sends: seconds since 1970
ALTER TABLE jobs ADD COLUMN prompt TEXT;  -- a hash, to know the job's result by
CREATE TABLE counter (
    last INTEGER NOT NULL         -- the newest job's id, which no other job ever gets
);
INSERT INTO counter SELECT coalesce(max(id), abs(random() % 1000000000000)) FROM jobs;
CREATE TABLE pictures (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    file TEXT NOT NULL,           -- job_pictures: its name
    size INTEGER NOT NULL,        -- bytes
    crc INTEGER NOT NULL,         -- zlib.crc32 of them
    PRIMARY KEY (job, number)
);
CREATE VIEW images AS SELECT * FROM "{OUTDATED}";
CREATE TRIGGER outdated BEFORE INSERT ON jobs WHEN NEW.lease IS NULL
BEGIN SELECT RAISE(ABORT, '{OUTDATED}') ; END;
"""

_CREATING = threading.Lock()


class Database:
    """The file, made with its tables if it is not there.

    Args:
        folder: where it lies; made if it is not there, for this user alone.

    Attributes:
        file: the database, as an absolute path.
        sends: what this process knows of its jobs before the file does.

    Raises:
        JournalError: the file cannot be used, or is of a later version.
    """

    def __init__(self, folder: Path) -> None:
        self.file = (folder / FILE_NAME).absolute()
        with self.translated():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sends = sends_of(self.file, self.open)
        with _CREATING:
            with self.translated():
                _create(self.file)
            with self.open() as db:
                _prepare(db)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: what this process owes, then what the block does; all or nothing.

        Raises:
            JournalError: the file cannot be used.
        """
        with self.open() as db:
            db.execute("BEGIN IMMEDIATE")
            with self.sends.paying(db):
                yield db
                db.execute("COMMIT")

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, for a question that no other method asks.

        Raises:
            JournalError: the file cannot be used.
        """
        with self.translated():
            self.file.stat()  # sqlite would make a new one, which anybody could read
            connection = sqlite3.connect(self.file, timeout=BUSY_SECONDS, isolation_level=None)
            with closing(connection) as db:
                db.execute("PRAGMA foreign_keys = ON")
                yield db

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"The journal of paid jobs cannot be used: {self.file}: {error}. Without it a job "
                "could be paid for twice, so nothing is sent. Make room or repair the rights; if "
                "the file is broken, move it away."
            ) from error


def _create(file: Path) -> None:
    """Make an empty file for this user alone, unless there is one. One that is there is never
    opened here: closing it would end the POSIX locks that sqlite holds on it in this process, and
    another process would then take the database for unused (sqlite, "How To Corrupt", 2.2).
    """
    if file.exists():
        return
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables, or bring those of version 1 to this one."""
    version = _version(db)
    if version == VERSION:
        return
    if version > VERSION:
        raise JournalError(
            f"The journal of paid jobs is of version {version}, and this program knows versions up "
            f"to {VERSION}: {OUTDATED}. Nothing is sent."
        )
    if version == 0:
        db.execute("PRAGMA auto_vacuum = FULL")
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    version = _version(db)  # another process may have been faster
    for sql in (JOBS, FILES)[version:]:
        for statement in _statements(sql):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(sql: str) -> list[str]:
    """One by one, as `executescript` would commit the transaction first. A semicolon ends one if
    it ends its line.
    """
    lines = [line.split("--")[0].rstrip() for line in sql.splitlines()]
    return [part for part in "\n".join(lines).split(";\n") if part.strip()]
