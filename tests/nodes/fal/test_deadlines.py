"""The two deadlines: until a job must be finished, which is ours, and until it must have started,
which is the service's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import fal_faults
from fakes.fal_calls import submit
from fakes.fal_edits import Watched, attempt, backend_of, hurry, is_painted, small_request
from fakes.fal_server import FalServer
from onereward_pack.nodes.errors import RemoteTimeoutError
from onereward_pack.nodes.fal import transfers


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0) as server:
        yield server


def test_a_deadline_cancels_the_job_and_the_next_run_collects_it(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.hold("running")
    first = attempt(fal, tmp_path, deadline=1)
    [request_id] = fal.jobs
    assert type(first.error) is RemoteTimeoutError and first.error.may_be_billed
    said = str(first.error)
    assert request_id in said and "after 1 s" in said and "same again" in said
    assert 1 <= first.seconds < 20 and len(fal.calls("cancel")) == 1
    fal.release()
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 1


def test_a_deadline_in_the_queue_frees_the_job_for_the_next_run(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.hold()
    first = attempt(fal, tmp_path, deadline=1)
    assert type(first.error) is RemoteTimeoutError and next(iter(fal.jobs)) in str(first.error)
    fal.release()
    assert attempt(fal, tmp_path).painted
    assert [job.cancelled for job in fal.jobs.values()] == [True, False] and fal.paid == 1


def test_a_deadline_before_the_submit_costs_nothing(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 0)
    fal.fail("upload", fal_faults.silence(5))
    first = attempt(fal, tmp_path, deadline=1)
    assert type(first.error) is RemoteTimeoutError and not first.error.may_be_billed
    assert fal.calls("submit") == []
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 1


def test_a_deadline_while_the_submit_is_answered_cancels_what_the_answer_names(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.hold()
    fal.fail("submit", fal_faults.silence(1.5))
    first = attempt(fal, tmp_path, deadline=1)
    [request_id] = fal.jobs
    assert type(first.error) is RemoteTimeoutError and first.error.request_id == request_id
    assert fal.jobs[request_id].cancelled


def test_a_start_deadline_is_asked_of_the_service(fal: FalServer, tmp_path: Path) -> None:
    assert attempt(fal, tmp_path, start_deadline=30).painted
    assert attempt(fal, tmp_path, small_request(seed=6)).error is None
    with_deadline, without = fal.calls("submit")
    assert with_deadline.headers["x-fal-request-timeout"] == "30.0"
    assert "x-fal-request-timeout" not in without.headers


def test_a_job_that_did_not_start_in_time_is_not_billed_and_may_be_sent_again(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.next_job(fal_faults.platform_error(504, "request_timeout"))
    first = attempt(fal, tmp_path, start_deadline=30)
    assert type(first.error) is RemoteTimeoutError and first.error.status == 504
    said = str(first.error)
    assert next(iter(fal.jobs)) in said and "start deadline" in said
    assert "Nothing was billed" in said and not first.error.may_be_billed
    assert fal.calls("cancel") == []
    assert attempt(fal, tmp_path, start_deadline=30).painted and len(fal.jobs) == 2


def test_collecting_never_cancels_not_even_at_its_deadline(fal: FalServer, tmp_path: Path) -> None:
    fal.hold("running")
    request_id = submit(fal)["request_id"]
    with pytest.raises(RemoteTimeoutError, match="after 1 s"):
        backend_of(fal, tmp_path, deadline=1).collect(request_id, Watched())
    assert fal.calls("cancel") == []
    fal.release()
    assert is_painted(backend_of(fal, tmp_path).collect(request_id, Watched()))
