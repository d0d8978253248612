"""What a job may end with: errors of the model and of the platform, flags, odd sizes, files that
are no pictures or far too large.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fakes import fal_faults
from fakes.fal_edits import attempt, clear, edit_pictures, hurry, pictures, small_request
from fakes.fal_ends import FINE, Ends, check_twice, foreign_host, kept, over
from fakes.fal_faults import Outcome
from fakes.fal_painter import seed_colour
from fakes.fal_server import FalServer
from onereward_pack.nodes.errors import (
    ContentPolicyError,
    CredentialsError,
    RemoteError,
    RemoteValidationError,
)
from onereward_pack.nodes.fal import schemas
from PIL import Image

LATER = "try again"
MEMORY = Path("/proc/self/statm")


def other_png(width: int, height: int) -> Outcome:
    """A whole grey picture of that size, where the result claims the input's."""
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return Outcome(swap=lambda _: (buffer.getvalue(), "image/png"))


OUTCOMES: dict[str, tuple[Callable[[str], Outcome], Ends]] = {
    "content policy": (
        lambda _: fal_faults.content_policy(),
        over(ContentPolicyError, "422|content checker|change the prompt", billed=False),
    ),
    "image too large": (
        lambda _: fal_faults.image_too_large(),
        over(RemoteValidationError, "image_url|max_width 2048|image_too_large", billed=False),
    ),
    "422 after some work": (
        lambda _: fal_faults.model_error(422, "No luck", {"x-fal-billable-units": "1"}),
        over(RemoteValidationError, "422|No luck", billed=True),
    ),
    **{
        f"platform {status}": (
            lambda _, status=status, kind=kind: fal_faults.platform_error(status, kind),
            over(RemoteError, f"{status}|{words}", billed=False),
        )
        for status, kind, words in (
            (400, "bad_request", "bad request"),
            (500, "internal_error", LATER),
            (502, "runner_incomplete_response", LATER),
            (503, "runner_disconnected", "runner disconnected|" + LATER),
            (504, "startup_timeout", LATER),
        )
    },
    "cancelled elsewhere": (
        lambda _: fal_faults.platform_error(499, "client_cancelled"),
        over(RemoteError, "cancelled", billed=True),  # nothing says that it is free
    ),
    "flagged": (
        lambda _: fal_faults.flagged(),
        kept(ContentPolicyError, "flagged|prompt|seed|return input", painted=False),
    ),
    "another shape": (
        lambda _: fal_faults.wrong_size(64, 64),
        kept(RemoteError, "64x64|48x32|Collect", painted=False),
    ),
    "file on a foreign host": (
        lambda foreign: fal_faults.foreign_file_url(foreign + "/files/x?sig=abc"),
        kept(RemoteError, "not one of|hosts", painted=False),
    ),
    "file nowhere": (
        lambda _: fal_faults.foreign_file_url("http://[/x.png?sig=abc"),
        kept(RemoteError, "hosts", painted=False),
    ),
    "a picture of a size that is not the one told": (
        lambda _: other_png(24, 16),
        kept(RemoteError, "24x16|48x32|paid for", painted=False),
    ),
    "no images": (lambda _: fal_faults.no_images(), kept(RemoteError, "no images", painted=False)),
    **{
        name: (lambda _, make=make: make(), kept(RemoteError, "fetched|paid for", painted=False))
        for name, make in (
            ("html image", fal_faults.html_image),
            ("truncated image", fal_faults.truncated_image),
            ("bomb", fal_faults.bomb_png),
            ("small bomb", lambda: fal_faults.bomb_png(7900, 7900)),
        )
    },
    "data URI": (lambda _: fal_faults.as_data_uri(), FINE),
    "requeued": (lambda _: fal_faults.requeued(), FINE),
    "status on a foreign host": (fal_faults.foreign_status_url, FINE),
    "status nowhere": (lambda _: fal_faults.foreign_status_url("http://["), FINE),
    "status at no port": (lambda _: fal_faults.foreign_status_url("http://127.0.0.1:x"), FINE),
    "logs": (lambda _: fal_faults.logs(["loading", "painting"]), FINE),
}


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[FalServer]:
    hurry(monkeypatch)
    with FalServer(run_seconds=0.0) as server:
        yield server
        assert server.leaks == []
        assert server.key not in caplog.text and "sig=" not in caplog.text


@contextmanager
def memory_at_most(megabytes: int) -> Iterator[None]:
    """The memory of this program grows by no more than that inside, not even for a moment."""
    if not MEMORY.exists():
        pytest.skip("this system does not tell a program its memory")
    over, seen = threading.Event(), [_resident()]

    def watch() -> None:
        while not over.wait(0.002):
            seen.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert max(seen) - seen[0] < megabytes


