"""The journal under threads, programs, kills, full disks, missing rights and broken files."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fakes.fal_edits import wait_for
from fakes.fal_journals import NO_LIMITS, begin, disk_of, program, without_rights
from onereward_pack.nodes.errors import JournalError
from onereward_pack.nodes.fal import job_database, job_sends
from onereward_pack.nodes.fal.job_database import FILE_NAME
from onereward_pack.nodes.fal.job_states import Entry, State
from onereward_pack.nodes.fal.job_store import SESSION, Journal


def test_the_first_use_by_eight_threads_at_once_begins_one_job(tmp_path: Path) -> None:
    gate = threading.Barrier(8)

    def work(folder: Path) -> int | Entry:
        gate.wait()
        return Journal(folder).begin("key", "fal", "run", 1.0, NO_LIMITS)

    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            found = list(pool.map(work, [tmp_path / str(number)] * 8))
            assert sum(isinstance(each, int) for each in found) == 1


def test_two_programs_at_once_begin_every_job_once(tmp_path: Path) -> None:
    code = """
print("ready", flush=True); sys.stdin.readline()
begun = [journal.begin(str(i), "fal", "run", 1.0, SpendLimits(0, 0)) for i in range(40)]
print(sum(isinstance(each, int) for each in begun))
"""
    programs = [program(code, tmp_path) for _ in range(2)]
    for each in programs:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in programs:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    counts = [int(each.communicate(timeout=60)[0]) for each in programs]
    assert sum(counts) == 40


def test_after_a_kill_the_job_stands_as_being_sent_by_another_session(tmp_path: Path) -> None:
    code = """
journal.begin("key", "fal", "run", 1.0, SpendLimits(0, 0))
print("begun", flush=True); sys.stdin.readline()
"""
    with program(code, tmp_path) as victim:
        assert victim.stdout is not None and victim.stdout.readline() == "begun\n"
        victim.kill()
    entry = Journal(tmp_path).find("key")
    assert entry is not None and entry.state is State.SENDING and entry.session != SESSION
    assert entry.request_id is None


def test_a_full_disk_keeps_nothing_of_a_result_and_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    number = begin(journal)
    journal.sent(number, "id-1")
    with disk_of(1 << 20), pytest.raises(JournalError, match="Make room") as failure:
        journal.retain(number, State.DONE, [b"small", bytes(4 << 20)], 9.0, "{}")
    assert str(tmp_path / FILE_NAME) in str(failure.value)
    entry = journal.find("key")
    assert entry is not None and entry.state is State.SENT and journal.images(number) == []
    assert journal.spent() == 1.0


def test_a_full_disk_begins_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with disk_of(0), pytest.raises(JournalError, match="so nothing is sent"):
        begin(journal)
    assert journal.find("key") is None


def garbage(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes(b"no database at all " * 500)


def a_folder(folder: Path) -> None:
    (folder / FILE_NAME).unlink()
    (folder / FILE_NAME).mkdir()


def gone(folder: Path) -> None:
    (folder / FILE_NAME).unlink()


@pytest.mark.parametrize("damage", [garbage, a_folder, gone])
def test_a_broken_file_is_named_with_the_remedy(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    journal = Journal(tmp_path)
    damage(tmp_path)
    with pytest.raises(JournalError, match="nothing is sent.*move it away") as failure:
        begin(journal)
    assert str(tmp_path / FILE_NAME) in str(failure.value)


def test_a_file_that_is_broken_from_the_start_is_refused(tmp_path: Path) -> None:
    garbage(tmp_path)
    with pytest.raises(JournalError, match="not a database.*move it away"):
        Journal(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="repair the rights") as failure:
        Journal(tmp_path / "file" / "folder")
    assert str(tmp_path / "file" / "folder") in str(failure.value)


def test_a_folder_that_became_read_only_begins_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "pack")
    (tmp_path / "pack").chmod(0o500)
    (tmp_path / "pack" / FILE_NAME).chmod(0o400)
    with without_rights(), pytest.raises(JournalError, match="repair the rights"):
        begin(journal)
    (tmp_path / "pack").chmod(0o700)


def test_a_program_that_holds_the_file_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 0.2)
    journal = Journal(tmp_path)
    number = begin(journal)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert journal.find("key") is not None, "looking needs no turn"
        with pytest.raises(JournalError, match="locked"):
            journal.sent(number, "id-1")
        other.execute("COMMIT")
    entry = journal.find_request("id-1", "fal")
    assert entry is not None and entry.id == number, "what is owed is written first"


def test_a_program_that_reads_holds_up_nobody_who_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 2.0)
    journal = Journal(tmp_path)
    begin(journal)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
        begin(journal, "other")
        assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


def test_a_heartbeat_makes_no_journal_where_the_user_took_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job_sends, "HEARTBEAT", 0.02)
    journal = Journal(tmp_path)
    number = begin(journal)
    gone(tmp_path)
    wait_for(lambda: "cannot be used" in caplog.text)
    assert not (tmp_path / FILE_NAME).exists()
    journal.sends.end(number)


def test_a_heartbeat_renews_the_lease_while_the_send_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lease() -> float:
        with journal.open() as db:
            return float(db.execute("SELECT lease FROM jobs").fetchone()[0])

    monkeypatch.setattr(job_sends, "HEARTBEAT", 0.02)
    journal = Journal(tmp_path)
    number, begun = begin(journal), lease()
    wait_for(lambda: lease() > begun)
    journal.sent(number, "id-1")
    wait_for(lambda: not journal.sends._beating)
    assert not job_sends.is_leased(None) and job_sends.is_leased(job_sends.new_lease() - 0.1)
