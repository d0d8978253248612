"""The journal keeps what was sent and paid for, counts it, and makes room."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fakes.fal_journals import NO_LIMITS, begin, finished, job_in, write
from onereward_pack.nodes.errors import InputError
from onereward_pack.nodes.fal import job_housekeeping
from onereward_pack.nodes.fal import job_store as module
from onereward_pack.nodes.fal.job_database import FILE_NAME
from onereward_pack.nodes.fal.job_states import Entry, State
from onereward_pack.nodes.fal.job_store import SESSION, Journal
from onereward_pack.nodes.fal.spend_limits import SpendLimits

OPEN = (State.SENDING, State.UNKNOWN, State.SENT, State.DONE, State.FLAGGED)
FREE = (State.FAILED, State.CANCELLED)  # what cost nothing


def test_the_file_and_its_folder_are_for_this_user_alone(tmp_path: Path) -> None:
    folder, mask = tmp_path / "user" / "pack", os.umask(0)
    try:
        begin(Journal(folder))
        with closing(sqlite3.connect(folder / FILE_NAME)) as reader:
            reader.execute("SELECT * FROM jobs").fetchall()  # keeps sqlite's side files there
            begin(Journal(folder), "other")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    finally:
        os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(modes) == 3 and set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("state", OPEN)
def test_a_job_that_may_have_a_result_is_not_begun_again(tmp_path: Path, state: State) -> None:
    journal = Journal(tmp_path)
    number = job_in(journal, state)
    entry = journal.begin("key", "fal", "another run", 1.0, NO_LIMITS)
    assert isinstance(entry, Entry)
    assert (entry.id, entry.state, entry.session) == (number, state, SESSION)
    assert journal.find("key") == entry


@pytest.mark.parametrize("state", [state for state in State if state not in OPEN])
def test_a_job_that_ended_without_a_picture_is_begun_anew(tmp_path: Path, state: State) -> None:
    journal = Journal(tmp_path)
    number = job_in(journal, state)
    assert journal.find("key") is None
    assert begin(journal) != number


@pytest.mark.parametrize("request_id", [None, "id-1"])
def test_an_unknown_job_keeps_the_id_that_came(tmp_path: Path, request_id: str | None) -> None:
    journal = Journal(tmp_path)
    journal.unknown(begin(journal), request_id)
    entry = journal.find("key")
    assert entry is not None and entry.state is State.UNKNOWN and entry.request_id == request_id


def test_a_dropped_job_never_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.drop(begin(journal))
    assert journal.find("key") is None and journal.spent() == 0


def test_a_request_that_is_adopted_twice_is_one_job(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first, second = journal.adopt("id-1", "fal"), Journal(tmp_path).adopt("id-1", "fal")
    entry = journal.find_request("id-1", "fal")
    assert entry is not None and entry.id == first == second and entry.state is State.SENT
    assert journal.find_request("id-2", "fal") is None
    assert journal.find_request("id-1", "another") is None
    assert journal.spent() == 0, "what was collected was paid for by somebody else's run"


@pytest.mark.parametrize("which", ["run", "session"])
@pytest.mark.parametrize("state", [state for state in State if state not in FREE])
def test_a_cap_counts_all_that_may_be_billed(tmp_path: Path, state: State, which: str) -> None:
    journal, limits = Journal(tmp_path), SpendLimits(**{"run": 0.0, "session": 0.0, which: 1.5})
    job_in(journal, state, "first")
    with pytest.raises(InputError, match=rf"\$1.000.*{which}_cap of \$1.5.*This was not sent"):
        begin(journal, "second", limits=limits)
    assert journal.find("second") is None
    assert begin(journal, "second", 0.5, limits), "a cap may be reached, not passed"


@pytest.mark.parametrize("state", FREE)
def test_a_cap_does_not_count_what_cost_nothing(tmp_path: Path, state: State) -> None:
    journal = Journal(tmp_path)
    job_in(journal, state, "first")
    assert begin(journal, "second", limits=SpendLimits(1.0, 1.0))


def test_a_run_counts_its_own_jobs_and_a_session_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    begin(journal, "a", 2.0, run="first")
    begin(journal, "b", 3.0, run="second")
    assert (journal.spent(run="first"), journal.spent(run="second")) == (2.0, 3.0)
    assert journal.spent() == 5.0
    monkeypatch.setattr(module, "SESSION", "the program was started again")
    assert journal.spent() == 0


def test_the_bill_takes_the_place_of_the_estimate(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    finished(journal, "cheaper", 1, cost=0.25)
    finished(journal, "not told", 1, cost=None)
    begin(journal, "price unknown", None, SpendLimits(0.1, 0.1))
    assert journal.spent() == 1.25


def test_a_kept_result_comes_back_in_order(tmp_path: Path) -> None:
    journal, images = Journal(tmp_path), [b"first", b"", bytes(range(256))]
    number = begin(journal)
    journal.sent(number, "id-1")
    journal.retain(number, State.DONE, images, 0.5, '{"seed": 7}')
    entry = Journal(tmp_path).find("key")
    assert entry is not None and entry.state is State.DONE
    assert (entry.request_id, entry.meta) == ("id-1", '{"seed": 7}')
    assert Journal(tmp_path).images(number) == images


def test_room_is_made_by_dropping_the_oldest_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_housekeeping, "RETAINED_BYTES", 1000)
    journal = Journal(tmp_path)
    numbers = {key: finished(journal, key, 400) for key in "abc"}
    assert journal.find("a") is None
    assert [len(journal.images(numbers[key])) for key in "abc"] == [0, 1, 1]
    assert finished(journal, "larger than all", 5000)
    assert journal.find("larger than all") and not journal.find("b") and not journal.find("c")


def test_what_was_paid_for_counts_after_its_images_made_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_housekeeping, "RETAINED_BYTES", 1000)
    journal = Journal(tmp_path)
    for key in "abc":
        finished(journal, key, 800)
    assert journal.spent() == 3.0


def test_a_clock_that_is_set_right_takes_no_open_job_and_no_picture_of_this_session(
    tmp_path: Path,
) -> None:
    """They were written down in the wrong year."""
    journal = Journal(tmp_path)
    sent = begin(journal, "sent")
    journal.sent(sent, "id-1")
    finished(journal, "done", 1)
    write(tmp_path, f"UPDATE jobs SET created = created - {365 * 86400}")
    write(tmp_path, "UPDATE jobs SET session = 'before' WHERE key = 'sent'")
    finished(journal, "new", 1)
    assert [journal.find(key) is not None for key in ("sent", "done", "new")] == [True] * 3


def test_a_late_drop_takes_no_result_away(tmp_path: Path) -> None:
    """Of two processes that collect one job, one gives up after the other has its result."""
    journal, other = Journal(tmp_path), Journal(tmp_path)
    job = journal.adopt("id-1", "fal")
    other.retain(job, State.DONE, [b"picture"], 0.0, "{}", "id-1")
    journal.drop(job)
    assert journal.images(job) == [b"picture"]


def test_no_number_is_given_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = begin(journal, "a")
    journal.drop(first)
    assert begin(journal, "b") > first


def test_a_lost_job_whose_id_is_known_keeps_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    lost = begin(journal)
    journal.unknown(lost, "id-lost")
    collected = journal.adopt("id-other", "fal")
    journal.retain(collected, State.DONE, [b"picture"], 0.0, "{}", "id-other")
    journal.answer_unknown(collected, "")
    entry = journal.find_request("id-lost", "fal")
    assert entry is not None and entry.id == lost and entry.state is State.UNKNOWN


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_opening_a_journal_again_keeps_the_locks_of_this_process(tmp_path: Path) -> None:
    """Closing any descriptor of the file would end them, and the other process, as the last one to
    close the database, would then delete the write-ahead log that this one still uses.
    """
    journal = Journal(tmp_path)
    code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1])\n"
    code += "db.execute('SELECT count(*) FROM jobs').fetchone(); db.close()"
    with journal.open() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchone()
        Journal(tmp_path)
        subprocess.run([sys.executable, "-c", code, str(journal.file)], check=True)
        assert (tmp_path / f"{FILE_NAME}-wal").exists()


def test_a_result_is_kept_for_30_days(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for key, days in (("old", 31), ("young", 29)):
        finished(journal, key, 1)
        aged = f"created = created - {days * 86400}, session = 'before'"
        write(tmp_path, f"UPDATE jobs SET {aged} WHERE key = '{key}'")
    finished(journal, "new", 1)
    assert [journal.find(key) is not None for key in ("old", "young", "new")] == [False, True, True]


@pytest.mark.parametrize("state", FREE)
def test_age_does_not_make_a_job_cost_what_it_did_not(tmp_path: Path, state: State) -> None:
    journal = Journal(tmp_path)
    job_in(journal, state, "old")
    write(tmp_path, f"UPDATE jobs SET created = created - {31 * 86400}")
    finished(journal, "new", 1)
    assert journal.spent() == 1.0


def test_a_price_is_believed_for_a_while(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.set_price("https://a", 0.04, "image")
    journal.set_price("https://a", 0.035, "megapixel")
    assert journal.price("https://a", 60.0) == (0.035, "megapixel")
    assert journal.price("https://b", 60.0) is None
    write(tmp_path, "UPDATE prices SET asked = asked - 61")
    assert journal.price("https://a", 60.0) is None


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("billed", [False, True])
def test_an_end_that_may_have_been_billed_counts_as_estimated(
    tmp_path: Path, state: State, billed: bool
) -> None:
    book = Journal(tmp_path)
    number = begin(book)
    book.sent(number, "id-1")
    book.end(number, state, None, may_be_billed=billed)
    assert book.spent() == (1.0 if billed else 0.0)