def _resident() -> float:
    return int(MEMORY.read_text().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_a_job_ends_with_is_told_and_never_paid_twice(
    fal: FalServer, tmp_path: Path, name: str
) -> None:
    outcome, ends = OUTCOMES[name]
    with foreign_host() as foreign:
        fal.next_job(outcome(foreign.url))
        check_twice(fal, lambda: attempt(fal, tmp_path), attempt(fal, tmp_path), ends)


def test_a_result_of_another_size_is_resized_and_said(fal: FalServer, tmp_path: Path) -> None:
    fal.next_job(fal_faults.wrong_size(96, 64))
    for _ in range(2):
        result = attempt(fal, tmp_path).result
        assert result is not None and result.images.shape == (1, 32, 48, 3)
        [note] = [note for note in result.notes if "resized" in note]
        assert "96x64" in note and "48x32" in note
        inside = result.images[0, 12:20, 12:20] * 255
        assert (inside - torch.tensor(seed_colour(5))).abs().max() < 8
    assert len(fal.jobs) == 1


def test_a_flagged_picture_is_the_input_again_bit_for_bit(fal: FalServer, tmp_path: Path) -> None:
    fal.next_job(fal_faults.flagged(), times=2)
    for _ in range(2):
        done = edit_pictures(fal, tmp_path, 2, on_flagged="return input")
        assert done.flagged == (True, True) and "flagged" in done.report
        assert torch.equal(done.images, pictures(2))
        assert not done.mask.any()
    assert len(fal.jobs) == fal.paid == 2


def test_of_two_pictures_the_flagged_one_alone_is_the_input(fal: FalServer, tmp_path: Path) -> None:
    fal.next_job(fal_faults.flagged())
    done = edit_pictures(fal, tmp_path, 2, on_flagged="return input", parallel_jobs=1)
    assert done.flagged == (True, False)
    assert torch.equal(done.images[0], pictures(2)[0]) and not done.mask[0].any()
    assert done.mask[1].any()
    changed = (done.images[1] != pictures(2)[1]).any(dim=-1)
    assert changed.any() and not changed[done.mask[1] == 0].any()


def test_a_black_picture_is_kept_if_the_checker_is_off(fal: FalServer, tmp_path: Path) -> None:
    fal.next_job(fal_faults.flagged())
    assert attempt(fal, tmp_path, enable_safety_checker=False).painted


@pytest.mark.parametrize("phase", ["pricing", "submit", "status", "result", "download"])
@pytest.mark.parametrize("make", [fal_faults.huge_body, fal_faults.gzip_bomb])
def test_an_endless_answer_costs_little_time_and_memory(
    fal: FalServer, tmp_path: Path, phase: str, make: Callable[[], fal_faults.Fault]
) -> None:
    fal.fail(phase, make())
    with memory_at_most(300):
        first = attempt(fal, tmp_path)
    assert first.error is not None and first.seconds < 10


@pytest.mark.parametrize(
    ("make", "size"),
    [(fal_faults.bomb_png, 30000), (fal_faults.bomb_png, 7900), (other_png, 7900)],
)
def test_a_picture_far_too_large_costs_little_time_and_memory(
    fal: FalServer, tmp_path: Path, make: Callable[[int, int], Outcome], size: int
) -> None:
    fal.next_job(make(size, size))
    with memory_at_most(500):
        first = attempt(fal, tmp_path)
    assert isinstance(first.error, RemoteError) and first.error.may_be_billed
    assert first.seconds < 10 and len(fal.jobs) == 1


def test_a_file_that_has_moved_is_followed_but_not_in_circles(
    fal: FalServer, tmp_path: Path
) -> None:
    fal.fail("download", fal_faults.redirect("?moved=1", 302))
    assert attempt(fal, tmp_path).painted
    assert fal.calls("download")[-1].query == {"moved": "1"}
    fal.fail("download", fal_faults.redirect("?moved=1", 302), times=100)
    circling = attempt(fal, tmp_path, small_request(seed=6))
    assert isinstance(circling.error, RemoteError) and circling.error.may_be_billed
    assert len(fal.calls("download")) < 20


def test_an_expired_result_is_told_once_and_then_made_again(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("download", fal_faults.answer(403, {"detail": "Request has expired"}), times=100)
    first = attempt(fal, tmp_path)
    assert isinstance(first.error, RemoteError) and first.error.may_be_billed
    clear(fal, "download")
    [request_id] = fal.jobs
    fal.forget(request_id)
    second = attempt(fal, tmp_path)
    assert isinstance(second.error, RemoteError) and second.error.request_id == request_id
    assert second.error.may_be_billed and "new job" in str(second.error) and len(fal.jobs) == 1
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 2


def test_a_service_that_repeats_the_key_is_not_quoted(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("submit", fal_faults.answer(401, {"detail": f"Unknown: Key {fal.key}"}))
    first = attempt(fal, tmp_path)
    assert isinstance(first.error, CredentialsError) and fal.key not in first.told


def test_another_seed_or_prompt_than_was_asked_for_is_said(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = schemas.payload
    changed = {"seed": 1234, "prompt": "a tamer cat"}
    monkeypatch.setattr(schemas, "payload", lambda *given: {**sent(*given), **changed})
    result = attempt(fal, tmp_path).result
    assert result is not None and result.seeds == (1234,)
    assert set(result.notes) == {
        "the service used seed 1234",
        'the service used the prompt "a tamer cat"',
    }
