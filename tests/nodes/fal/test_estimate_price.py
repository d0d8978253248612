"""What the fal backend says of money before a run, without a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import fal_faults
from fakes.fal_edits import backend_of, edit_pictures, hurry, server_of
from fakes.fal_server import FalServer
from onereward_pack.nodes.contracts import FalSpec
from onereward_pack.nodes.errors import CredentialsError
from onereward_pack.nodes.fal import backend
from onereward_pack.nodes.fal.backend import FalBackend


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch, 20)
    with FalServer(run_seconds=0.0, unit_price=0.5) as server:
        yield server


def test_new_jobs_cost_what_the_service_says_and_the_price_is_asked_once(
    fal: FalServer, tmp_path: Path
) -> None:
    for _ in range(3):
        assert backend_of(fal, tmp_path).estimate_price([1_000_000, 500_000]) == (0.75, "")
    assert len(fal.requests) == len(fal.calls("pricing")) == 1


def test_what_a_cap_would_refuse_is_said_with_the_price(fal: FalServer, tmp_path: Path) -> None:
    price, words = backend_of(fal, tmp_path, run_cap=0.6).estimate_price([1_000_000, 500_000])
    assert price == 0.75 and "run_cap of $0.6" in words


def test_what_was_spent_counts_for_the_session(fal: FalServer, tmp_path: Path) -> None:
    fal.unit, fal.unit_price = "images", 1.0
    edit_pictures(fal, tmp_path, 2)
    _, words = backend_of(fal, tmp_path, session_cap=2.5).estimate_price([100])
    assert "$2.000 of this session" in words
    assert backend_of(fal, tmp_path, session_cap=3.0).estimate_price([100]) == (1.0, "")


def test_a_service_that_does_not_answer_is_soon_given_up(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "PLAN_LIMIT", 0.2)
    fal.fail("pricing", fal_faults.silence(5), 3)
    price, words = backend_of(fal, tmp_path).estimate_price([100])
    assert price is None and "price could not be read" in words
    fal.fail("pricing", fal_faults.silence(5), 3)
    free = backend_of(fal, tmp_path, run_cap=0, session_cap=0)
    assert free.estimate_price([100]) == (None, "")


def test_a_key_that_is_refused_is_an_error(fal: FalServer, tmp_path: Path) -> None:
    stranger = FalBackend(FalSpec(), server_of(fal), lambda: "id:wrong", tmp_path)
    with pytest.raises(CredentialsError, match="answered 401"):
        stranger.estimate_price([100])
