"""A journal of version 1, written by commit 30f877f with pictures inside, and its migration."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fakes.fal_journals import begin, disk_of, program, write
from onereward_pack.nodes.errors import JournalError
from onereward_pack.nodes.fal import job_housekeeping, job_pictures
from onereward_pack.nodes.fal.job_database import FILE_NAME, OUTDATED
from onereward_pack.nodes.fal.job_history import clear_images, view
from onereward_pack.nodes.fal.job_pictures import FOLDER
from onereward_pack.nodes.fal.job_states import Entry, State
from onereward_pack.nodes.fal.job_store import Journal

OLD = Path(__file__).parents[2] / "data" / "journal_30f877f.sqlite3"
FINISHED = 24  # jobs, of 1, 2, 3, 1, ... pictures
PICTURES = 48
SERVER = "https://queue.fal.run"
COLUMNS = "id, key, server, about, state, request_id, session, run, estimate, cost, meta, created"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The old journal, as if written today."""
    shutil.copyfile(OLD, tmp_path / FILE_NAME)
    write(tmp_path, f"UPDATE jobs SET created = {time.time()}")
    return tmp_path


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures stay where they are until the test moves them."""
    monkeypatch.setattr(job_housekeeping, "start", lambda journal, file: None)
    yield


def picture(job: int, number: int) -> bytes:
    """The bytes that the old code was given."""
    name, size = f"{job} {number}", 1000 + 37 * job
    chunks = (hashlib.sha256(f"{name} {i}".encode()).digest() for i in range(-(-size // 32)))
    return b"".join(chunks)[:size]


def check_whole(journal: Journal) -> None:
    """Every picture of every job is the original one, wherever it lies."""
    for job in range(FINISHED):
        entry = journal.find_request(f"id-done-{job}", SERVER)
        assert entry is not None and entry.state is State.DONE
        assert journal.images(entry.id) == [picture(job, n) for n in range(1 + job % 3)]


def blobs(folder: Path) -> int:
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        return int(db.execute("SELECT count(*) FROM blobs").fetchone()[0])


def old_rows(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        rows: list[tuple[object, ...]] = db.execute(
            f"SELECT {COLUMNS} FROM jobs ORDER BY id"
        ).fetchall()
    return rows


def test_every_picture_becomes_a_file_and_the_database_shrinks(folder: Path) -> None:
    before = (folder / FILE_NAME).stat().st_size
    journal = Journal(folder)
    job_housekeeping.wait(journal.file)
    check_whole(journal)
    assert blobs(folder) == 0 and len(list((folder / FOLDER).iterdir())) == PICTURES
    assert journal.retained()[1] == PICTURES
    assert (folder / FILE_NAME).stat().st_size < before / 2


def test_all_else_is_as_it_was(folder: Path) -> None:
    before = old_rows(folder)
    journal = Journal(folder)
    job_housekeeping.wait(journal.file)
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert old_rows(folder) == before
    assert journal.price(SERVER, 1e9) == (0.035, "megapixel")
    states = {job["about"]: job["state"] for job in view(folder, {})["jobs"]}
    assert states["seed sending, 48x32"] == "sent, the answer was lost", "its sender is gone"
    entry = journal.find("sent")
    assert entry is not None and (entry.state, entry.request_id) == (State.SENT, "id-sent")
    assert journal.find("lost") is None and journal.find("flagged") is not None


@pytest.mark.usefixtures("idle")
def test_before_and_while_they_are_moved_pictures_are_found_and_jobs_are_begun(
    folder: Path,
) -> None:
    journal = Journal(folder)
    assert blobs(folder) == PICTURES
    for moved in range(PICTURES):
        if moved % 12 == 0:
            check_whole(journal)
            assert journal.retained()[1] == view(folder, {})["totals"]["pictures"] == PICTURES
        assert isinstance(begin(journal, f"new {moved}"), int)
        assert job_housekeeping.move_blob(journal)
    check_whole(journal)
    assert not job_housekeeping.move_blob(journal) and blobs(folder) == 0


def test_no_kill_loses_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from onereward_pack.nodes.fal import job_housekeeping
print("ready", flush=True)
job_housekeeping.wait(journal.file)
print("done", flush=True)
"""
    chance, kills = random.Random(5), 0
    with monkeypatch.context() as patch:
        patch.setattr(job_housekeeping, "start", lambda journal, file: None)
        journal = Journal(folder)
    while blobs(folder):
        with program(code, folder) as victim:
            assert victim.stdout is not None and victim.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.04))
            victim.kill()
        kills += bool(blobs(folder))
        if kills % 5 == 0:
            check_whole(journal)
    assert kills >= 5, "the test kills nothing in the middle"
    check_whole(journal)
    monkeypatch.setattr(job_pictures, "ORPHAN_AGE", -1.0)
    monkeypatch.setattr(job_housekeeping, "_THREADS", {})
    Journal(folder)
    job_housekeeping.wait(journal.file)
    check_whole(journal)
    assert len(list((folder / FOLDER).iterdir())) == PICTURES, "what was cut off is an orphan"


