"""Pictures as files beside the journal: private, whole or not there, and no orphan stays."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import fal_faults
from fakes.fal_edits import Watched, attempt, backend_of, hurry, is_painted
from fakes.fal_journals import begin, disk_of, finished, locked, without_rights
from fakes.fal_server import FalServer
from onereward_pack.nodes.errors import JournalError
from onereward_pack.nodes.fal import job_database, job_housekeeping, job_pictures
from onereward_pack.nodes.fal.job_database import FILE_NAME
from onereward_pack.nodes.fal.job_pictures import FOLDER, PictureMissingError
from onereward_pack.nodes.fal.job_states import State
from onereward_pack.nodes.fal.job_store import Journal


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0, unit="images", unit_price=1.0) as server:
        yield server


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).iterdir()) if (folder / FOLDER).exists() else []


def restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """The journal as a new process finds it, after its housekeeping."""
    monkeypatch.setattr(job_housekeeping, "_THREADS", {})
    journal = Journal(folder)
    job_housekeeping.wait(journal.file)
    return journal


def test_pictures_are_private_files_and_the_database_stays_small(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        number = finished(Journal(tmp_path), "a", 3_000_000)
    finally:
        os.umask(mask)
    [file] = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_size == 3_000_000
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    assert (tmp_path / FILE_NAME).stat().st_size < 200_000
    assert Journal(tmp_path).images(number) == [bytes(3_000_000)]


def test_a_result_that_is_written_again_leaves_no_file_of_the_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    number = finished(journal, "a", 10)
    journal.retain(number, State.DONE, [b"new"], None, "{}")
    assert journal.images(number) == [b"new"] and len(files(tmp_path)) == 1


def test_clearing_deletes_the_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for key in range(70):
        finished(journal, str(key), 10)
    assert job_housekeeping.clear_images(journal) == 700 and files(tmp_path) == []
    assert journal.spent() == 70.0 and journal.retained() == (0, 0)


def test_no_orphan_survives_a_start_but_what_is_being_written_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    number = finished(journal, "a", 10)
    orphan, half, young = (
        tmp_path / FOLDER / name
        for name in (f"{1:032x}.picture", f".{2:032x}.picture.ab_c", f"{3:032x}.picture")
    )
    another = tmp_path / FOLDER / "holiday.jpg"
    for file in (orphan, half, young, another):
        file.write_bytes(b"some")
    long_ago = time.time() - 2 * job_pictures.ORPHAN_AGE
    for file in (orphan, half, another, *files(tmp_path)):
        if file != young:
            os.utime(file, (long_ago, long_ago))
    journal = restart(tmp_path, monkeypatch)
    assert not orphan.exists() and not half.exists() and young.exists() and another.exists()
    assert journal.images(number) == [bytes(10)]


def test_a_file_that_was_swept_before_its_row_was_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    number = begin(journal)
    journal.sent(number, "id-1")
    write_all = journal.pictures.write_all

    def swept(images: list[bytes]) -> list[str]:
        names = write_all(images)
        for file in files(tmp_path):
            file.unlink()
        return names

    monkeypatch.setattr(journal.pictures, "write_all", swept)
    with pytest.raises(JournalError, match="cannot be used"):
        journal.retain(number, State.DONE, [b"gone"], None, "{}")
    entry = Journal(tmp_path).find("key")
    assert entry is not None and entry.state is State.SENT


def test_a_clear_that_was_killed_before_the_files_were_deleted_leaves_orphans_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    finished(journal, "a", 10)
    with monkeypatch.context() as killed:
        killed.setattr(journal.pictures, "delete", lambda names: None)
        job_housekeeping.clear_images(journal)
    assert len(files(tmp_path)) == 1 and journal.find("a") is None
    monkeypatch.setattr(job_pictures, "ORPHAN_AGE", -1.0)
    restart(tmp_path, monkeypatch)
    assert files(tmp_path) == []


@pytest.mark.parametrize("left", [None, b"cut", b"as long !!"])
def test_a_picture_that_is_gone_or_damaged_is_named_and_may_be_put_back(
    tmp_path: Path, left: bytes | None
) -> None:
    journal = Journal(tmp_path)
    number = finished(journal, "a", 10)
    [file] = files(tmp_path)
    file.unlink() if left is None else file.write_bytes(left)
    with pytest.raises(PictureMissingError, match="OneReward Collect") as failure:
        journal.images(number)
    assert str(file) in str(failure.value)
    file.write_bytes(bytes(10))
    assert journal.images(number) == [bytes(10)] and journal.spent() == 1.0


def test_a_reader_finds_the_pictures_that_another_process_has_just_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, other = Journal(tmp_path), Journal(tmp_path)
    number = finished(journal, "a", 10)
    read = journal.pictures.read

    def replaced_first(name: str, size: int, crc: int) -> bytes:
        monkeypatch.undo()
        other.retain(number, State.DONE, [b"new"], None, "{}")
        return read(name, size, crc)

    monkeypatch.setattr(journal.pictures, "read", replaced_first)
    assert journal.images(number) == [b"new"]


def test_a_database_that_was_moved_away_finds_its_pictures_when_it_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = finished(Journal(tmp_path), "a", 10)
    (tmp_path / "away").mkdir()
    for file in tmp_path.glob(FILE_NAME + "*"):
        file.rename(tmp_path / "away" / file.name)
    two_days_ago = time.time() - 2 * 86400
    for file in files(tmp_path):
        os.utime(file, (two_days_ago, two_days_ago))
    finished(restart(tmp_path, monkeypatch), "b", 10)
    for file in (tmp_path / "away").iterdir():
        file.rename(tmp_path / file.name)
    assert restart(tmp_path, monkeypatch).images(number) == [bytes(10)]


def test_a_whole_folder_that_is_away_loses_no_job(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    number = finished(journal, "a", 10)
    (tmp_path / FOLDER).rename(tmp_path / "away")
    with pytest.raises(JournalError, match=FOLDER):
        journal.images(number)
    (tmp_path / "away").rename(tmp_path / FOLDER)
    assert journal.images(number) == [bytes(10)]


def test_a_folder_that_cannot_be_written_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    number = begin(journal)
    journal.sent(number, "id-1")
    (tmp_path / FOLDER).mkdir(mode=0o500)
    tmp_path.chmod(0o755)
    with without_rights(), pytest.raises(JournalError):
        journal.retain(number, State.DONE, [b"picture"], 1.0, "{}")
    entry = journal.find("key")
    assert entry is not None and entry.state is State.SENT and files(tmp_path) == []


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    number = begin(journal)
    journal.sent(number, "id-1")
    with disk_of(1 << 20), pytest.raises(JournalError, match="Make room"):
        journal.retain(number, State.DONE, [b"small", bytes(4 << 20)], 9.0, "{}")
    assert files(tmp_path) == []


def test_a_result_whose_row_could_not_be_written_follows_with_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 0.1)
    journal = Journal(tmp_path)
    number = begin(journal)
    journal.sent(number, "id-1")
    with locked(tmp_path), pytest.raises(JournalError, match="locked"):
        journal.retain(number, State.DONE, [b"picture"], 0.5, "{}", "id-1")
    begin(Journal(tmp_path), "another")
    entry = journal.find("key")
    assert entry is not None and entry.state is State.DONE
    assert journal.images(number) == [b"picture"] and journal.spent() == 1.5


def test_what_is_owed_to_a_journal_is_not_written_into_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 0.1)
    journal = Journal(tmp_path)
    number = begin(journal)
    with locked(tmp_path), pytest.raises(JournalError, match="locked"):
        journal.sent(number, "id-1")
    for file in tmp_path.glob(FILE_NAME + "*"):
        file.unlink()
    journal = Journal(tmp_path)
    assert begin(journal, "another") != number, "no number is ever given twice"
    begin(journal, "a third")
    entry = journal.find("another")
    assert entry is not None and entry.state is State.SENDING and entry.request_id is None


def test_running_a_job_again_whose_picture_was_deleted_fetches_it_again_for_nothing(
    fal: FalServer, tmp_path: Path
) -> None:
    assert attempt(fal, tmp_path).painted
    shutil.rmtree(tmp_path / FOLDER)
    (tmp_path / FOLDER).mkdir()
    assert attempt(fal, tmp_path).painted and fal.paid == 1 and len(files(tmp_path)) == 1


def test_collecting_a_job_whose_picture_was_deleted_asks_the_service(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.next_job(fal_faults.Outcome())
    assert attempt(fal, tmp_path).painted
    [request_id] = fal.jobs
    files(tmp_path)[0].unlink()
    assert is_painted(backend_of(fal, tmp_path).collect(request_id, Watched()))
    assert attempt(fal, tmp_path).painted and fal.paid == 1 and len(files(tmp_path)) == 1
