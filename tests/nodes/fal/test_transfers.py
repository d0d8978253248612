"""Pictures on their way: within the request or uploaded, and fetched from known hosts only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from fakes import fal_faults
from fakes.backend import RecordingProgress
from fakes.fal_edits import hurry, server_of
from fakes.fal_faults import Fault
from fakes.fal_server import FalServer
from onereward_pack.nodes.errors import BalanceError, CredentialsError, RemoteError
from onereward_pack.nodes.fal import transfers
from onereward_pack.nodes.fal.cancellation import Cancellation
from onereward_pack.nodes.fal.client import FalClient
from onereward_pack.nodes.fal.schemas import File
from onereward_pack.nodes.fal.transfers import fetch, picture_url
from onereward_pack.nodes.fal.transport import ConnectionLost
from onereward_pack.nodes.image_io import data_uri, decode_image, encode_png, from_data_uri

PICTURE = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
MASK = (torch.arange(24 * 32).reshape(24, 32) % 2).float()
DATA = encode_png(PICTURE)
ID = "id-1"
PASSING = {
    "an ingress page": fal_faults.ingress(503),
    "too many": fal_faults.too_many(None),
    "a reset": fal_faults.reset_after_body(),
    "cut short": fal_faults.truncated(),
    "an error": fal_faults.server_error(),
}


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch, 20)
    with FalServer() as server:
        yield server


@pytest.fixture
def client(fal: FalServer) -> Iterator[FalClient]:
    with closing(FalClient(server_of(fal), fal.key)) as made:
        yield made


def sent(client: FalClient, picture: torch.Tensor, private: bool = False) -> str:
    return picture_url(client, picture, private, Cancellation(RecordingProgress(), 30))


def fetched(
    client: FalClient, url: str, size: tuple[int | None, int | None] = (32, 24), most: int = 10**6
) -> bytes:
    data, pixels = fetch(client, File(url, *size), ID, most, Cancellation(RecordingProgress(), 30))
    assert torch.equal(pixels, decode_image(data)[0, ..., :3])
    return data


def lie_on(fal: FalServer, data: bytes = DATA, kind: str = "image/png") -> str:
    return fal.files.put("result.png", data, kind)


def upload_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 10)
    monkeypatch.setattr(transfers, "LARGEST_URI_MASK", 10)


@pytest.mark.parametrize("picture", [PICTURE, MASK])
def test_a_small_picture_goes_within_the_request(
    fal: FalServer, client: FalClient, picture: torch.Tensor
) -> None:
    url = sent(client, picture)
    assert url.startswith("data:image/png;base64,") and fal.requests == []
    back = decode_image(from_data_uri(url))[0]
    assert torch.equal(back if picture.ndim == 3 else back[..., 0], picture)


@pytest.mark.parametrize("private", [False, True])
def test_a_large_picture_is_uploaded_without_the_key(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    upload_all(monkeypatch)
    url = sent(client, PICTURE, private)
    held = fal.files.get(url.rpartition("/")[2])
    assert held is not None and held[1] == "image/png"
    assert torch.equal(decode_image(held[0])[0], PICTURE)
    assert [r.phase for r in fal.requests] == ["initiate", "upload"] and fal.leaks == []
    lifecycle = fal.calls("initiate")[0].headers.get("x-fal-object-lifecycle")
    assert lifecycle == ('{"expiration_duration_seconds": 3600}' if private else None)


def test_picture_and_mask_each_have_their_limit(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "LARGEST_URI_MASK", 10)
    assert sent(client, PICTURE).startswith("data:") and sent(client, MASK).startswith("http")
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 10)
    monkeypatch.setattr(transfers, "LARGEST_URI_MASK", 10**6)
    assert sent(client, PICTURE).startswith("http") and sent(client, MASK).startswith("data:")


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
@pytest.mark.parametrize("phase", ["initiate", "upload"])
def test_an_upload_survives_two_passing_faults(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch, phase: str, fault: Fault
) -> None:
    upload_all(monkeypatch)
    fal.fail(phase, fault, 2)
    url = sent(client, PICTURE)
    assert fal.files.get(url.rpartition("/")[2]) and len(fal.calls(phase)) == 3


@pytest.mark.parametrize("phase", ["initiate", "upload"])
@pytest.mark.parametrize("fault", [PASSING["an ingress page"], PASSING["a reset"]])
def test_an_upload_is_given_up_after_three_tries_and_nothing_was_billed(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch, phase: str, fault: Fault
) -> None:
    upload_all(monkeypatch)
    fal.fail(phase, fault, 9)
    with pytest.raises(RemoteError) as failure:
        sent(client, PICTURE)
    assert len(fal.calls(phase)) == 3
    if not isinstance(failure.value, ConnectionLost):
        assert "Nothing was billed" in str(failure.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_a_storage_that_refuses_is_not_taken_for_the_api(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    upload_all(monkeypatch)
    fal.fail("upload", fal_faults.answer(status, "<Error>AccessDenied</Error>"))
    with pytest.raises(RemoteError, match=f"could not be uploaded.*answered {status}") as failure:
        sent(client, PICTURE)
    assert not isinstance(failure.value, BalanceError) and len(fal.calls("upload")) == 1
    assert "Nothing was billed" in str(failure.value)


def test_a_key_that_is_refused_before_the_upload_is_named(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_all(monkeypatch)
    fal.fail("initiate", fal_faults.unauthorized())
    with pytest.raises(CredentialsError, match="set another one"):
        sent(client, PICTURE)
    assert len(fal.requests) == 1


@pytest.mark.parametrize("which", ["upload_url", "file_url"])
@pytest.mark.parametrize("url", [
    "https://evil.com/x", "https://fal.media.evil.com/x", "http://v3.fal.media/x", "/x", None, 5,
    "https://evil.com\\@127.0.0.1/x", "https://[", "file:///tmp/x",
])  # fmt: skip
def test_a_picture_is_not_uploaded_elsewhere(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch, which: str, url: object
) -> None:
    upload_all(monkeypatch)
    place = {"upload_url": f"{fal.url}/upload/x", "file_url": f"{fal.url}/files/x", which: url}
    fal.fail("initiate", fal_faults.answer(200, place))
    with pytest.raises(RemoteError, match="not one of its own hosts. Nothing was sent there"):
        sent(client, PICTURE)
    assert fal.calls("upload") == []


@pytest.mark.parametrize("body", [[], {}, None, "text", {"upload_url": {}}])
def test_an_answer_that_names_no_place_to_upload_is_refused(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    upload_all(monkeypatch)
    fal.fail("initiate", fal_faults.answer(200, body))
    with pytest.raises(RemoteError, match="Nothing was billed"):
        sent(client, PICTURE)


@pytest.mark.parametrize("kind", ["image/png", "image/png; x=y", "application/octet-stream"])
def test_a_result_is_fetched_as_it_is_without_the_key(
    fal: FalServer, client: FalClient, kind: str
) -> None:
    assert fetched(client, lie_on(fal, kind=kind)) == DATA
    assert [r.phase for r in fal.requests] == ["download"] and fal.leaks == []


def test_a_result_within_the_answer_needs_no_fetching(fal: FalServer, client: FalClient) -> None:
    assert fetched(client, data_uri(DATA, "image/png")) == DATA and fal.requests == []


@pytest.mark.parametrize("size", [(None, None), (32, None), (None, 24), (32, 24)])
def test_a_size_that_is_not_told_is_not_missed(
    fal: FalServer, client: FalClient, size: tuple[int | None, int | None]
) -> None:
    assert fetched(client, lie_on(fal), size) == DATA


@pytest.mark.parametrize("fault", [
    *PASSING.values(), fal_faults.html_page(), fal_faults.not_found(), fal_faults.answer(200, {}),
])  # fmt: skip
def test_a_result_is_asked_for_three_times(fal: FalServer, client: FalClient, fault: Fault) -> None:
    fal.fail("download", fault, 2)
    assert fetched(client, lie_on(fal)) == DATA and len(fal.calls("download")) == 3


WRONG = {
    "a web page": (b"<html>sorry</html>", "text/html", (32, 24)),
    "a page that says it is a picture": (b"<html>sorry</html>", "image/png", (32, 24)),
    "nothing": (b"", "image/png", (32, 24)),
    "half a picture": (DATA[: len(DATA) // 2], "image/png", (32, 24)),
    "no type": (DATA, "", (32, 24)),
    "another width": (DATA, "image/png", (31, 24)),
    "another height": (DATA, "image/png", (None, 25)),
    "the sides changed": (DATA, "image/png", (24, 32)),
}


@pytest.mark.parametrize(("data", "kind", "size"), WRONG.values(), ids=WRONG.keys())
def test_what_is_not_the_picture_is_not_kept_but_said_to_be_paid_for(
    fal: FalServer, client: FalClient, data: bytes, kind: str, size: tuple[int | None, int | None]
) -> None:
    url = lie_on(fal, data, kind)
    with pytest.raises(RemoteError, match="could not be fetched.*It is paid for.*same") as failure:
        fetched(client, url, size)
    assert failure.value.request_id == ID and failure.value.may_be_billed
    assert len(fal.calls("download")) == 3


@pytest.mark.parametrize("text", ["data:", "data:image/png;base64,!!", "data:image/png,plain"])
def test_a_broken_picture_within_the_answer_is_said_to_be_paid_for(
    client: FalClient, text: str
) -> None:
    with pytest.raises(RemoteError, match="could not be fetched") as failure:
        fetched(client, text)
    assert failure.value.request_id == ID and failure.value.may_be_billed


def test_a_picture_of_more_pixels_than_allowed_is_not_opened(
    fal: FalServer, client: FalClient
) -> None:
    with pytest.raises(RemoteError, match="32x24 pixels"):
        fetched(client, lie_on(fal), most=32 * 24 - 1)
    assert fetched(client, lie_on(fal), most=32 * 24) == DATA


def test_a_download_without_end_is_cut(
    fal: FalServer, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "LARGEST_FILE", 2 << 20)
    fal.fail("download", fal_faults.huge_body(50), 3)
    with pytest.raises(RemoteError, match="more than 2 MB") as failure:
        fetched(client, lie_on(fal))
    assert failure.value.request_id == ID and failure.value.may_be_billed


ELSEWHERE = [
    "https://evil.com/x.png", "https://127.0.0.1/x.png", "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd", "https://evil.com\\@127.0.0.1/x", "https://[", "x.png", "",
]  # fmt: skip


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_result_elsewhere_is_not_fetched(fal: FalServer, client: FalClient, url: str) -> None:
    with pytest.raises(RemoteError, match="hosts, so it was not fetched") as failure:
        fetched(client, url)
    assert failure.value.request_id == ID and failure.value.may_be_billed and fal.requests == []


@pytest.mark.parametrize("url", [*ELSEWHERE[:-2], "//evil.com/x", "data:image/png;base64,AAAA"])
def test_a_redirect_leads_nowhere_else(fal: FalServer, client: FalClient, url: str) -> None:
    fal.fail("download", fal_faults.redirect(url, 302), 9)
    with pytest.raises(RemoteError, match="hosts, so it was not fetched"):
        fetched(client, lie_on(fal))
    assert len(fal.requests) == 1


def test_a_redirect_within_the_service_is_followed_a_few_times(
    fal: FalServer, client: FalClient
) -> None:
    url = lie_on(fal)
    fal.fail("download", fal_faults.redirect(url, 302), 3)
    assert fetched(client, f"{fal.url}/files/other") == DATA
    fal.fail("download", fal_faults.redirect("/files/other", 302), 99)
    with pytest.raises(RemoteError, match="answered 302"):
        fetched(client, url)
    assert len(fal.calls("download")) == 4 + 3 * 4 and fal.leaks == []
