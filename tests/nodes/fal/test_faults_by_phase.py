"""Every fault of a request at every point of a job's life: the error it becomes, what may have been
paid, and that the same edit, run again, pays for no second job while there is a first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import fal_faults
from fakes.backend import RecordingProgress
from fakes.fal_edits import Attempt, attempt, clear, hurry, small_request
from fakes.fal_ends import (
    FINE,
    Ends,
    check_first,
    check_twice,
    foreign_host,
    kept,
    over,
    refused,
    unknown,
)
from fakes.fal_faults import Fault
from fakes.fal_server import FalServer
from onereward_pack.nodes.errors import (
    BalanceError,
    CredentialsError,
    InputError,
    RateLimitError,
    RemoteError,
    RemoteValidationError,
)
from onereward_pack.nodes.fal import client, pricing, transfers

TIMEOUTS: dict[str, tuple[Any, str]] = {
    "pricing": (pricing, "TIMEOUT"),
    "initiate": (client, "SUBMIT_TIMEOUT"),
    "upload": (transfers, "UPLOAD_TIMEOUT"),
    "submit": (client, "SUBMIT_TIMEOUT"),
    "status": (client, "STATUS_TIMEOUT"),
    "result": (client, "RESULT_TIMEOUT"),
    "download": (transfers, "DOWNLOAD_TIMEOUT"),
}
FAULTS: dict[str, Callable[[str], Fault]] = {
    "401": lambda _: fal_faults.unauthorized(),
    "403": lambda _: fal_faults.locked(),
    "404": lambda _: fal_faults.not_found(),
    "422": lambda _: fal_faults.invalid(),
    "429": lambda _: fal_faults.too_many(None),
    "500": lambda _: fal_faults.server_error(),
    "ingress 502": lambda _: fal_faults.ingress(502),
    "ingress 503": lambda _: fal_faults.ingress(503),
    "page 400": lambda _: fal_faults.answer(400, "<html>Bad request</html>"),
    "page 404": lambda _: fal_faults.answer(404, "<html>Not found</html>"),
    "page 524": lambda _: fal_faults.answer(524, "<html>A timeout occurred</html>"),
    "html": lambda _: fal_faults.html_page(),
    "redirect": lambda foreign: fal_faults.redirect(foreign + "/x"),
    "reset before body": lambda _: fal_faults.reset_before_body(),
    "reset after body": lambda _: fal_faults.reset_after_body(),
    "silence": lambda _: fal_faults.silence(5),
    "truncated": lambda _: fal_faults.truncated(),
    "slow": lambda _: fal_faults.slow(0.01, 64),
    "huge": lambda _: fal_faults.huge_body(),
    "gzip bomb": lambda _: fal_faults.gzip_bomb(),
}


FIELD = "num_inference_steps|le 50|less_than_equal"
REFUSED = "127.0.0.1|nothing answers|network"
AGAIN, LATER, CUT = "kept failing|same again", "try again", "127.0.0.1|failed"
NO_PRICE = refused(InputError, "price|cap|nothing was sent|run_cap and session_cap to 0")
NOT_FETCHED = kept(RemoteError, "fetched|paid for|same again")
LOST = over(RemoteError, "no longer has|new job", billed=True)
BEFORE = {  # where nothing is accepted yet
    "401": refused(CredentialsError, "401|key"),
    "403": refused(BalanceError, "403|locked|credit"),
    "404": refused(RemoteError, "404"),
    "422": refused(RemoteValidationError, "422|" + FIELD),
    "429": refused(RateLimitError, "429|wait|parallel_jobs"),
    "500": refused(RemoteError, "500|" + LATER),
    "ingress 502": refused(RemoteError, "502|" + LATER),
    "ingress 503": refused(RemoteError, "503|" + LATER),
    "page 400": refused(RemoteError, "400"),
    "page 404": refused(RemoteError, "404"),
    "page 524": refused(RemoteError, "524|" + LATER),
    "html": refused(RemoteError, "hosts|nothing was sent there"),
    "redirect": refused(RemoteError, "307|redirects"),
    **dict.fromkeys(
        ("reset before body", "reset after body", "silence", "truncated"), refused(RemoteError, CUT)
    ),
    "slow": FINE,
    **dict.fromkeys(("huge", "gzip bomb"), refused(RemoteError, "more than")),
}
AFTER = {  # where a job is accepted
    **dict.fromkeys(FAULTS, kept(RemoteError, AGAIN)),
    "401": kept(CredentialsError, "401|key"),
    "403": kept(BalanceError, "403|credit"),
    "404": LOST,
    "slow": FINE,
    **dict.fromkeys(("huge", "gzip bomb"), kept(RemoteError, "more than 64 MB")),
}
TABLE: dict[str, dict[str, Ends]] = {
    "pricing": {**dict.fromkeys(FAULTS, NO_PRICE), "401": BEFORE["401"], "slow": FINE},
    "initiate": BEFORE,
    "upload": {
        **BEFORE,
        "401": refused(RemoteError, "401"),  # it carries no key, so the key is not at fault
        "403": refused(RemoteError, "403"),
        "422": refused(RemoteError, "422"),
        "429": refused(RemoteError, "429|" + LATER),
        "redirect": refused(RemoteError, "307"),
        # Nothing is stored, which only the model finds out.
        "html": over(RemoteValidationError, "image_url|file_download_error", billed=False),
    },
    "submit": {
        **BEFORE,
        **dict.fromkeys(
            ("500", "ingress 502", "page 524", "html", "huge", "gzip bomb"), unknown(0)
        ),
        "reset before body": unknown(0),  # so small a body has left before the reset is seen
        **dict.fromkeys(("reset after body", "silence", "truncated"), unknown(1)),
    },
    "status": {
        **AFTER,
        "422": kept(RemoteValidationError, "422"),  # about the question, not about the job
        "html": kept(RemoteError, "status|read"),
        "redirect": kept(RemoteError, "307|redirects"),
    },
    "result": {
        **AFTER,
        "422": over(RemoteValidationError, "422|" + FIELD, billed=False),
        "html": kept(RemoteError, "no images"),
    },
    "download": {
        **dict.fromkeys(FAULTS, NOT_FETCHED),
        "redirect": kept(RemoteError, "not one of|hosts"),
        "slow": FINE,
        **dict.fromkeys(("huge", "gzip bomb"), kept(RemoteError, "more than 64 MB")),
    },
}
ANSWERS = "429, 500, ingress 502, ingress 503, page 524, reset after body, truncated"
PASSING = {  # what one time of it does not matter at all
    **dict.fromkeys(("pricing", "initiate", "upload"), ANSWERS),
    "submit": "429, ingress 503",
    **dict.fromkeys(("status", "result"), ANSWERS + ", page 400, page 404, silence"),
    "download": ANSWERS + ", 404, html, silence",
}


@pytest.fixture
def fal(caplog: pytest.LogCaptureFixture) -> Iterator[FalServer]:
    with FalServer(run_seconds=0.0) as server:
        yield server
        assert server.leaks == [] and server.key not in caplog.text


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    hurry(monkeypatch)
    return monkeypatch


def force_uploads(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    if phase in ("initiate", "upload"):
        monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 0)


@pytest.mark.parametrize(("phase", "name"), [(p, name) for p in TABLE for name in TABLE[p]])
def test_a_lasting_fault_is_one_clear_error_and_the_next_run_pays_nothing_twice(
    fal: FalServer, tmp_path: Path, hurried: pytest.MonkeyPatch, phase: str, name: str
) -> None:
    def again() -> Attempt:
        clear(fal, phase)
        return attempt(fal, tmp_path)

    force_uploads(hurried, phase)
    with foreign_host() as foreign:
        fal.fail(phase, FAULTS[name](foreign.url), times=100)
        with hurried.context() as impatient:
            if name == "silence":
                impatient.setattr(*TIMEOUTS[phase], (5.0, 0.3))
            first = attempt(fal, tmp_path)
        check_twice(fal, again, first, TABLE[phase][name])


@pytest.mark.parametrize(
    ("phase", "name"), [(p, name) for p, names in PASSING.items() for name in names.split(", ")]
)
def test_a_passing_fault_is_survived(
    fal: FalServer, tmp_path: Path, hurried: pytest.MonkeyPatch, phase: str, name: str
) -> None:
    force_uploads(hurried, phase)
    if name == "silence":
        hurried.setattr(*TIMEOUTS[phase], (5.0, 0.3))
    fal.fail(phase, FAULTS[name](""))
    first = attempt(fal, tmp_path)
    assert first.painted, first.told
    assert len(fal.jobs) == 1 and fal.paid == 1 and len(fal.calls(phase)) > 1


class Unplugging(RecordingProgress):
    """The service goes down right before the job is sent."""

    def __init__(self, fal: FalServer) -> None:
        super().__init__()
        self._fal = fal

    def status(self, text: str) -> None:
        if text == "sending":
            self._fal.down()


@pytest.mark.parametrize("uploads", [False, True])
def test_a_refused_connection_sends_no_job(
    fal: FalServer, tmp_path: Path, hurried: pytest.MonkeyPatch, uploads: bool
) -> None:
    def again() -> Attempt:
        fal.up()
        return attempt(fal, tmp_path)

    force_uploads(hurried, "upload" if uploads else "")
    first = attempt(fal, tmp_path, progress=Unplugging(fal))
    assert fal.calls("submit") == fal.calls("initiate") == []
    check_twice(fal, again, first, refused(RemoteError, REFUSED))


@pytest.mark.parametrize("phase", ["status", "result", "download"])
def test_a_service_that_goes_down_keeps_its_job(
    fal: FalServer, tmp_path: Path, hurried: pytest.MonkeyPatch, phase: str
) -> None:
    def again() -> Attempt:
        fal.up()
        return attempt(fal, tmp_path)

    fal.fail(phase, Fault(lambda wire, reply: fal.down()))
    words = "127.0.0.1|nothing answers|same again"
    check_twice(fal, again, attempt(fal, tmp_path), kept(RemoteError, words))


def test_a_service_that_is_down_from_the_start_gets_nothing(
    fal: FalServer, tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    fal.down()
    check_first(fal, attempt(fal, tmp_path), NO_PRICE)
    without_caps = attempt(fal, tmp_path, run_cap=0.0, session_cap=0.0)
    check_first(fal, without_caps, refused(RemoteError, REFUSED))
    fal.up()
    assert attempt(fal, tmp_path).painted and len(fal.jobs) == 1


def test_a_reset_while_a_large_body_goes_out_is_survived(
    fal: FalServer, tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    fal.fail("submit", fal_faults.reset_before_body())
    assert attempt(fal, tmp_path, small_request(prompt="x" * 16_000_000)).painted
    assert len(fal.calls("submit")) == 2 and len(fal.jobs) == 1


def test_a_submit_waits_as_long_as_it_is_told(fal: FalServer, tmp_path: Path) -> None:
    fal.fail("submit", fal_faults.too_many(retry_after=1))
    assert attempt(fal, tmp_path).painted
    refusal, accepted = fal.calls("submit")
    assert 1.0 <= accepted.at - refusal.at < 5.0
