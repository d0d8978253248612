"""The server's queue in its database: order, leases, leases, deadlines, and what is never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onereward_pack.local_backend.server.database import open_database
from onereward_pack.local_backend.server.messages import Answer
from onereward_pack.local_backend.server.queue import leases
from onereward_pack.local_backend.server.queue.job_states import DONE, QUEUED, RUNNING, Job
from onereward_pack.local_backend.server.queue.leases import Leases
from onereward_pack.local_backend.server.queue.store import JobStore, NewJob, QueueFullError
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.nodes.errors import InputError
from pydantic import ValidationError
from sqlalchemy import Engine

DAY = 86400.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(Settings(data=tmp_path / "data"))
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> JobStore:
    return JobStore(engine)


@pytest.fixture
def head(engine: Engine) -> Leases:
    return Leases(engine, "head a")


def job(**more: Any) -> NewJob:
    usual = {"key_id": "k", "body": b"{}", "keep_seconds": DAY, "file_seconds": DAY}
    return NewJob(**{**usual, **more})


def add(store: JobStore, **more: Any) -> Job:
    return store.add(job(**more), 100, 100)[0]


def again(store: JobStore, one: Job) -> Job:
    found = store.find(one.id, one.key_id)
    assert found is not None
    return found


# In order


def test_jobs_are_claimed_in_order_of_arrival_and_low_priority_last(
    store: JobStore, head: Leases
) -> None:
    low, first, second = add(store, low_priority=True), add(store), add(store)
    assert [store.position(one) for one in (low, first, second)] == [2, 0, 1]
    assert [one.id for one in head.claim(2)] == [first.id, second.id]
    assert [one.id for one in head.claim(2)] == [low.id]
    assert head.claim(2) == []


def test_a_job_that_runs_is_ahead_of_nobody(store: JobStore, head: Leases) -> None:
    first, second = add(store), add(store)
    head.claim(1)
    assert store.position(second) == 1  # claimed, not begun
    assert head.start(first.number) and store.position(second) == 0
    assert again(store, first).state == RUNNING


def test_two_heads_never_claim_the_same_job(store: JobStore, engine: Engine, head: Leases) -> None:
    for _ in range(5):
        add(store)
    other = Leases(engine, "head b")
    mine, theirs = head.claim(3), other.claim(3)
    assert {one.id for one in mine}.isdisjoint(one.id for one in theirs)
    assert (len(mine), len(theirs)) == (3, 2)
    assert not other.start(mine[0].number) and not other.finish(mine[0].number, Answer(200, {}))


def test_a_job_is_found_by_its_own_key_only(store: JobStore) -> None:
    one = add(store)
    assert store.find(one.id, "k") == one and store.find(one.id, "other") is None


# Full


def test_a_full_queue_takes_nothing_and_says_so(store: JobStore, head: Leases) -> None:
    store.add(job(), 1, 100)
    with pytest.raises(QueueFullError, match="1 jobs wait"):
        store.add(job(), 1, 100)
    head.start(head.claim(1)[0].number)
    store.add(job(), 1, 100)  # the first one runs, so there is room


def test_a_key_may_send_so_many_jobs_a_minute_and_other_keys_theirs(store: JobStore) -> None:
    for _ in range(3):
        store.add(job(), 100, 3)
    with pytest.raises(QueueFullError, match="3 jobs in a minute"):
        store.add(job(), 100, 3)
    store.add(job(key_id="other"), 100, 3)


# To the end


def test_a_finished_job_keeps_its_answer_and_loses_its_input(store: JobStore, head: Leases) -> None:
    one = add(store, body=b'{"image_url": "..."}')
    head.claim(1)
    assert store.payload(one.number) == b'{"image_url": "..."}'
    head.start(one.number)
    assert head.finish(one.number, Answer(200, {"seed": 5}, {"x": "y"}))
    assert store.answer(one.number) == (200, {"x": "y"}, b'{"seed": 5}')
    assert store.payload(one.number) is None
    done = again(store, one)
    assert (done.state, done.status, done.error_type) == (DONE, 200, None)
    assert not head.finish(one.number, Answer(200, {"seed": 6}))  # one answer, the first
    assert store.answer(one.number) == (200, {"x": "y"}, b'{"seed": 5}')


def test_a_queued_job_is_cancelled_at_once_and_is_not_begun(store: JobStore, head: Leases) -> None:
    waiting, claimed = add(store), add(store)
    head.claim(1)
    assert store.cancel(waiting) == "OK" and store.cancel(claimed) == "OK"
    assert not head.start(waiting.number) and head.claim(5) == []
    for one in (waiting, claimed):
        found = store.answer(one.number)
        assert found is not None and found[0] == 499
        assert again(store, one).error_type == "client_cancelled"
        assert store.cancel(one) == "ALREADY_COMPLETED"


def test_a_running_job_is_asked_to_stop_and_its_head_hears_of_it(
    store: JobStore, head: Leases
) -> None:
    one, other = add(store), add(store)
    for claimed in head.claim(2):
        head.start(claimed.number)
    assert store.cancel(one) == "CANCELLATION_REQUESTED"
    assert again(store, one).state == RUNNING
    assert head.renew() == {other.number}


def test_a_job_that_breaks_a_rule_is_over_before_it_begins(store: JobStore, head: Leases) -> None:
    one = store.refuse(job(), Answer(422, {"detail": []}))
    assert (one.state, one.status) == (DONE, 422) and head.claim(1) == []


def test_a_job_that_did_not_start_in_time_is_over(
    store: JobStore, head: Leases, pass_time: Callable[[float], None]
) -> None:
    late, early = add(store, start_by=1), add(store, start_by=60)
    head.claim(1)
    pass_time(2)
    assert head.reclaim() == [late.number]
    assert (again(store, late).status, again(store, late).error_type) == (504, "request_timeout")
    assert not head.start(late.number) and again(store, early).state == QUEUED


def test_answers_are_forgotten_after_their_time(
    store: JobStore, head: Leases, pass_time: Callable[[float], None]
) -> None:
    short, long = add(store, keep_seconds=1), add(store)
    for one in head.claim(2):
        head.start(one.number)
        head.log(one.number, "INFO", "step 1 of 2")
        head.finish(one.number, Answer(200, {}))
    pass_time(2)
    head.forget()
    assert store.find(short.id, "k") is None and store.answer(short.number) is None
    assert store.logs(short.number) == []
    assert store.find(long.id, "k") is not None and store.answer(long.number) is not None


def test_log_lines_come_in_order_from_where_one_stopped_reading(
    store: JobStore, head: Leases
) -> None:
    one = add(store, warnings=("first",))
    head.log(one.number, "INFO", "second")
    assert [(line.level, line.message) for line in store.logs(one.number)] == [
        ("WARN", "first"), ("INFO", "second"),
    ]  # fmt: skip
    assert [line.message for line in store.logs(one.number, after=1)] == ["second"]


# Death


def test_a_job_whose_worker_died_runs_once_more_at_its_old_place(
    store: JobStore, head: Leases
) -> None:
    one, behind = add(store), add(store)
    head.claim(1)
    head.start(one.number)
    head.lost(one.number, "The worker x stopped in the middle; the job runs again on another.")
    back = again(store, one)
    assert (back.state, back.attempts, back.started) == (QUEUED, 1, None)
    assert (store.position(one), store.position(behind)) == (0, 1)
    assert [line.level for line in store.logs(one.number)] == ["WARN"]
    head.claim(1)
    head.start(one.number)
    head.lost(one.number, "again")
    assert (again(store, one).status, again(store, one).error_type) == (503, "runner_disconnected")


def test_a_job_that_asked_for_no_retry_is_over_when_its_worker_died(
    store: JobStore, head: Leases
) -> None:
    one = add(store, may_retry=False)
    head.claim(1)
    head.start(one.number)
    head.lost(one.number, "gone")
    assert again(store, one).status == 503


def test_a_cancelled_job_is_not_run_again(store: JobStore, head: Leases) -> None:
    one = add(store)
    head.claim(1)
    head.start(one.number)
    store.cancel(one)
    head.lost(one.number, "gone")
    assert again(store, one).status == 499


def test_a_head_that_stops_gives_its_jobs_back_without_counting_them(
    store: JobStore, head: Leases
) -> None:
    one, two = add(store), add(store)
    head.claim(2)
    head.start(one.number)
    for claimed in (one, two):
        head.give_back(claimed.number)
    assert [(again(store, j).state, again(store, j).attempts) for j in (one, two)] == [
        (QUEUED, 0), (QUEUED, 0),
    ]  # fmt: skip
    assert [found.id for found in head.claim(2)] == [one.id, two.id]


def test_the_jobs_of_a_dead_head_are_freed_when_its_lease_ends(
    store: JobStore, engine: Engine, head: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, claimed = add(store), add(store)
    head.claim(2)
    head.start(running.number)
    other = Leases(engine, "head b")
    assert other.reclaim() == [] and other.claim(2) == []
    monkeypatch.setattr(leases, "LEASE", -1.0)
    head.renew()
    monkeypatch.undo()
    assert set(other.reclaim()) == {running.number, claimed.number}
    assert len(other.claim(2)) == 2
    assert [again(store, one).attempts for one in (running, claimed)] == [1, 0]
    assert head.renew() == set()  # the old head, should it live, learns that they are not its own
    assert not head.finish(running.number, Answer(200, {}))


def test_the_jobs_are_there_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    first = open_database(settings)
    one = add(JobStore(first), body=b'{"seed": 1}')
    first.dispose()
    second = open_database(settings)
    store = JobStore(second)
    assert store.find(one.id, "k") == one and store.payload(one.number) == b'{"seed": 1}'
    second.dispose()
    assert (tmp_path / "data" / "server.sqlite3").stat().st_mode & 0o077 == 0


# Settings


def test_a_database_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The database cannot be opened"):
        open_database(Settings(data=tmp_path, database="sqlite:////no/such/folder/x.sqlite3"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used as the data folder"):
        open_database(Settings(data=tmp_path / "file" / "data"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"heads": 2}, "cannot share an sqlite file"),
        ({"public_url": "gpu.example.com"}, "give an http"),
        ({"precision": "fp4"}, "use one of"),
        ({"max_queu": 5}, "Extra inputs"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**wrong)
