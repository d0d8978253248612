"""The journal as the settings panel shows it: words, totals, and room made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.fal_edits import Watched, hurry, small_request
from fakes.fal_journals import begin, finished, job_in, write
from fakes.fal_server import FalServer
from onereward_pack.nodes.backends import clear_pictures, collect_job, resolve_backend, view_journal
from onereward_pack.nodes.contracts import FalSpec
from onereward_pack.nodes.errors import InputError, JournalError, RemoteError
from onereward_pack.nodes.fal import job_store as module
from onereward_pack.nodes.fal.endpoints import QUEUE_URL_VARIABLE
from onereward_pack.nodes.fal.job_database import FILE_NAME
from onereward_pack.nodes.fal.job_history import NEWEST, clear_images, server_of, view
from onereward_pack.nodes.fal.job_states import State
from onereward_pack.nodes.fal.job_store import Journal
from onereward_pack.nodes.fal.spend_limits import SpendLimits

NAMES = {"fal": "fal"}


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0, unit="images", unit_price=1.0) as server:
        monkeypatch.setenv(QUEUE_URL_VARIABLE, server.url)
        monkeypatch.setenv("FAL_KEY", server.key or "")
        yield server


def test_looking_at_a_journal_that_is_not_there_makes_none(tmp_path: Path) -> None:
    folder = tmp_path / "not made yet"
    assert view(folder, NAMES) == {
        "jobs": [], "totals": {"kept_bytes": 0, "pictures": 0, "session": 0.0, "month": 0.0}
    }  # fmt: skip
    assert clear_images(folder) == 0 and server_of(folder, "id-1") is None
    assert not folder.exists()


def test_the_newest_jobs_come_first_and_no_more_than_a_hundred(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(NEWEST + 5):
        journal.sent(begin(journal, f"key {number}"), f"id-{number}")
    jobs = view(tmp_path, NAMES)["jobs"]
    assert [job["request_id"] for job in jobs] == [f"id-{n}" for n in range(104, 4, -1)]


def test_a_job_is_told_by_what_a_person_knows_it_by(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    number = journal.begin("key", "fal", "run", 0.5, SpendLimits(0, 0), "seed 7, 1024x768")
    assert isinstance(number, int)
    journal.sent(number, "id-1")
    journal.retain(number, State.DONE, [b"one", b"three"], 0.25, '{"seed": 7}')
    [job] = view(tmp_path, NAMES)["jobs"]
    assert job.pop("created") > 1.7e9
    assert job == {
        "state": "done", "server": "fal", "request_id": "id-1", "estimate": 0.5, "cost": 0.25,
        "about": "seed 7, 1024x768", "kept": 2, "collectable": True,
    }  # fmt: skip


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_words_of_its_own(tmp_path: Path, state: State) -> None:
    journal = Journal(tmp_path)
    for other in State:
        job_in(journal, other, key=other.value)
        write(tmp_path, f"UPDATE jobs SET state = '{other.value}' WHERE key = '{other.value}'")
    words = [job["state"] for job in view(tmp_path, NAMES)["jobs"]]
    assert len(set(words)) == len(State)
    assert state.value not in ("lost", "flagged", "unknown") or state.value not in words


def test_a_job_that_another_program_was_sending_lost_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(Journal(tmp_path))
    assert view(tmp_path, NAMES)["jobs"][0]["state"] == "being sent"
    monkeypatch.setattr(module, "SESSION", "another program looks, or this one after a restart")
    assert view(tmp_path, NAMES)["jobs"][0]["state"] == "being sent"
    write(tmp_path, "UPDATE jobs SET lease = 1")  # it ran out
    assert view(tmp_path, NAMES)["jobs"][0]["state"] == "sent, the answer was lost"


@pytest.mark.parametrize("state", list(State))
def test_only_what_may_have_a_picture_can_be_collected(tmp_path: Path, state: State) -> None:
    journal = Journal(tmp_path)
    journal.sent(begin(journal, "with"), "id-1")
    begin(journal, "without")
    write(tmp_path, f"UPDATE jobs SET state = '{state.value}'")
    without, with_id = view(tmp_path, NAMES)["jobs"]
    may = state in (State.UNKNOWN, State.SENT, State.DONE, State.LOST)
    assert (with_id["collectable"], without["collectable"]) == (may, False)


def test_no_prompt_key_or_address_is_in_it(tmp_path: Path, fal: FalServer) -> None:
    request = small_request(prompt="a dog named Strudel")
    one = resolve_backend(FalSpec(), tmp_path)
    one.admit([request], Watched())
    one.run(request, Watched())
    said = json.dumps(view_journal(tmp_path))
    assert '"seed 5, 48x32"' in said and '"fal"' in said
    for secret in ("Strudel", fal.url, fal.key):
        assert secret not in said
    other = json.dumps(view(tmp_path, {}))
    assert fal.url not in other and "a server that is no longer named" in other


def test_the_totals_count_what_is_kept_and_what_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    finished(journal, "a", 1000, cost=0.25)
    finished(journal, "old", 100, cost=8.0)
    write(tmp_path, "UPDATE jobs SET created = created - 31 * 86400 WHERE key = 'old'")
    begin(journal, "under way", 0.5)
    job_in(journal, State.FAILED, "free")
    totals = view(tmp_path, NAMES)["totals"]
    assert totals == {"kept_bytes": 1100, "pictures": 2, "session": 8.75, "month": 0.75}
    monkeypatch.setattr(module, "SESSION", "the program was started again")
    assert view(tmp_path, NAMES)["totals"]["session"] == 0.0


def test_clearing_drops_the_images_and_keeps_the_ledger(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    finished(journal, "a", 1000)
    finished(journal, "b", 500)
    under_way = begin(journal, "under way")
    journal.sent(under_way, "id-under way")
    before = (tmp_path / FILE_NAME).stat().st_size
    assert clear_pictures(tmp_path) == 1500
    jobs = {job["request_id"]: job for job in view(tmp_path, NAMES)["jobs"]}
    assert [jobs[f"id-{key}"]["state"] for key in ("a", "b", "under way")] == [
        "no picture is kept any more", "no picture is kept any more", "sent, no result yet"
    ]  # fmt: skip
    assert jobs["id-a"]["cost"] == 1.0 and journal.spent() == 3.0
    assert view(tmp_path, NAMES)["totals"]["pictures"] == 0
    assert (tmp_path / FILE_NAME).stat().st_size <= before
    assert journal.find("a") is None and journal.find("under way") is not None
    assert clear_pictures(tmp_path) == 0


def test_a_broken_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    for look in (lambda: view(tmp_path, NAMES), lambda: clear_images(tmp_path)):
        with pytest.raises(JournalError, match=FILE_NAME):
            look()


def test_a_job_is_collected_from_the_journal_and_after_clearing_from_its_service(
    tmp_path: Path, fal: FalServer
) -> None:
    request = small_request()
    one = resolve_backend(FalSpec(), tmp_path)
    one.admit([request], Watched())
    painted = one.run(request, Watched())
    assert painted.request_id is not None
    asked = len(fal.requests)
    again = collect_job(painted.request_id, tmp_path)
    assert again.images.equal(painted.images) and len(fal.requests) == asked
    clear_pictures(tmp_path)
    again = collect_job(painted.request_id, tmp_path)
    assert again.images.equal(painted.images) and len(fal.requests) > asked
    assert fal.paid == 1 and view_journal(tmp_path)["jobs"][0]["state"] == "done"


def test_a_job_of_a_named_server_is_collected_there(
    tmp_path: Path, fal: FalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_KEY", fal.key)
    monkeypatch.setenv(QUEUE_URL_VARIABLE, "http://127.0.0.1:1")  # not there
    servers = tmp_path / "servers.json"
    servers.write_text(json.dumps({"studio": {"url": fal.url, "key_env": "STUDIO_KEY"}}))
    request, one = small_request(), resolve_backend(FalSpec(server="studio"), tmp_path)
    one.admit([request], Watched())
    painted = one.run(request, Watched())
    assert painted.request_id and view_journal(tmp_path)["jobs"][0]["server"] == "studio"
    clear_pictures(tmp_path)
    assert collect_job(painted.request_id, tmp_path).images.equal(painted.images)
    servers.unlink()
    with pytest.raises(InputError, match="no longer named"):
        collect_job(painted.request_id, tmp_path)


def test_a_job_that_the_journal_does_not_know_is_not_asked_for(
    tmp_path: Path, fal: FalServer
) -> None:
    for name in ("../../x", "764cabcf-b745-4b3e-ae38-1200304cf45b", ""):
        with pytest.raises(InputError, match="The journal has no job.*OneReward Collect"):
            collect_job(name, tmp_path)
    assert fal.requests == []


def test_a_job_that_the_service_has_forgotten_is_an_error_in_words(
    tmp_path: Path, fal: FalServer
) -> None:
    request, one = small_request(), resolve_backend(FalSpec(), tmp_path)
    one.admit([request], Watched())
    painted = one.run(request, Watched())
    clear_pictures(tmp_path)
    fal.jobs.clear()
    with pytest.raises(RemoteError, match="no longer has this job"):
        collect_job(painted.request_id or "", tmp_path)
