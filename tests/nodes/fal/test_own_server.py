"""What a server of the studio's own brings: steps on the bar, an authority of its own, several
painters for one batch, and edits that cost nothing.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fakes import fal_faults
from fakes.backend import Interrupted
from fakes.fal_edits import (
    Cancelling,
    Watched,
    hurry,
    is_painted,
    pictures,
    run,
    small_request,
    wait_for,
)
from fakes.fal_jobs import QUEUED, RUNNING
from fakes.fal_server import FalServer
from onereward_pack.nodes.contracts import EditRecipe, EditTask, FalSpec, ProgressSink
from onereward_pack.nodes.edit.run import Edit, edit
from onereward_pack.nodes.errors import InputError, RemoteError
from onereward_pack.nodes.estimate.estimator import money
from onereward_pack.nodes.fal import transfers
from onereward_pack.nodes.fal.backend import FalBackend
from onereward_pack.nodes.fal.endpoints import QUEUE_URL_VARIABLE, find_server
from onereward_pack.nodes.fal.progress import NoProgress, StepProgress
from onereward_pack.nodes.fal.schemas import Status

AT_ONCE = 2.0  # seconds, on a busy machine
STEPS = [f"step {number} of 4" for number in range(1, 5)]


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0, unit_price=0.0, slots=3) as server:
        yield server
        assert server.leaks == []


def studio_of(server: FalServer, folder: Path, ca: str | None = None, **spec: object) -> FalBackend:
    """The server as servers.json names it."""
    entry = {"url": server.url} | ({} if ca is None else {"ca": ca})
    (folder / "servers.json").write_text(json.dumps({"studio": entry}))
    found = find_server("studio", folder)
    return FalBackend(FalSpec(server="studio", **spec), found, lambda: server.key, folder)


def variations(backend: FalBackend, count: int, progress: ProgressSink | None = None) -> Edit:
    """One picture, painted `count` times."""
    mask = pictures(1)[..., 0] * 0
    mask[:, 24:40, 24:40] = 1
    recipe = EditRecipe(task=EditTask.FILL, prompt="a dog", seed=5, num_images=count)
    return edit(pictures(1), mask, recipe, None, backend, progress or Watched())


# Steps


def test_a_jobs_steps_move_the_bar_and_its_other_lines_are_words(
    studio: FalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    studio.run_seconds = 0.5
    studio.next_job(fal_faults.logs(["gpu-1 paints.", *STEPS]))
    progress = Watched()
    with caplog.at_level(logging.INFO, "onereward"):
        run(studio_of(studio, tmp_path), small_request(), progress)
    assert progress.steps == [(number, 4) for number in range(1, 5)]
    assert "running, 0 s: gpu-1 paints." in progress.texts
    assert [text for text in [*progress.texts, *caplog.messages] if "step" in text] == []
    assert any("gpu-1 paints." in message for message in caplog.messages)


OTHER_FORMS = [
    "Step 1 of 4", "step 1/4", "step 1 of 4.", "at step 1 of 4", "step 1 of 4, 3 s", "step -1 of 4",
    "step 0 of 4", "step 5 of 4", "step 0 of 0", "step one of 4", "25%|## | 1/4", "step 1 of",
    "step 1 and 2 of 4", "step \u0661 of 4", "step 1 of 10000000",
]  # fmt: skip


@pytest.mark.parametrize("line", OTHER_FORMS)
def test_a_line_of_another_form_is_words_as_before(
    studio: FalServer, tmp_path: Path, line: str
) -> None:
    class UntilRunning(Watched):
        def status(self, text: str) -> None:
            super().status(text)
            if text.startswith("running"):
                studio.release()

    studio.hold("running")
    studio.next_job(fal_faults.logs([line]))
    progress = UntilRunning()
    run(studio_of(studio, tmp_path), small_request(), progress)
    assert progress.steps == [] and f"running, 0 s: {line}" in progress.texts


def told(*answers: tuple[str, list[str]]) -> list[tuple[int, int]]:
    """How the bar moves while the service answers with these states and lines."""
    progress = Watched()
    steps = StepProgress(progress)
    for state, lines in answers:
        steps.take(Status(state, None, tuple(lines), False))
    return progress.steps


def test_the_bar_never_goes_back_while_a_job_runs() -> None:
    assert told((RUNNING, STEPS[:3]), (RUNNING, [*STEPS[:3], STEPS[0]])) == [(3, 4)]
    assert told((RUNNING, [STEPS[2], STEPS[1]])) == [(3, 4)]
    assert told((RUNNING, STEPS[:2]), (RUNNING, [*STEPS[:2], "step 3 of 28"])) == [(2, 4)]
    assert told((RUNNING, STEPS[:2]), (RUNNING, []), (RUNNING, STEPS[:1])) == [(2, 4)]
    assert told((RUNNING, ["x"]), (QUEUED, ["x"]), (RUNNING, ["x"])) == []


def test_the_bar_starts_anew_with_a_job_that_went_back_to_the_queue() -> None:
    again = [*STEPS[:3], "The painter a stopped in the middle; the job runs again on another."]
    answers = [(RUNNING, STEPS[:3]), (QUEUED, again), (QUEUED, again), (RUNNING, [*again, *STEPS])]
    assert told(*answers) == [(3, 4), (0, 4), (4, 4)]
    # What it had done before the question is over, too.
    assert told((QUEUED, STEPS[:3]), (RUNNING, [*STEPS[:3], STEPS[0]])) == [(1, 4)]


def test_a_job_that_is_sent_back_to_the_queue_is_painted_and_its_bar_ends_full(
    studio: FalServer, tmp_path: Path
) -> None:
    studio.run_seconds = 0.4
    outcome = fal_faults.Outcome(requeued=True, logs=tuple(STEPS))
    studio.next_job(outcome)
    progress = Watched()
    assert is_painted(run(studio_of(studio, tmp_path), small_request(), progress))
    assert progress.steps[0] == (1, 4) and (0, 4) in progress.steps
    assert progress.steps[-1] == (4, 4)


def test_the_steps_of_several_jobs_share_one_bar_that_only_grows(
    studio: FalServer, tmp_path: Path
) -> None:
    studio.run_seconds = 0.4
    studio.next_job(fal_faults.logs(STEPS), 3)
    progress = Watched()
    variations(studio_of(studio, tmp_path), 3, progress)
    assert {total for _, total in progress.steps} == {12}
    values = [value for value, _ in progress.steps]
    assert values == sorted(values) and values[-1] == 12
    assert len(set(values)) > 8


# An authority of its own


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FalServer(run_seconds=0.0, tls=context) as server:
        yield server


def write(authority: trustme.CA, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(file))
    return file


@pytest.mark.parametrize("absolute", [False, True])
def test_all_of_a_job_is_checked_against_the_servers_authority(
    secure: FalServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    absolute: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 0)
    file = write(authority, tmp_path / "keys" / "studio.pem")
    # What the environment says is for servers without an authority of their own.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(write(trustme.CA(), tmp_path / "other.pem")))
    backend = studio_of(secure, tmp_path, str(file) if absolute else "keys/studio.pem")
    assert is_painted(run(backend, small_request()))
    assert all(secure.calls(phase) for phase in ("pricing", "initiate", "upload", "submit"))
    assert all(secure.calls(phase) for phase in ("status", "result", "download"))
    secure.hold()
    with Cancelling(lambda: len(secure.jobs) == 2) as progress, pytest.raises(Interrupted):
        run(backend, small_request(seed=6), progress)
    assert len(secure.calls("cancel")) == 1


def test_a_server_is_checked_against_its_own_authority_and_no_other(
    secure: FalServer, authority: trustme.CA, tmp_path: Path
) -> None:
    write(authority, tmp_path / "studio.pem")
    write(trustme.CA(), tmp_path / "other.pem")
    assert is_painted(run(studio_of(secure, tmp_path, "studio.pem"), small_request()))
    asked = len(secure.requests)
    for ca in ("other.pem", None):
        backend = studio_of(secure, tmp_path, ca)
        with pytest.raises(RemoteError, match="the certificate or TLS was refused"):
            backend.run(small_request(seed=6), NoProgress())
    assert len(secure.requests) == asked


def test_fal_has_no_authority_but_those_the_machine_knows(
    secure: FalServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(authority, tmp_path / "studio.pem")
    studio_of(secure, tmp_path, "studio.pem")
    monkeypatch.delenv(QUEUE_URL_VARIABLE, raising=False)
    assert find_server("fal", tmp_path).ca is None
    monkeypatch.setenv(QUEUE_URL_VARIABLE, secure.url)
    gateway = find_server("fal", tmp_path)
    backend = FalBackend(FalSpec(), gateway, lambda: secure.key, tmp_path)
    with pytest.raises(RemoteError, match="the certificate or TLS was refused"):
        backend.run(small_request(), NoProgress())
    assert secure.requests == []


@pytest.mark.parametrize("content", [None, b"", b"no certificate", "a folder"])
def test_an_authority_that_cannot_be_read_is_named_with_the_remedy(
    secure: FalServer, tmp_path: Path, content: bytes | str | None
) -> None:
    file = tmp_path / "studio.pem"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    with pytest.raises(InputError, match="Let ca name the PEM file") as failure:
        studio_of(secure, tmp_path, "studio.pem")
    assert str(failure.value).startswith(f'{file} (servers.json, "studio") holds no certificates')


@pytest.mark.parametrize("name", ["", "no\0file.pem"])
def test_an_authority_that_is_no_file_name_is_refused_in_words(tmp_path: Path, name: str) -> None:
    entry = {"url": "https://gpu.studio", "ca": name}
    (tmp_path / "servers.json").write_text(json.dumps({"studio": entry}))
    with pytest.raises(InputError, match="Let ca name the PEM file"):
        find_server("studio", tmp_path)


# Several painters


def test_the_variations_of_an_edit_are_under_way_together_and_cancel_reaches_each(
    studio: FalServer, tmp_path: Path
) -> None:
    studio.hold("running")
    studio.cancel_stops_running = True
    states = [RUNNING] * 3 + [QUEUED] * 5

    def all_there() -> bool:
        asked = {call.path for call in studio.calls("status")}
        return [job.state for job in list(studio.jobs.values())] == states and len(asked) == 8

    backend = studio_of(studio, tmp_path, parallel_jobs=8)
    with Cancelling(all_there) as progress, pytest.raises(Interrupted):
        variations(backend, 8, progress)
    assert progress.moment is not None
    cancels = studio.calls("cancel")
    assert len(cancels) == len({call.path for call in cancels}) == 8
    assert {call.method for call in cancels} == {"PUT"}
    assert [call for call in cancels if call.at - progress.moment > AT_ONCE] == []
    assert all(job.cancelled for job in studio.jobs.values()) and studio.paid == 0
    studio.release()
    assert len(variations(backend, 8).images) == 8 and studio.paid == 8


def test_parallel_jobs_is_the_most_that_is_under_way(studio: FalServer, tmp_path: Path) -> None:
    studio.hold("running")
    with Cancelling(lambda: len(studio.calls("status")) > 12) as progress:
        with pytest.raises(Interrupted):
            variations(studio_of(studio, tmp_path), 8, progress)
    assert len(studio.jobs) == FalSpec().parallel_jobs == 4


def test_a_variation_that_is_done_when_all_are_cancelled_is_kept(
    studio: FalServer, tmp_path: Path
) -> None:
    backend = studio_of(studio, tmp_path, parallel_jobs=2)
    with Cancelling(lambda: studio.calls("result")) as progress, pytest.raises(Interrupted):
        studio.fail("result", fal_faults.silence(5))
        variations(backend, 1, progress)
    [cancel] = studio.calls("cancel")
    [done] = studio.jobs.values()
    assert done.finished and not done.cancelled and cancel.path.endswith("/cancel")
    assert variations(backend, 2).seeds == (5, 6)
    assert len(studio.calls("submit")) == studio.paid == 2


# Nothing to pay


def test_an_edit_that_costs_nothing_is_free_in_all_that_is_said(
    studio: FalServer, tmp_path: Path
) -> None:
    backend = studio_of(studio, tmp_path, run_cap=0.01, session_cap=0.01)
    progress = Watched()
    assert backend.estimate_price([1 << 20] * 8) == (0.0, "")
    done = variations(backend, 2, progress)
    assert progress.texts[0].startswith("studio: 2 new jobs, ")
    assert progress.texts[0].endswith(" MP, free")
    assert "\ncost: free; $0 this session\n" in done.report
    assert done.badge == "studio: free" and done.costs == (0.0, 0.0)
    assert done.summary.endswith(" s, cost: free; $0 this session")
    again = variations(studio_of(studio, tmp_path), 2)
    assert again.badge == "studio: $0, from cache"


def test_a_price_in_words_tells_nothing_from_a_little_and_from_the_unknown() -> None:
    said = [money(price) for price in (0.0, 0.0004, 0.0187, None)]
    assert said == ["free", "under $0.001", "about $0.019", "price unknown"]


def test_a_job_goes_on_if_the_studio_tells_no_price(studio: FalServer, tmp_path: Path) -> None:
    studio.fail("pricing", fal_faults.not_found())
    progress = Watched()
    run(studio_of(studio, tmp_path), small_request(), progress)
    wait_for(lambda: studio.paid == 1)
    assert progress.texts[0].endswith("price unknown")
