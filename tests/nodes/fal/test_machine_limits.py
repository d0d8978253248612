"""The spend limits of a machine: no cap of a node gets above them, and an error names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.fal_edits import Watched, hurry, is_painted, small_request
from fakes.fal_server import FalServer
from onereward_pack.nodes.backends import resolve_backend
from onereward_pack.nodes.config.preferences import change
from onereward_pack.nodes.contracts import Backend, FalSpec
from onereward_pack.nodes.errors import InputError
from onereward_pack.nodes.fal.endpoints import QUEUE_URL_VARIABLE
from onereward_pack.nodes.fal.spend_limits import MachineLimit, check_limit, limited


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    """Every picture costs one dollar, and this machine's key is known."""
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0, unit="images", unit_price=1.0) as server:
        monkeypatch.setenv(QUEUE_URL_VARIABLE, server.url)
        monkeypatch.setenv("FAL_KEY", server.key)
        yield server


def backend(folder: Path, **spec: float) -> Backend:
    return resolve_backend(FalSpec(**spec), folder)  # type: ignore[arg-type]


NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(("cap", "ceiling", "lower", "is_machines"), [
    (5.0, 0.0, 5.0, False), (0.0, 0.0, 0.0, False), (5.0, 9.0, 5.0, False),
    (5.0, 2.0, 2.0, True), (0.0, 2.0, 2.0, True), (2.0, 2.0, 2.0, True),
    (-1.0, 2.0, 2.0, True), (NOT_A_NUMBER, 2.0, 2.0, True),
])  # fmt: skip
@pytest.mark.parametrize("which", ["run", "session"])
def test_the_smaller_one_counts_and_0_is_none(
    which: str, cap: float, ceiling: float, lower: float, is_machines: bool
) -> None:
    limits = {"run_limit": 0.0, "session_limit": 0.0, f"{which}_limit": ceiling}
    spec = limited(FalSpec(**{f"{which}_cap": cap}), **limits)  # type: ignore[arg-type]
    found = getattr(spec, f"{which}_cap")
    assert found == lower and isinstance(found, MachineLimit) == is_machines
    other = {"run": "session", "session": "run"}[which]
    assert getattr(spec, f"{other}_cap") == getattr(FalSpec(), f"{other}_cap")


@pytest.mark.parametrize(("which", "label"), [
    ("run", "Ceiling for one run"), ("session", "Ceiling for a session"),
])  # fmt: skip
def test_the_error_names_the_ceiling_and_not_the_widget(which: str, label: str) -> None:
    check_limit(which, 1.0, 1.0, MachineLimit(2.0))
    with pytest.raises(InputError) as failure:
        check_limit(which, 1.0, 1.5, MachineLimit(2.0))
    said = str(failure.value)
    assert f'the ceiling of $2 that was set for this machine. Raise "{label}" in Settings' in said
    assert "_cap" not in said and "OneReward Fal Backend" not in said and "not sent" in said
    with pytest.raises(InputError, match=f"{which}_cap of .2. Raise it on OneReward Fal Backend"):
        check_limit(which, 1.0, 1.5, 2.0)


@pytest.mark.parametrize("cap", [0.0, 100.0])
def test_no_workflow_spends_more_in_a_run_than_the_machine_allows(
    fal: FalServer, tmp_path: Path, cap: float
) -> None:
    change(tmp_path, {"run_ceiling": 1.5})
    requests = [small_request(seed) for seed in (5, 6)]
    with pytest.raises(InputError, match=r"\$2\.000.*ceiling of \$1\.5.*Settings > OneReward"):
        backend(tmp_path, run_cap=cap).admit(requests, Watched())
    assert fal.calls("submit") == []
    admitted = backend(tmp_path, run_cap=cap)
    admitted.admit(requests[:1], Watched())
    assert is_painted(admitted.run(requests[0], Watched()))
    with pytest.raises(InputError, match="one run"):  # not admitted, and held at the last gate
        admitted.run(requests[1], Watched())
    assert fal.paid == 1


def test_no_workflow_spends_more_in_a_session_than_the_machine_allows(
    fal: FalServer, tmp_path: Path
) -> None:
    change(tmp_path, {"session_ceiling": 1.0})
    for seed in (5, 6):
        request, one = small_request(seed), backend(tmp_path, run_cap=0, session_cap=0)
        if fal.paid:
            with pytest.raises(InputError, match="Ceiling for a session"):
                one.admit([request], Watched())
            continue
        one.admit([request], Watched())
        one.run(request, Watched())
    assert fal.paid == 1
    change(tmp_path, {"session_ceiling": 0})
    backend(tmp_path, session_cap=0).admit([small_request(6)], Watched())


def test_a_lower_cap_of_the_node_is_still_named_as_the_nodes(
    fal: FalServer, tmp_path: Path
) -> None:
    change(tmp_path, {"run_ceiling": 1.5})
    with pytest.raises(InputError, match=r"run_cap of \$0\.5.*OneReward Fal Backend"):
        backend(tmp_path, run_cap=0.5).admit([small_request()], Watched())


def test_an_unknown_price_is_refused_for_a_ceiling_too_with_where_to_lift_it(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.unit = "seconds"
    change(tmp_path, {"run_ceiling": 1.5})
    words = '"Ceiling for one run" to 0 in Settings > OneReward to run at an unknown price'
    with pytest.raises(InputError, match=words):
        backend(tmp_path, run_cap=0, session_cap=0).admit([small_request()], Watched())
    change(tmp_path, {"run_ceiling": 0})
    backend(tmp_path, run_cap=0, session_cap=0).admit([small_request()], Watched())