@pytest.mark.usefixtures("idle")
def test_two_who_migrate_at_once_move_every_picture_once(folder: Path) -> None:
    journals = [Journal(folder), Journal(folder)]

    def work(journal: Journal) -> None:
        while job_housekeeping.move_blob(journal):
            pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, journals))
    check_whole(journals[0])
    assert len(list((folder / FOLDER).iterdir())) == PICTURES


def test_two_programs_that_start_at_once_take_the_step_once(folder: Path) -> None:
    code = """
from onereward_pack.nodes.fal import job_housekeeping
job_housekeeping.wait(journal.file)
"""
    for each in [program(code, folder) for _ in range(3)]:
        each.communicate(timeout=60)
        assert each.returncode == 0
    check_whole(Journal(folder))
    assert blobs(folder) == 0


def test_a_full_disk_stops_the_move_and_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk_of(1000):
        with pytest.raises(JournalError):  # not even the step
            Journal(folder)
    journal = Journal(folder)
    job_housekeeping.wait(journal.file)
    check_whole(journal)


@pytest.mark.usefixtures("idle")
def test_a_picture_that_does_not_fit_on_the_disk_stays_where_it_is(folder: Path) -> None:
    journal = Journal(folder)
    job_housekeeping.move_blob(journal)
    with disk_of(500), pytest.raises(JournalError, match="Make room"):
        job_housekeeping.move_blob(journal)
    check_whole(journal)
    assert len(list((folder / FOLDER).iterdir())) == 1 and blobs(folder) == PICTURES - 1


@pytest.mark.usefixtures("idle")
def test_clearing_drops_pictures_that_are_not_moved_yet(folder: Path) -> None:
    journal = Journal(folder)
    for _ in range(10):
        job_housekeeping.move_blob(journal)
    assert clear_images(folder) == sum(
        len(picture(job, n)) for job in range(FINISHED) for n in range(1 + job % 3)
    )
    assert blobs(folder) == 0 and list((folder / FOLDER).iterdir()) == []
    assert journal.retained() == (0, 0)


def old_begin(db: sqlite3.Connection) -> None:
    """What 30f877f sends to the database before it sends a job, word for word."""
    db.execute(
        "INSERT INTO jobs (key, server, about, state, session, run, estimate, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ("key", "fal", "", "sending", "session", "run", None, time.time()),
    )


def old_images(db: sqlite3.Connection) -> None:
    db.execute("SELECT data FROM images WHERE job = ? ORDER BY number", (1,))


def old_keep(db: sqlite3.Connection) -> None:
    db.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", [(1, 0, b"data")])


def old_clear(db: sqlite3.Connection) -> None:
    db.execute("SELECT total(length(data)) FROM images")


@pytest.mark.parametrize("ask", [old_begin, old_images, old_keep, old_clear])
def test_the_old_version_is_stopped_in_words_and_loses_nothing(folder: Path, ask: object) -> None:
    assert callable(ask)
    journal = Journal(folder)
    job_housekeeping.wait(journal.file)
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] != 0, "it would make its tables"
        with pytest.raises(sqlite3.Error, match=OUTDATED):
            ask(db)
    check_whole(journal)


def test_the_old_version_can_still_end_what_it_has_under_way(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as db:
        old_begin(db)
        journal = Journal(folder)
        entry = journal.find("key")
        assert isinstance(entry, Entry) and not entry.being_sent
        change = "UPDATE jobs SET state = ?, request_id = ? WHERE key = ?"
        db.execute(change, ("sent", "id-1", "key"))
    found = journal.find_request("id-1", "fal")
    assert found is not None and found.state is State.SENT


def test_a_journal_of_a_later_version_is_left_alone(folder: Path) -> None:
    write(folder, "PRAGMA user_version = 3")
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(JournalError, match="version 3.*Update.*Nothing is sent"):
        Journal(folder)
    assert (folder / FILE_NAME).read_bytes() == before
