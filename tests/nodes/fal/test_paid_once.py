"""Money across runs, nodes and programs: crashes, twins, and batches in which some jobs fail."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import fal_faults
from fakes.fal_calls import submit
from fakes.fal_edits import (
    Watched,
    attempt,
    backend_of,
    clear,
    edit_pictures,
    hurry,
    is_painted,
    run,
    server_of,
    small_request,
    wait_for,
)
from fakes.fal_journals import locked, write
from fakes.fal_server import FalServer
from onereward_pack.nodes.contracts import EditRequest, FalSpec
from onereward_pack.nodes.errors import (
    BalanceError,
    JournalError,
    PartialFailureError,
    RemoteError,
    SubmissionUnknownError,
)
from onereward_pack.nodes.fal import job_database, job_sends, job_store
from onereward_pack.nodes.fal.job_store import Journal
from onereward_pack.nodes.fal.schemas import job_key
from onereward_pack.nodes.fal.spend_limits import SpendLimits


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    """Every picture costs one dollar."""
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0, unit="images", unit_price=1.0) as server:
        yield server


def written_down(
    fal: FalServer, folder: Path, monkeypatch: pytest.MonkeyPatch, request: EditRequest
) -> tuple[Journal, int]:
    """A job that another run of the program began."""
    with monkeypatch.context() as earlier:
        earlier.setattr(job_store, "SESSION", "an earlier program")
        earlier.setattr(job_sends, "LEASE", 0.0)  # which it can no longer renew
        book = Journal(folder)
        key = job_key(request, FalSpec(), server_of(fal))
        number = book.begin(key, "fal", "its run", 1.0, SpendLimits(0, 0))
    assert isinstance(number, int)
    return book, number


# Crashes


def test_a_job_that_was_being_sent_when_the_program_ended_is_not_sent_again(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_down(fal, tmp_path, monkeypatch, small_request())
    for _ in range(2):
        error = attempt(fal, tmp_path, deadline=5).error
        assert type(error) is SubmissionUnknownError and error.may_be_billed
        assert "dashboard" in str(error) and "seed" in str(error)
    assert fal.calls("submit") == []
    assert attempt(fal, tmp_path, small_request(seed=6)).error is None


def test_a_job_that_was_accepted_before_the_program_ended_is_collected(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, number = written_down(fal, tmp_path, monkeypatch, small_request())
    told = submit(fal, size=(48, 32))
    book.sent(number, told["request_id"])
    again = attempt(fal, tmp_path)
    assert again.painted and again.result is not None
    assert again.result.request_id == told["request_id"] and "resumed" in again.result.notes
    assert len(fal.calls("submit")) == 1


def test_a_job_whose_answer_was_lost_is_collected_by_its_id(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("submit", fal_faults.reset_after_body())
    assert isinstance(attempt(fal, tmp_path).error, SubmissionUnknownError)
    [request_id] = fal.jobs
    for _ in range(2):
        result = backend_of(fal, tmp_path).collect(request_id, Watched())
        assert is_painted(result) and result.request_id == request_id
    again = attempt(fal, tmp_path)
    assert again.painted and again.result is not None and again.result.notes == ("from cache",)
    assert len(fal.calls("submit")) == 1 and len(fal.calls("result")) == 1


def test_of_two_lost_answers_that_look_alike_neither_is_guessed(
    fal: FalServer, tmp_path: Path
) -> None:
    for steps in (8, 9):
        fal.fail("submit", fal_faults.reset_after_body())
        request = replace(small_request(), num_inference_steps=steps)
        with pytest.raises(SubmissionUnknownError):
            run(backend_of(fal, tmp_path), request)
    backend_of(fal, tmp_path).collect(next(iter(fal.jobs)), Watched())
    for steps in (8, 9):
        with pytest.raises(SubmissionUnknownError):
            run(backend_of(fal, tmp_path), replace(small_request(), num_inference_steps=steps))
    assert len(fal.calls("submit")) == 2


def test_a_collected_job_of_another_prompt_is_not_taken_for_the_lost_one(
    fal: FalServer, tmp_path: Path
) -> None:
    for prompt in ("a cat", "a dog"):
        fal.fail("submit", fal_faults.reset_after_body())
        with pytest.raises(SubmissionUnknownError):
            run(backend_of(fal, tmp_path), replace(small_request(), prompt=prompt))
    backend_of(fal, tmp_path).collect([*fal.jobs][1], Watched())  # the dog
    with pytest.raises(SubmissionUnknownError):
        run(backend_of(fal, tmp_path), replace(small_request(), prompt="a cat"))
    run(backend_of(fal, tmp_path), replace(small_request(), prompt="a dog"))
    assert len(fal.calls("submit")) == 2


def test_collecting_at_the_wrong_server_ends_no_job(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("result", fal_faults.reset_after_body(), times=50)
    assert isinstance(attempt(fal, tmp_path).error, RemoteError)
    [request_id] = fal.jobs
    with FalServer() as other, pytest.raises(RemoteError, match="no longer has this job"):
        backend_of(other, tmp_path).collect(request_id, Watched())
    clear(fal, "result")
    assert attempt(fal, tmp_path).painted
    assert len(fal.calls("submit")) == 1


def test_an_id_that_could_not_be_written_down_at_first_is_there_with_the_result(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, job: int, request_id: str) -> None:
        raise JournalError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "sent", full)
        assert attempt(fal, tmp_path).painted
    again = attempt(fal, tmp_path)
    assert again.painted and again.result is not None and again.result.request_id in fal.jobs
    assert fal.paid == 1


def test_a_lost_answer_that_still_named_the_job_leads_back_to_it(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.fail("submit", fal_faults.truncated())
    errors = [attempt(fal, tmp_path).error for _ in range(2)]
    [request_id] = fal.jobs
    assert [request_id in str(error) for error in errors] == [True, True]
    backend_of(fal, tmp_path).collect(request_id, Watched())
    assert attempt(fal, tmp_path).painted and len(fal.calls("submit")) == 1


def test_an_id_that_is_no_jobs_does_not_free_an_unknown_job(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("submit", fal_faults.server_error())
    error = attempt(fal, tmp_path).error
    assert isinstance(error, SubmissionUnknownError) and error.request_id is not None
    with pytest.raises(RemoteError) as caught:
        backend_of(fal, tmp_path).collect(error.request_id, Watched())
    assert caught.value.status == 404
    assert isinstance(attempt(fal, tmp_path).error, SubmissionUnknownError)
    assert len(fal.calls("submit")) == 1


@pytest.mark.parametrize("key", ["fal-ai", "images", "url", "8"])
def test_a_key_that_is_a_word_of_the_protocol_loses_no_job(tmp_path: Path, key: str) -> None:
    with FalServer(key=key, run_seconds=0.0) as fal:
        for _ in range(2):
            assert attempt(fal, tmp_path).painted
        assert len(fal.jobs) == 1


def test_a_finished_job_needs_no_service_at_all(fal: FalServer, tmp_path: Path) -> None:
    assert attempt(fal, tmp_path).painted
    fal.down()
    again = attempt(fal, tmp_path)
    assert again.painted and again.result is not None
    assert again.result.cost == 0 and again.result.session_cost == 1.0


def test_without_a_journal_nothing_is_sent(fal: FalServer, tmp_path: Path) -> None:
    (tmp_path / job_database.FILE_NAME).write_bytes(b"this is no database " * 1000)
    error = attempt(fal, tmp_path).error
    assert isinstance(error, JournalError) and str(tmp_path) in str(error)
    assert fal.calls("submit") == []


# Twins


def test_two_identical_jobs_at_once_are_one_and_give_two_pictures(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.fail("submit", fal_faults.silence(0.3))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: attempt(fal, tmp_path), range(2)))
    assert [each.painted for each in both] == [True, True]
    assert len(fal.calls("submit")) == 1 and fal.paid == 1


def test_the_twin_of_a_refused_job_is_sent_on_its_own(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("submit", fal_faults.invalid())
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: attempt(fal, tmp_path), range(2)))
    assert sorted(each.painted for each in both) == [False, True]
    assert len(fal.jobs) == 1


# Batches


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_failed_job_of_a_batch_is_named_and_the_rerun_sends_it_alone(
    fal: FalServer, tmp_path: Path, parallel: int
) -> None:
    fine, failing = fal_faults.Outcome(), fal_faults.platform_error(503, "runner_disconnected")
    for outcome in (fine, fine, failing):
        fal.next_job(outcome)
    with pytest.raises(PartialFailureError) as caught:
        edit_pictures(fal, tmp_path, 5, parallel_jobs=parallel)
    [name] = caught.value.errors
    assert re.fullmatch("picture 3" if parallel == 1 else "picture [1-5]", name)
    said = str(caught.value)
    words = ("1 of 5", name, "Runner disconnected", "other 4 are paid for and kept", "seed 5")
    assert [word for word in words if word not in said] == []
    failed = caught.value.errors[name]
    assert isinstance(failed, RemoteError) and str(failed.request_id) in said
    assert (len(fal.jobs), fal.paid) == (5, 4)
    done = edit_pictures(fal, tmp_path, 5, parallel_jobs=parallel)
    assert (len(fal.jobs), fal.paid, len(done.images)) == (6, 5, 5)
    assert done.report.count("from cache") == 4


@pytest.mark.parametrize("parallel", [1, 4])
def test_jobs_behind_a_failed_one_go_on(fal: FalServer, tmp_path: Path, parallel: int) -> None:
    fal.fail("submit", fal_faults.invalid(), times=2)
    with pytest.raises(PartialFailureError) as caught:
        edit_pictures(fal, tmp_path, 8, parallel_jobs=parallel, run_cap=0.0)
    assert len(caught.value.errors) == 2 and fal.paid == 6


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_empty_account_stops_the_jobs_behind(
    fal: FalServer, tmp_path: Path, parallel: int
) -> None:
    fal.fail("submit", fal_faults.locked(), times=100)
    with pytest.raises(PartialFailureError) as caught:
        edit_pictures(fal, tmp_path, 12, parallel_jobs=parallel, run_cap=0.0)
    errors = list(caught.value.errors.values())
    assert len(errors) == 12 and isinstance(errors[0], BalanceError)
    assert 1 <= len(fal.calls("submit")) <= parallel and not caught.value.may_be_billed
    assert "Not sent" in str(errors[-1]) and "credit" in str(caught.value)


def test_an_empty_account_in_the_middle_keeps_what_is_paid(fal: FalServer, tmp_path: Path) -> None:
    edit_pictures(fal, tmp_path, 2)
    fal.fail("submit", fal_faults.locked())
    with pytest.raises(PartialFailureError, match="other 2 are paid for and kept") as caught:
        edit_pictures(fal, tmp_path, 4, parallel_jobs=1)
    assert list(caught.value.errors) == ["picture 3", "picture 4"] and len(fal.jobs) == 2
    assert edit_pictures(fal, tmp_path, 4).report.count("from cache") == 2 and fal.paid == 4


def test_a_job_whose_every_entry_met_a_locked_journal_is_not_waited_for(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 0.1)
    fal.fail("submit", fal_faults.silence(0.5))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(attempt, fal, tmp_path)
        wait_for(lambda: fal.calls("submit"))
        with locked(tmp_path):  # the request id, and then the result
            painted = first.result()
    assert painted.painted and painted.result is not None
    assert "not kept: the journal cannot be written" in painted.result.notes
    again = attempt(fal, tmp_path, deadline=5)
    assert again.painted and again.result is not None and again.seconds < 5
    assert again.result.notes == ("from cache",), "the id and the picture were written at once"
    assert fal.paid == 1 and len(fal.calls("submit")) == 1


def test_an_id_that_met_a_locked_journal_is_the_one_that_is_resumed(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 0.1)
    fal.fail("submit", fal_faults.silence(0.5))
    fal.fail("result", fal_faults.reset_after_body(), times=50)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(attempt, fal, tmp_path)
        wait_for(lambda: fal.calls("submit"))
        with locked(tmp_path):
            assert isinstance(first.result().error, RemoteError)
    clear(fal, "result")
    again = attempt(fal, tmp_path, deadline=5)
    assert again.painted and again.result is not None and "resumed" in again.result.notes
    assert fal.paid == 1 and len(fal.calls("submit")) == 1


def test_a_refused_job_that_could_not_be_dropped_at_first_is_sent_anew(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_database, "BUSY_SECONDS", 0.1)
    fal.fail("submit", fal_faults.invalid())
    fal.fail("submit", fal_faults.invalid())
    dropped = Journal.drop

    def drop(self: Journal, job: int) -> None:
        with locked(tmp_path):
            dropped(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "drop", drop)
        assert isinstance(attempt(fal, tmp_path).error, RemoteError)
    clear(fal, "submit")
    assert attempt(fal, tmp_path, deadline=5).painted and len(fal.jobs) == 1


def test_the_same_job_of_another_program_is_waited_for_while_that_lives(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_sends, "LEASE", 1.0)
    with monkeypatch.context() as earlier:
        earlier.setattr(job_store, "SESSION", "another program")
        book = Journal(tmp_path)
        key = job_key(small_request(), FalSpec(), server_of(fal))
        number = book.begin(key, "fal", "its run", 1.0, SpendLimits(0, 0))
        assert isinstance(number, int)
    told = submit(fal, size=(48, 32))
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(attempt, fal, tmp_path)
        time.sleep(0.4)
        assert not ours.done()
        book.sent(number, told["request_id"])
        assert ours.result().painted
    assert len(fal.calls("submit")) == 1 and fal.paid == 1


def test_the_same_job_of_a_program_that_died_is_unknown_when_its_lease_has_run_out(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_down(fal, tmp_path, monkeypatch, small_request())
    write(tmp_path, f"UPDATE jobs SET lease = {time.time() + 0.5}")
    error = attempt(fal, tmp_path, deadline=10)
    assert isinstance(error.error, SubmissionUnknownError) and 0.4 < error.seconds < 5
    write(tmp_path, f"UPDATE jobs SET lease = {time.time() + 86400}")  # its clock jumped back
    assert isinstance(attempt(fal, tmp_path, deadline=10).error, SubmissionUnknownError)
    assert fal.calls("submit") == []
