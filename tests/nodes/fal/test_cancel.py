"""Cancel in every phase of a job: the service hears of it at once, nothing is sent after it, and
what was finished all the same is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import fal_faults
from fakes.backend import Interrupted
from fakes.fal_edits import (
    TOO_LONG,
    Cancelling,
    Watched,
    attempt,
    backend_of,
    edit_pictures,
    hurry,
    run,
    small_request,
    wait_for,
)
from fakes.fal_faults import Fault
from fakes.fal_server import FalServer
from onereward_pack.nodes.contracts import EditRequest, EditResult
from onereward_pack.nodes.fal import client, transfers
from torch import Tensor

AT_ONCE = 2.0  # seconds, on a busy machine


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0) as server:
        yield server
        assert server.leaks == []


def cancel_when(
    fal: FalServer,
    folder: Path,
    condition: Callable[[], object],
    request: EditRequest | None = None,
) -> tuple[float, float]:
    """Run until the user cancels; when that was, and when the run ended."""
    with Cancelling(condition) as progress, pytest.raises(Interrupted):
        run(backend_of(fal, folder), request or small_request(), progress)
    assert progress.moment is not None
    return progress.moment, time.monotonic()


# Before there is a job


@pytest.mark.parametrize("phase", ["pricing", "initiate", "upload"])
def test_cancel_before_the_submit_ends_at_once_and_sends_nothing(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 0)
    fal.fail(phase, fal_faults.silence(30))
    moment, end = cancel_when(fal, tmp_path, lambda: fal.calls(phase))
    assert end - moment < AT_ONCE
    assert fal.calls("submit") == [] and fal.calls("cancel") == []
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 1


@pytest.mark.parametrize("fault", [fal_faults.too_many(30), fal_faults.ingress(503)])
def test_cancel_between_two_tries_of_a_submit_sends_no_second(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.undo()  # the pauses in full
    fal.fail("submit", fault)
    moment, end = cancel_when(fal, tmp_path, lambda: fal.calls("submit"))
    assert end - moment < AT_ONCE
    assert len(fal.calls("submit")) == 1 and fal.jobs == {} and fal.calls("cancel") == []
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 1


def test_cancel_while_the_body_goes_out_takes_it_back(fal: FalServer, tmp_path: Path) -> None:
    def stall(wire: fal_faults.Wire, _: fal_faults.Reply) -> None:
        wire.close()
        wire.pause(3)

    fal.fail("submit", Fault(stall, reads_body=False))
    large = small_request(prompt="x" * 24_000_000)
    moment, end = cancel_when(fal, tmp_path, lambda: fal.calls("submit"), large)
    assert end - moment < AT_ONCE
    assert fal.jobs == {} and fal.calls("cancel") == []
    assert attempt(fal, tmp_path, large).painted and len(fal.jobs) == 1


# While there is one


def test_cancel_while_waiting_for_the_submits_answer_cancels_as_soon_as_it_names_the_job(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.hold()
    fal.fail("submit", fal_faults.silence(1.0))
    moment, _ = cancel_when(fal, tmp_path, lambda: fal.jobs)
    [cancel], [submit] = fal.calls("cancel"), fal.calls("submit")
    answered = submit.at + 1.0
    assert moment < answered <= cancel.at < answered + AT_ONCE
    fal.release()
    assert attempt(fal, tmp_path).painted
    assert [job.cancelled for job in fal.jobs.values()] == [True, False] and fal.paid == 1


def prepare(fal: FalServer, phase: str) -> Callable[[], object]:
    """Bring a job into that phase; whether it is there."""
    if phase in ("queued", "running"):
        fal.hold(phase)
        shown = {"queued": "IN_QUEUE", "running": "IN_PROGRESS"}[phase]
        return lambda: any(shown in job.shown for job in list(fal.jobs.values()))
    slow = fal_faults.slow(0.5, 16) if phase == "download" else fal_faults.silence(30)
    fal.fail(phase, slow)
    return lambda: fal.calls(phase)


@pytest.mark.parametrize("phase", ["queued", "running", "status", "result", "download"])
def test_cancel_reaches_the_service_at_once_and_loses_nothing_that_is_paid(
    fal: FalServer, tmp_path: Path, phase: str
) -> None:
    moment, end = cancel_when(fal, tmp_path, prepare(fal, phase))
    [cancel] = fal.calls("cancel")
    assert 0 <= cancel.at - moment < AT_ONCE and end - moment < 10
    assert len(fal.calls("submit")) == 1
    before = len(fal.requests)
    fal.release()
    assert attempt(fal, tmp_path).painted
    if phase == "queued":
        assert [job.cancelled for job in fal.jobs.values()] == [True, False]
    else:
        assert len(fal.calls("submit")) == 1
    assert fal.paid == 1
    if phase in ("status", "result", "download"):
        assert len(fal.requests) == before  # it was finished all the same, and is kept


def test_a_running_job_that_stops_is_sent_anew(fal: FalServer, tmp_path: Path) -> None:
    fal.cancel_stops_running = True
    moment, _ = cancel_when(fal, tmp_path, prepare(fal, "running"))
    [cancel] = fal.calls("cancel")
    assert cancel.at - moment < AT_ONCE
    fal.release()
    assert attempt(fal, tmp_path).painted
    assert len(fal.jobs) == 2 and fal.paid == 1


def test_a_running_job_that_ends_soon_after_is_kept(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the time to settle in full
    fal.run_seconds = 1.0
    jobs = fal.jobs
    cancel_when(fal, tmp_path, lambda: any("IN_PROGRESS" in j.shown for j in list(jobs.values())))
    assert len(fal.calls("cancel")) == 1 and fal.paid == 1
    fal.down()
    assert attempt(fal, tmp_path).painted


@pytest.mark.parametrize(
    ("fault", "times", "cancelled"),
    [
        (fal_faults.ingress(502), 1, True),
        (fal_faults.reset_before_body(), 1, True),
        (fal_faults.ingress(502), 9, False),
        (fal_faults.silence(30), 9, True),
        (fal_faults.unauthorized(), 9, False),
        (fal_faults.html_page(), 9, False),
        (fal_faults.huge_body(), 9, False),
    ],
)
def test_a_cancel_that_fails_is_still_an_interruption(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fault: Fault, times: int, cancelled: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(client, "CANCEL_TIMEOUT", (5.0, 0.3))
    in_queue = prepare(fal, "queued")
    fal.fail("cancel", fault, times)
    moment, end = cancel_when(fal, tmp_path, in_queue)
    assert end - moment < 10 and fal.calls("cancel")[0].at - moment < AT_ONCE
    assert [job.cancelled for job in fal.jobs.values()] == [cancelled]
    fal.release()
    assert attempt(fal, tmp_path).painted
    assert fal.paid == 1 and len(fal.jobs) == (2 if cancelled else 1)


def test_a_service_that_is_gone_when_cancelled_is_an_interruption(
    fal: FalServer, tmp_path: Path
) -> None:
    in_queue = prepare(fal, "queued")
    cancel_when(fal, tmp_path, lambda: in_queue() and fal.down() is None)
    fal.up()
    fal.release()
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 1


def test_collecting_a_job_can_be_interrupted_without_cancelling_it(
    fal: FalServer, tmp_path: Path
) -> None:
    cancel_when(fal, tmp_path, prepare(fal, "running"))
    [request_id] = fal.jobs
    asked, cancels = len(fal.calls("status")), len(fal.calls("cancel"))
    with Cancelling(lambda: len(fal.calls("status")) > asked) as progress:
        with pytest.raises(Interrupted):
            backend_of(fal, tmp_path).collect(request_id, progress)
    assert len(fal.calls("cancel")) == cancels
    fal.release()
    collected = backend_of(fal, tmp_path).collect(request_id, Watched())
    assert collected.request_id == request_id and len(fal.jobs) == 1


# Several jobs


def asked_for(fal: FalServer) -> int:
    """How many jobs have been asked for their status."""
    return len({call.path for call in fal.calls("status")})


def test_cancel_reaches_all_jobs_of_an_edit(fal: FalServer, tmp_path: Path) -> None:
    fal.hold()
    with Cancelling(lambda: asked_for(fal) == 4) as progress, pytest.raises(Interrupted):
        edit_pictures(fal, tmp_path, 6, progress, parallel_jobs=4)
    assert progress.moment is not None
    assert len(fal.calls("submit")) == 4 and all(job.cancelled for job in fal.jobs.values())
    assert [call for call in fal.calls("cancel") if call.at - progress.moment > AT_ONCE] == []
    assert len(fal.calls("cancel")) == 4
    fal.release()
    assert len(edit_pictures(fal, tmp_path, 6).images) == 6
    assert fal.paid == 6 and len(fal.jobs) == 10


class Releasing(Watched):
    """Lets the jobs go on once another run is over."""

    def __init__(self, fal: FalServer, other: Future[EditResult]) -> None:
        super().__init__()
        self._fal, self._other = fal, other

    def check_interrupted(self) -> None:
        super().check_interrupted()
        if self._other.done():
            self._fal.release()


class StoppedAtTheBar(Watched):
    """Learns of Cancel only where ComfyUI raises it too: when the bar moves."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        super().__init__()
        self._condition = condition

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        wait_for(self._condition)
        raise Interrupted


def test_cancel_met_while_a_result_is_pasted_cancels_the_other_jobs(
    fal: FalServer, tmp_path: Path
) -> None:
    edit_pictures(fal, tmp_path, 1)
    fal.hold()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        edit_pictures(fal, tmp_path, 4, StoppedAtTheBar(lambda: asked_for(fal) == 4))
    assert time.monotonic() - start < TOO_LONG / 2
    assert [job.cancelled for job in fal.jobs.values()] == [False, True, True, True]
    fal.release()
    edit_pictures(fal, tmp_path, 4)
    assert fal.paid == 4 and len(fal.jobs) == 7


def test_the_twin_of_a_cancelled_job_is_sent_anew(fal: FalServer, tmp_path: Path) -> None:
    in_queue = prepare(fal, "queued")
    with ThreadPoolExecutor(1) as pool, Cancelling(in_queue) as progress:
        cancelled = pool.submit(run, backend_of(fal, tmp_path), small_request(), progress)
        wait_for(lambda: fal.jobs)
        twin = attempt(fal, tmp_path, progress=Releasing(fal, cancelled))
        assert isinstance(cancelled.exception(), Interrupted)
    assert twin.painted and [job.cancelled for job in fal.jobs.values()] == [True, False]
