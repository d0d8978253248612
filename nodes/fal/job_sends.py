"""Live sends: the jobs that are being sent now, by this process or by another one.

This process knows its own sends by a set in memory, not by a clock: a send that is over is over at
once, whether or not its end could be written down. What could not be written (the database was
locked, the disk was full) stays here as an owed change, and is the first thing the next write
transaction of this process does.

Other processes see a lease: the row of a job that is being sent holds the time until which its
sender vouches for it, and a heartbeat renews it. Where the lease has run out, the sender died or
could not write, and nobody can know whether the job was accepted: it is not sent again. Process
ids would not do, as containers that share a folder have each their own; nor would file locks, which
network drives do not keep. A clock that jumps forward ends a lease early, one that jumps back
leaves it too far in the future to be believed. Both only mean that the job counts as unknown.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ..errors import JournalError
from .job_states import State, TransitionError

LOG = logging.getLogger("onereward")
LEASE = 10.0  # seconds
HEARTBEAT = 2.5  # seconds

Change = Callable[[sqlite3.Connection], object]
Connect = Callable[[], AbstractContextManager[sqlite3.Connection]]


def new_lease() -> float:
    """Until when a send is vouched for that begins or goes on now, in seconds since 1970."""
    return time.time() + LEASE


def is_leased(lease: float | None) -> bool:
    """Whether another process vouches for a send now."""
    now = time.time()
    return lease is not None and now < lease <= now + LEASE


class Sends:
    """What this process knows of its sends into one journal before the file knows it.

    Args:
        connect: gives a connection to the file.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._live: dict[int, str] = {}
        self._owed: list[Change] = []
        self._beating = False

    def begin(self, job: int, key: str) -> None:
        """The job of that key is being sent from now on."""
        with self._lock:
            self._live[job] = key
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, daemon=True, name="onereward-lease").start()

    def end(self, job: int) -> None:
        """The job is no longer being sent, whatever became of it."""
        with self._lock:
            self._live.pop(job, None)

    def key_of(self, job: int) -> str | None:
        """The key of a job that is being sent by this process; None for any other."""
        with self._lock:
            return self._live.get(job)

    def owes(self) -> bool:
        """Whether something could not be written yet."""
        return bool(self._owed)

    @contextmanager
    def owing(self, change: Change) -> Iterator[None]:
        """Where the block, which writes `change`, fails for a reason that may pass, it is owed."""
        try:
            yield
        except TransitionError:  # it would be refused again
            raise
        except JournalError:
            with self._lock:
                self._owed.append(change)
            raise

    @contextmanager
    def paying(self, db: sqlite3.Connection) -> Iterator[None]:
        """Writes what is owed, and forgets it once the block has committed."""
        with self._lock:
            owed = list(self._owed)
        for change in owed:
            try:
                change(db)
            except (TransitionError, FileNotFoundError) as error:
                LOG.warning("A late entry of the journal is left out: %s", error)
        yield
        with self._lock:
            self._owed = [change for change in self._owed if change not in owed]

    def _beat(self) -> None:
        """Renew the leases of all live sends until there are none."""
        while True:
            time.sleep(HEARTBEAT)
            with self._lock:
                live = list(self._live)
                self._beating = bool(live)
            if not live:
                return
            try:
                self._renew(live)
            except JournalError as error:  # others take the sends for unknown, which is safe
                LOG.warning("%s", error)

    def _renew(self, live: list[int]) -> None:
        query = f"UPDATE jobs SET lease = ? WHERE id = ? AND state = '{State.SENDING.value}'"
        with self._connect() as db:
            db.executemany(query, [(new_lease(), job) for job in live])


_SENDS: dict[Path, Sends] = {}
_LOCK = threading.Lock()


def sends_of(file: Path, connect: Connect) -> Sends:
    """The one object of this process for that journal."""
    with _LOCK:
        return _SENDS.setdefault(file, Sends(connect))
