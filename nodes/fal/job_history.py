"""Job history: the journal as the settings panel shows it, its totals, and room made by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import job_housekeeping
from .job_database import FILE_NAME
from .job_states import State
from .job_store import Journal

NEWEST = 100
MONTH = 30 * 86400  # seconds
STATE_TEXT = {
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
    """One job, as a value of JSON. No prompt, no key and no address is in it.

    Attributes:
        state: as text.
        created: seconds since 1970.
        server: what the user calls it.
        estimate, cost: US dollars, before and after; None = not known.
        about: seed and size; may be empty.
        kept: how many of its images are here.
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
    """What is retained, and US dollars that were spent or are on their way."""

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
    return job_housekeeping.clear_images(Journal(folder))


def _newest(journal: Journal, names: Mapping[str, str]) -> list[Job]:
    pictures = "(SELECT job FROM pictures UNION ALL SELECT job FROM blobs)"
    query = (
        "SELECT id, state, session, lease, created, server, request_id, estimate, cost, about,"
        f" (SELECT count(*) FROM {pictures} WHERE job = jobs.id) FROM jobs ORDER BY id DESC LIMIT ?"
    )
    with journal.open() as db:
        rows = db.execute(query, (NEWEST,)).fetchall()
    return [_job(journal, row, names) for row in rows]


def _job(journal: Journal, row: tuple[Any, ...], names: Mapping[str, str]) -> Job:
    job, state, session, lease, created, server, request_id, estimate, cost, about, retained = row
    state = State(state)
    sending = state is State.SENDING and journal.is_live(job, session, lease)
    return Job(
        state="being sent" if sending else STATE_TEXT.get(state, STATE_TEXT[State.UNKNOWN]),
        created=created,
        server=names.get(server, "a server that is no longer named"),
        request_id=request_id,
        estimate=estimate,
        cost=cost,
        about=about,
        kept=retained,
        collectable=request_id is not None and state in COLLECTABLE,
    )


def _totals(journal: Journal) -> Totals:
    size, pictures = journal.retained()
    return Totals(size, pictures, journal.spent(), journal.spent(since=time.time() - MONTH))
