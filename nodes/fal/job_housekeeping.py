"""Retention of a journal's pictures: eviction, orphans, and the migration of version 1.

All of it goes in small steps, each a short transaction of its own. After a step the write lock is
free for as long as the step took, so that others can begin their jobs. A process may be killed at
any point: what a step had not committed is done again.

Orphans are deleted, and the pictures of version 1 are moved into files, in a thread that starts
with the first use of a journal by a process. Two processes may move pictures at once: each takes
one of the last by chance, and the slower of two that took the same one deletes its file.

The database shrinks with every step, as it was made with auto_vacuum = FULL: the pages of a deleted
picture are filled from the end of the file, and the end is cut off. Nobody runs VACUUM.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import JournalError

if TYPE_CHECKING:
    from .job_store import Journal

LOG = logging.getLogger("onereward")
RETAINED_DAYS = 30
RETAINED_BYTES = 2 << 30
STEP_JOBS = 32  # whose pictures are dropped in one transaction
NEWEST = 8  # of so many pictures at the end of the file one is taken

_THREADS: dict[Path, threading.Thread] = {}
_LOCK = threading.Lock()


def start(journal: Journal, file: Path) -> None:
    """Let a thread do what there is to do, unless one of this process is at it or was."""
    with _LOCK:
        known = _THREADS.get(file)
        busy = known is not None and known.is_alive()
        if busy or not (_has_blobs(journal) or (known is None and journal.pictures.old_files())):
            return
        name = "onereward-journal"
        thread = threading.Thread(target=_work, args=(journal,), daemon=True, name=name)
        _THREADS[file] = thread
        thread.start()


def wait(file: Path) -> None:
    """Until the work of this process on that journal is over."""
    with _LOCK:
        thread = _THREADS.get(file)
    if thread is not None:
        thread.join()


def gently(step: Callable[[], bool]) -> None:
    """Repeat a step while it says that there is more; the write lock is free half of the time."""
    while True:
        begun = time.monotonic()
        if not step():
            return
        time.sleep(time.monotonic() - begun)


def clear_images(journal: Journal) -> int:
    """Forget what all finished jobs made; the freed bytes. A picture that is still inside the
    database is a step of its own, as deleting it takes long.
    """
    with journal.open() as db:
        within = [row[0] for row in db.execute("SELECT DISTINCT job FROM blobs")]
        query = "SELECT DISTINCT job FROM pictures WHERE job NOT IN (SELECT job FROM blobs)"
        beside = [row[0] for row in db.execute(query)]
    steps = [[job] for job in within]
    steps += [beside[i : i + STEP_JOBS] for i in range(0, len(beside), STEP_JOBS)]
    return _drop_in_steps(journal, steps)


def make_room(journal: Journal, newest: int) -> None:
    """Drop images of earlier sessions that are too old, and the oldest while there are too many;
    never those of `newest`. What they cost counts on until the session ends.
    """
    expired = time.time() - RETAINED_DAYS * 86400
    _drop_in_steps(journal, [[job] for job in journal.expired(expired, newest)])
    journal.forget(expired, newest)
    _drop_in_steps(journal, _over_quota(journal, newest))


def _over_quota(journal: Journal, newest: int) -> Iterator[list[int]]:
    """The job with the oldest images, while there are too many."""
    jobs = "SELECT job FROM pictures UNION SELECT job FROM blobs"
    while journal.retained()[0] > RETAINED_BYTES:
        with journal.open() as db:
            query = f"SELECT min(job) FROM ({jobs}) WHERE job != ?"
            oldest = db.execute(query, (newest,)).fetchone()[0]
        if oldest is None:
            return
        yield [oldest]


def _drop_in_steps(journal: Journal, steps: Iterable[list[int]]) -> int:
    freed, left = 0, iter(steps)

    def step() -> bool:
        nonlocal freed
        jobs = next(left, None)
        if jobs is not None:
            freed += journal.drop_images(jobs)
        return jobs is not None

    gently(step)
    return freed


def _work(journal: Journal) -> None:
    try:
        delete_orphans(journal)
        gently(lambda: move_blob(journal))
    except JournalError as error:  # the next start goes on
        LOG.warning("%s", error)


def delete_orphans(journal: Journal) -> None:
    """Delete old files that no row names. Under the write lock a row that is about to name one
    either stands there already, or its writer finds the file gone and reports it.
    """
    with journal.open() as db:
        named = {row[0] for row in db.execute("SELECT file FROM pictures")}
    left = journal.pictures.old_files() - named

    def step() -> bool:
        if not left:
            return False
        name = left.pop()
        with journal.transaction() as db:
            row = db.execute("SELECT 1 FROM pictures WHERE file = ?", (name,)).fetchone()
            if row is None:
                journal.pictures.delete([name])
        return True

    gently(step)


def move_blob(journal: Journal) -> bool:
    """Move one picture out of the database into a file; False if there is none."""
    with journal.open() as db:
        last = f"SELECT rowid FROM blobs ORDER BY rowid DESC LIMIT {NEWEST}"
        query = "SELECT rowid, job, number, data FROM blobs WHERE rowid = "
        query += f"(SELECT rowid FROM ({last}) ORDER BY random() LIMIT 1)"
        row = db.execute(query).fetchone()
    if row is None:
        return False
    rowid, job, number, data = row
    [name] = journal.write_pictures([data])
    with journal.transaction() as db:
        place = (rowid, job, number)
        query = "DELETE FROM blobs WHERE rowid = ? AND job = ? AND number = ?"
        mine = db.execute(query, place).rowcount == 1
        if mine:
            journal.pictures.check([name])
            values = (job, number, name, len(data), zlib.crc32(data))
            db.execute("INSERT INTO pictures VALUES (?, ?, ?, ?, ?)", values)
    if not mine:  # another process moved it, or it was dropped
        journal.pictures.delete([name])
    return True


def _has_blobs(journal: Journal) -> bool:
    with journal.open() as db:
        return db.execute("SELECT 1 FROM blobs LIMIT 1").fetchone() is not None
