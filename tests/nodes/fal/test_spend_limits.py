"""Spend caps: what counts against them, what does not, and what is refused before it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import fal_faults
from fakes.fal_edits import (
    Watched,
    attempt,
    backend_of,
    edit_pictures,
    hurry,
    is_painted,
    server_of,
    small_request,
    wait_for,
)
from fakes.fal_server import FalServer
from onereward_pack.nodes.contracts import FalSpec
from onereward_pack.nodes.errors import InputError, RemoteError, SubmissionUnknownError
from onereward_pack.nodes.fal.backend import FalBackend
from onereward_pack.nodes.fal.job_store import Journal


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    """Every picture costs one dollar."""
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0, unit="images", unit_price=1.0) as server:
        yield server


def test_an_edit_over_the_run_cap_sends_nothing(fal: FalServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\$3\.000.*run_cap of \$2\.5.*This was not sent"):
        edit_pictures(fal, tmp_path, 3, run_cap=2.5)
    assert fal.calls("submit") == [] and fal.calls("initiate") == []
    edit_pictures(fal, tmp_path, 3, run_cap=3.0)
    assert fal.paid == 3


def test_the_session_cap_counts_earlier_runs_and_not_what_is_cached(
    fal: FalServer, tmp_path: Path
) -> None:
    edit_pictures(fal, tmp_path, 3, session_cap=4.0)
    with pytest.raises(InputError, match=r"\$3\.000 of this session.*session_cap of \$4"):
        edit_pictures(fal, tmp_path, 5, session_cap=4.0)
    assert len(fal.jobs) == 3
    edit_pictures(fal, tmp_path, 4, session_cap=4.0, run_cap=1.0)
    assert len(fal.jobs) == 4
    assert "$0, from cache;" in edit_pictures(fal, tmp_path, 4, session_cap=1.0, run_cap=0.5).report


def test_jobs_under_way_count(fal: FalServer, tmp_path: Path) -> None:
    fal.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(attempt, fal, tmp_path, session_cap=1.5)
        wait_for(lambda: fal.calls("status"))
        second = attempt(fal, tmp_path, small_request(seed=6), session_cap=1.5)
        assert isinstance(second.error, InputError) and "on its way" in str(second.error)
        fal.release()
        assert first.result().painted
    assert len(fal.calls("submit")) == 1


@pytest.mark.parametrize("cap", ["run_cap", "session_cap"])
def test_jobs_admitted_at_the_same_time_do_not_pass_a_cap_together(
    fal: FalServer, tmp_path: Path, cap: str
) -> None:
    requests = [small_request(seed) for seed in (5, 6)]
    first = backend_of(fal, tmp_path, **{cap: 1.5})
    second = first if cap == "run_cap" else backend_of(fal, tmp_path, **{cap: 1.5})
    first.admit([requests[0]], Watched())
    second.admit([requests[1]], Watched())
    assert is_painted(first.run(requests[0], Watched()))
    with pytest.raises(InputError, match=cap):
        second.run(requests[1], Watched())
    assert len(fal.calls("submit")) == 1


@pytest.mark.parametrize(
    ("fault", "spent"),
    [(fal_faults.reset_after_body(), 1.0), (fal_faults.invalid(), 0.0)],
    ids=["an unknown job counts", "a refused one does not"],
)
def test_what_may_be_billed_counts(
    fal: FalServer, tmp_path: Path, fault: fal_faults.Fault, spent: float
) -> None:
    fal.fail("submit", fault)
    assert attempt(fal, tmp_path).error is not None
    assert Journal(tmp_path).spent() == spent
    second = attempt(fal, tmp_path, small_request(seed=6), session_cap=1.5)
    assert second.error is None if spent == 0 else isinstance(second.error, InputError)


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (fal_faults.platform_error(503, "runner_disconnected"), 0.0),
        (fal_faults.model_error(422, "No luck", {"x-fal-billable-units": "1"}), 1.0),
        (fal_faults.content_policy(), 0.0),
        (fal_faults.flagged(), 1.0),
    ],
    ids=["broken", "refused after some work", "refused", "flagged"],
)
def test_only_a_job_that_was_billed_counts(
    fal: FalServer, tmp_path: Path, outcome: fal_faults.Outcome, spent: float
) -> None:
    fal.next_job(outcome)
    assert attempt(fal, tmp_path).error is not None
    assert Journal(tmp_path).spent() == spent


def test_a_lost_job_counts_although_the_404_itself_is_free(fal: FalServer, tmp_path: Path) -> None:
    gone = fal_faults.answer(404, {"detail": "Not found"}, {"x-fal-billable-units": "0"})
    fal.fail("result", gone)
    error = attempt(fal, tmp_path).error
    assert isinstance(error, RemoteError) and error.may_be_billed
    assert Journal(tmp_path).spent() == 1.0


def test_what_the_service_bills_replaces_the_estimate(tmp_path: Path, fal: FalServer) -> None:
    fal.unit = "megapixels"
    result = attempt(fal, tmp_path).result
    assert result is not None and result.billed_units == 48 * 32 / 1e6
    assert result.cost == result.session_cost == pytest.approx(48 * 32 / 1e6)


def test_an_unknown_price_is_refused_only_if_there_is_a_cap_to_keep(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.unit = "seconds"
    for caps in ((5.0, 0.0), (0.0, 20.0), (5.0, 20.0)):
        error = attempt(fal, tmp_path, run_cap=caps[0], session_cap=caps[1]).error
        assert isinstance(error, InputError) and "set run_cap and session_cap to 0" in str(error)
    assert fal.calls("submit") == []
    free = attempt(fal, tmp_path, run_cap=0.0, session_cap=0.0)
    assert free.painted and free.result is not None and free.result.cost is None
    assert attempt(fal, tmp_path).painted  # it is there, so there is nothing to pay
    assert len(fal.jobs) == 1


def test_a_server_that_sends_no_bills_needs_no_price(fal: FalServer, tmp_path: Path) -> None:
    fal.unit = "seconds"
    backend = FalBackend(FalSpec(), server_of(fal, priced=False), lambda: fal.key, tmp_path)
    backend.admit([small_request()], Watched())
    assert is_painted(backend.run(small_request(), Watched()))


def without_units(wire: fal_faults.Wire, reply: fal_faults.Reply) -> None:
    kept = {name: v for name, v in reply.headers.items() if name != "x-fal-billable-units"}
    wire.send(replace(reply, headers=kept))


def test_a_collected_job_still_counts_what_it_was_estimated_at(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.unit = "megapixels"
    fal.fail("submit", fal_faults.truncated())
    assert isinstance(attempt(fal, tmp_path).error, SubmissionUnknownError)
    estimate = Journal(tmp_path).spent()
    assert estimate == pytest.approx(48 * 32 / 1e6)
    fal.fail("result", fal_faults.Fault(without_units, carried_out=True))
    backend_of(fal, tmp_path).collect(next(iter(fal.jobs)), Watched())
    assert Journal(tmp_path).spent() == estimate
