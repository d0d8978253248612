"""The limit on bodies: told beforehand or found out, and heard by a real client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from onereward_pack.local_backend.server.http import body_limit
from onereward_pack.local_backend.server.http.body_limit import BodyLimit
from onereward_pack.local_backend.server.settings import Settings
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

MB = 1 << 20


async def count(request: Request) -> PlainTextResponse:
    """How many bytes came."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size))


async def swallow(request: Request) -> PlainTextResponse:
    """An app that answers all the same when its body breaks off."""
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        return PlainTextResponse("broke off", 400)


@pytest.fixture
def app(tmp_path: Path) -> BodyLimit:
    routes = [Route("/swallow", swallow, methods=["POST"]),
              Route("/{path:path}", count, methods=["GET", "POST", "PUT"])]  # fmt: skip
    settings = Settings(data=tmp_path, max_body_mb=1, max_upload_mb=4)
    return BodyLimit(Starlette(routes=routes), settings)


def send(app: Any, path: str, *sizes: int, told: int | None = None) -> tuple[int, bytes, int]:
    """Status, body, and how many messages of the body were asked for."""
    asked = 0
    sent: list[Any] = []

    async def receive() -> Any:
        nonlocal asked
        if asked == len(sizes):
            await asyncio.sleep(60)
        asked += 1
        return {"type": "http.request", "body": b"x" * sizes[asked - 1],
                "more_body": asked < len(sizes)}  # fmt: skip

    async def collect(message: Any) -> None:
        sent.append(message)

    headers = [] if told is None else [(b"content-length", str(told).encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers,
             "query_string": b"", "http_version": "1.1", "root_path": ""}  # fmt: skip
    asyncio.run(app(scope, receive, collect))
    starts = [message["status"] for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1 and not sent[-1].get("more_body")
    return starts[0], b"".join(message.get("body", b"") for message in sent), asked


def test_a_body_up_to_the_limit_passes_untouched(app: BodyLimit) -> None:
    assert send(app, "/x", MB)[:2] == (200, str(MB).encode())
    assert send(app, "/x", MB // 2, MB // 2, told=MB)[:2] == (200, str(MB).encode())
    assert send(app, "/x", 0)[:2] == (200, b"0")


def test_a_body_that_is_told_to_be_too_long_never_reaches_the_app(app: BodyLimit) -> None:
    for told in (MB + 1, 10**30):
        status, body, _ = send(app, "/swallow", 10, told=told)
        assert status == 413 and body == b'{"detail": "The body is too large: 1 MB are allowed."}'


@pytest.mark.parametrize("path", ["/x", "/swallow"])
@pytest.mark.parametrize("told", [None, 10])
def test_a_body_that_turns_out_too_long_is_cut_off(
    app: BodyLimit, path: str, told: int | None
) -> None:
    status, body, _ = send(app, path, MB, 1, 5, told=told)
    assert status == 413 and b"1 MB" in body and b"broke" not in body


def test_a_client_that_goes_on_for_ever_is_left_after_a_while(
    app: BodyLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limit, "LINGER", 0.1)
    start = time.monotonic()
    status, _, asked = send(app, "/x", *[MB] * 3, 1, told=None)
    assert (status, asked) == (413, 4)
    send(app, "/x", told=9 * MB)  # and one that sends nothing
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(("path", "most"), [
    ("/files/upload", 4), ("/upload/in-x.png", 4), ("/upload/in-x.png/multipart/1", 4),
    ("/files/in-x.png/multipart/id/1", 4), ("/fal-ai/onereward", 1), ("/", 1),
    ("/storage/upload/initiate", 1), ("/files/in-x.png/multipart/id/complete", 1),
    ("/upload/in-x.png/multipart/complete", 1), ("/files/upload/multipart", 1),
    ("/files/uploads", 1), ("/uploads/x", 1), ("/fal-ai/onereward/upload/x", 1),
])  # fmt: skip
def test_uploads_have_a_limit_of_their_own(app: BodyLimit, path: str, most: int) -> None:
    assert send(app, path, most * MB)[0] == 200
    assert send(app, path, most * MB, 1)[0] == 413


def test_the_words_about_uploads_are_small_whatever_jobs_may_be(tmp_path: Path) -> None:
    async def hear(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        await PlainTextResponse(str(len((await receive()).get("body", b""))))(scope, receive, send)

    app = BodyLimit(hear, Settings(data=tmp_path, max_body_mb=64, max_upload_mb=256))
    for path in ("/storage/auth/token", "/upload/x/multipart/complete"):
        assert send(app, path, 2 * MB)[0] == 200 and send(app, path, 2 * MB + 1)[0] == 413
    assert send(app, "/fal-ai/onereward", 3 * MB)[0] == 200


def test_other_protocols_pass(tmp_path: Path) -> None:
    seen: list[str] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app = BodyLimit(note, Settings(data=tmp_path))
    for kind in ("lifespan", "websocket"):
        asyncio.run(app({"type": kind}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


@pytest.fixture
def url(app: BodyLimit) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_a_real_client_hears_why_even_while_it_sends(url: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (MB // 8)

    for body in (b"x" * 12 * MB, pieces()):
        answer = httpx.post(f"{url}/x", content=body, timeout=20)
        assert answer.status_code == 413 and "1 MB" in answer.json()["detail"]
        assert answer.headers["connection"] == "close"
    assert httpx.post(f"{url}/x", content=b"x" * MB).text == str(MB)
