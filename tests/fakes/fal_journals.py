"""Jobs written into a journal, and other programs that write into it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from onereward_pack.nodes.fal.job_store import FILE_NAME, Caps, Journal, State

NO_CAPS = Caps(0, 0)
PRELUDE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import conftest
from onereward_pack.nodes.fal.job_store import Caps, Journal
journal = Journal(Path(sys.argv[1]))
"""


def begin(
    journal: Journal,
    key: str = "key",
    estimate: float | None = 1.0,
    caps: Caps = NO_CAPS,
    run: str = "run",
) -> int:
    """A job that is new to the journal."""
    number = journal.begin(key, "fal", run, estimate, caps)
    assert isinstance(number, int)
    return number


def job_in(journal: Journal, state: State, key: str = "key", run: str = "run") -> int:
    """A job that stands there."""
    number = begin(journal, key, run=run)
    journal.end(number, state, None)
    return number


def kept(journal: Journal, key: str, size: int, cost: float | None = 1.0) -> int:
    """A finished job with one image of `size` bytes."""
    number = begin(journal, key)
    journal.sent(number, f"id-{key}")
    journal.keep(number, State.DONE, [bytes(size)], cost, "{}")
    return number


def program(code: str, folder: Path) -> subprocess.Popen[str]:
    """Another program, which has the folder's `journal` open."""
    words = [sys.executable, "-c", PRELUDE + code, str(folder)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write(folder: Path, sql: str) -> None:
    """Change the file behind the journal's back."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db, db:
        db.execute(sql)
