"""Jobs written into a journal, and other programs that write into it."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from onereward_pack.nodes.fal.job_database import FILE_NAME
from onereward_pack.nodes.fal.job_states import State
from onereward_pack.nodes.fal.job_store import Journal
from onereward_pack.nodes.fal.spend_limits import SpendLimits

NO_LIMITS = SpendLimits(0, 0)
PRELUDE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import conftest
from onereward_pack.nodes.fal.job_store import Journal
from onereward_pack.nodes.fal.spend_limits import SpendLimits
journal = Journal(Path(sys.argv[1]))
"""


def begin(
    journal: Journal,
    key: str = "key",
    estimate: float | None = 1.0,
    limits: SpendLimits = NO_LIMITS,
    run: str = "run",
) -> int:
    """A job that is new to the journal."""
    number = journal.begin(key, "fal", run, estimate, limits)
    assert isinstance(number, int)
    return number


def job_in(journal: Journal, state: State, key: str = "key", run: str = "run") -> int:
    """A job that came there by the ways that are allowed."""
    number = begin(journal, key, run=run)
    if state is State.UNKNOWN:
        journal.unknown(number, None)
    elif state is not State.SENDING:
        journal.sent(number, f"id-{key}")
    if state not in (State.SENDING, State.UNKNOWN, State.SENT):
        journal.end(number, state, None)
    return number


def finished(journal: Journal, key: str, size: int, cost: float | None = 1.0) -> int:
    """A finished job with one image of `size` bytes."""
    number = begin(journal, key)
    journal.sent(number, f"id-{key}")
    journal.retain(number, State.DONE, [bytes(size)], cost, "{}")
    return number


def program(code: str, folder: Path) -> subprocess.Popen[str]:
    """Another program, which has the folder's `journal` open."""
    words = [sys.executable, "-c", PRELUDE + code, str(folder)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write(folder: Path, sql: str) -> None:
    """Change the file behind the journal's back."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db, db:
        db.execute(sql)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another program holds the journal."""
    file = folder / FILE_NAME
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow past `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user who owns nothing here; root may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
