"""The tables of jobs, keys and files: sqlite for one head, Postgres for several."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ...nodes.errors import InputError
from .settings import SQLITE_FILE, Settings

METADATA = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # sqlite counts up in INTEGER columns only

# A row of `jobs` stays small, as it is read by every question; the bodies lie beside it. Times are
# seconds since 1970.
JOBS = Table(
    "jobs",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("key_id", String(32), nullable=False),
    Column("state", String(8), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("start_by", Float),  # the client's own deadline
    Column("keep_seconds", Float, nullable=False),  # its answer, from its end on
    Column("file_seconds", Float, nullable=False),  # the pictures it made
    Column("attempts", Integer, nullable=False, default=0),
    Column("may_retry", Boolean, nullable=False, default=True),
    Column("cancelled", Boolean, nullable=False, default=False),
    Column("owner", String(32)),  # the head that runs it, and until when that is believed
    Column("lease", Float),
    Column("status", Integer),
    Column("error_type", String(64)),
    Index("jobs_in_order", "state", "priority", "number"),
    Index("jobs_of_key", "key_id", "created"),
)
PAYLOADS = Table(
    "payloads",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)
ANSWERS = Table(
    "answers",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
LOGS = Table(
    "logs",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
)
KEYS = Table(
    "keys",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)
FILES = Table(
    "files",
    METADATA,
    Column("name", String(80), primary_key=True),
    Column("key_id", String(32), nullable=False),
    Column("content_type", String(80), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("whole", Boolean, nullable=False),  # False while it is being uploaded
    Column("expires", Float, nullable=False),
    Index("files_of_key", "key_id"),
    Index("files_by_end", "expires"),
)


def open_database(settings: Settings) -> Engine:
    """The database, with its tables. The data folder is made for this user alone.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        for folder in (settings.data, settings.files):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(
            f"{settings.data} cannot be used as the data folder ({error.strerror}). Give another."
        ) from error
    try:
        engine = _engine(settings)
        METADATA.create_all(engine)
    except (SQLAlchemyError, ImportError) as error:
        raise InputError(
            f"The database cannot be opened ({str(error).splitlines()[0]}). Check the database "
            "URL, and that its driver is installed."
        ) from error
    if not settings.database:
        os.chmod(settings.data / SQLITE_FILE, 0o600)
    return engine


def _engine(settings: Settings) -> Engine:
    url = settings.database_url
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=10, max_overflow=10, pool_pre_ping=True)
    # One connection: threads wait for it in turn, where several would find the file locked.
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=60,
        connect_args={"check_same_thread": False, "timeout": 60},
    )  # fmt: skip
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # at once for writing, so that no transaction finds another process ahead of it half way
    connection.exec_driver_sql("BEGIN IMMEDIATE")
