"""The journal as a person reads it: the newest jobs in words, the totals, and room made by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import job_store as written
from .job_store import FILE_NAME, SPENT, Journal, State, drop_images

NEWEST = 100
MONTH = 30 * 86400  # seconds
WORDS = {
    State.UNKNOWN: "sent, the answer was lost",
    State.SENT: "sent, no result yet",
    State.DONE: "done",
    State.FLAGGED: "refused by the safety checker",
    State.LOST: "no picture is kept any more",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
COLLECTABLE = (State.UNKNOWN, State.SENT, State.DONE, State.LOST)


@dataclass(frozen=True)
class Job:
    """One job. No prompt, no key and no address is in it.

    Attributes:
        state: in words.
        created: seconds since 1970.
        server: what the user calls it.
        estimate, cost: US dollars, before and after; None = not known.
        about: seed and size; may be empty.
        kept: how many of its images are kept.
        collectable: whether its images may be fetched, from here or from the service.
    """

    state: str
    created: float
    server: str
    request_id: str | None
    estimate: float | None
    cost: float | None
    about: str
    kept: int
    collectable: bool


@dataclass(frozen=True)
class Totals:
    """What is kept, and US dollars that were spent or are on their way."""

    kept_bytes: int = 0
    pictures: int = 0
    session: float = 0.0
    month: float = 0.0


def view(folder: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """The newest jobs and the totals, as values of JSON; {"jobs": [...], "totals": {...}}.

    Args:
        names: what the user calls a server, by its queue URL.

    Raises:
        JournalError: the file cannot be used.
    """
    if not (folder / FILE_NAME).exists():  # looking makes no file
        return {"jobs": [], "totals": asdict(Totals())}
    journal = Journal(folder)
    jobs = [asdict(job) for job in _newest(journal, names)]
    return {"jobs": jobs, "totals": asdict(_totals(journal))}


def server_of(folder: Path, request_id: str) -> str | None:
    """The queue URL of the server that the newest job of that id was sent to."""
    if not (folder / FILE_NAME).exists():
        return None
    with Journal(folder).open() as db:
        query = "SELECT server FROM jobs WHERE request_id = ? ORDER BY id DESC"
        row = db.execute(query, (request_id,)).fetchone()
    return None if row is None else str(row[0])


def clear_images(folder: Path) -> int:
    """Drops the images of all finished jobs; the freed bytes. What was paid stays written down."""
    if not (folder / FILE_NAME).exists():
        return 0
    with Journal(folder).open() as db:
        db.execute("BEGIN IMMEDIATE")
        freed = db.execute("SELECT total(length(data)) FROM images").fetchone()[0]
        drop_images(db, [row[0] for row in db.execute("SELECT DISTINCT job FROM images")])
        db.execute("COMMIT")
    return int(freed)


def _newest(journal: Journal, names: Mapping[str, str]) -> list[Job]:
    query = (
        "SELECT state, session, created, server, request_id, estimate, cost, about,"
        " (SELECT count(*) FROM images WHERE job = jobs.id) FROM jobs ORDER BY id DESC LIMIT ?"
    )
    with journal.open() as db:
        rows = db.execute(query, (NEWEST,)).fetchall()
    return [_job(row, names) for row in rows]


def _job(row: tuple[Any, ...], names: Mapping[str, str]) -> Job:
    state, session, created, server, request_id, estimate, cost, about, kept = row
    state = State(state)
    here = state is State.SENDING and session == written.SESSION
    return Job(
        state="being sent" if here else WORDS.get(state, WORDS[State.UNKNOWN]),
        created=created,
        server=names.get(server, "a server that is no longer named"),
        request_id=request_id,
        estimate=estimate,
        cost=cost,
        about=about,
        kept=kept,
        collectable=request_id is not None and state in COLLECTABLE,
    )


def _totals(journal: Journal) -> Totals:
    marks = ", ".join("?" * len(SPENT))
    each = f"coalesce(cost, CASE WHEN state IN ({marks}) THEN estimate END)"
    with journal.open() as db:
        kept, pictures = db.execute("SELECT total(length(data)), count(*) FROM images").fetchone()
        query = f"SELECT total({each}) FROM jobs WHERE created > ?"
        month = db.execute(query, (*SPENT, time.time() - MONTH)).fetchone()[0]
    return Totals(int(kept), pictures, journal.spent(), float(month))
