"""One exchange: what was sent when it fails, and what it never keeps, follows or shows."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from fakes import fal_faults
from fakes.fal_edits import attempt
from fakes.fal_faults import Fault
from fakes.fal_server import FalServer
from onereward_pack.nodes.config.credentials import ApiKey
from onereward_pack.nodes.fal.client import FalClient
from onereward_pack.nodes.fal.endpoints import Server
from onereward_pack.nodes.fal.transport import (
    ConnectionLost,
    KeyAuth,
    NoAuth,
    Oversized,
    Reply,
    Upload,
    exchange,
    new_session,
)
from requests.structures import CaseInsensitiveDict

KEY = "top:secret"
SIGNATURE = "X-Goog-Signature=abcdef0123456789"
BODY = b"x" * 300_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def fal() -> Iterator[FalServer]:
    with FalServer(key=KEY) as server:
        yield server


def call(url: str, method: str = "GET", read: float = 10, **more: Any) -> Reply:
    with new_session() as session:
        return exchange(session, method, url, auth=KeyAuth(KEY), timeout=(10, read), **more)


def lost(url: str, **more: Any) -> ConnectionLost:
    with pytest.raises(ConnectionLost) as failure:
        call(url, **more)
    return failure.value


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """One connection on 127.0.0.1 that `serve` handles; its port."""

    def work() -> None:
        connection, _ = listener.accept()
        with connection:
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=work)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def read_request(connection: socket.socket, length: int = 0) -> bytes:
    data = b""
    while len(data.partition(b"\r\n\r\n")[2]) < length or b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    return data


def test_an_upload_gives_its_bytes_once_and_knows_when_all_are_out() -> None:
    upload = Upload(BODY)
    assert len(upload) == len(BODY) and not upload.handed_over
    assert upload.read(10) == BODY[:10] and not upload.handed_over
    rest = b"".join(upload)
    assert rest == BODY[10:] and upload.handed_over
    assert upload.read() == b"" and not upload.abort()


def test_an_aborted_upload_gives_no_more() -> None:
    upload = Upload(BODY)
    upload.read(len(BODY) - 1)
    assert upload.abort() and not upload.handed_over
    for read in (lambda: upload.read(1), lambda: upload.read(), lambda: next(iter(upload))):
        with pytest.raises(ConnectionLost, match="given up. Nothing was billed") as failure:
            read()
        assert not failure.value.sent


def test_an_upload_goes_out_whole_with_its_length(fal: FalServer) -> None:
    reply = call(f"{fal.url}/upload/x", "PUT", data=Upload(BODY))
    sent = fal.calls("upload")[0]
    assert reply.status == 200 and sent.body == BODY
    assert sent.headers["content-length"] == str(len(BODY))


def test_an_abort_on_the_way_keeps_the_service_from_the_whole_body(fal: FalServer) -> None:
    class Aborting(Upload):
        def read(self, size: int = -1) -> bytes:
            block = super().read(size)
            if not self.handed_over:
                assert self.abort()
            return block

    failure = lost(f"{fal.url}/upload/x", method="PUT", data=Aborting(BODY))
    assert not failure.sent and not failure.may_be_billed
    assert fal.calls("upload") == []


def test_a_port_that_nobody_listens_on_got_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failure = lost(f"http://127.0.0.1:{port}/x", method="POST", data=Upload(BODY))
    assert not failure.sent and "nothing answers there" in str(failure)


def test_a_name_that_nobody_knows_got_nothing() -> None:
    failure = lost("http://no-such-host.invalid/x", method="POST", data=Upload(BODY))
    assert not failure.sent and "no-such-host.invalid" in str(failure)


def test_a_plain_port_asked_over_tls_got_nothing(fal: FalServer) -> None:
    url = fal.url.replace("http:", "https:")
    failure = lost(f"{url}/x", method="POST", data=Upload(BODY))
    assert not failure.sent and "TLS was refused" in str(failure)
    assert fal.requests == []


def test_a_certificate_of_somebody_else_gets_nothing() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with FalServer(tls=context) as fal:
        failure = lost(f"{fal.url}/x", method="POST", data=Upload(BODY))
        assert not failure.sent and fal.requests == []


def test_a_service_whose_tls_breaks_after_the_request_may_have_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        # A handle of its own: past the TLS layer, as a proxy that breaks would write.
        with socket.socket(fileno=os.dup(connection.fileno())) as plain:
            with context.wrap_socket(connection, server_side=True) as secure:
                got.append(read_request(secure, len(BODY)))  # type: ignore[arg-type]
                plain.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    with peer(serve) as port:
        failure = lost(f"https://127.0.0.1:{port}/x", method="POST", data=Upload(BODY))
    assert got[0].endswith(BODY) and failure.sent and failure.may_be_billed


AFTER = {
    "reset after": (fal_faults.reset_after_body(), "was closed"),
    "cut short": (fal_faults.truncated(), "cut short"),
    "silent": (fal_faults.silence(5), "no answer in time"),
}


@pytest.mark.parametrize(("fault", "reason"), AFTER.values(), ids=AFTER.keys())
@pytest.mark.parametrize("data", [BODY, Upload])
def test_what_fails_after_the_request_may_have_been_carried_out(
    fal: FalServer, fault: Fault, reason: str, data: Any
) -> None:
    fal.fail("submit", fault)
    body = BODY if isinstance(data, bytes) else data(BODY)
    url = f"{fal.url}/fal-ai/onereward"
    failure = lost(url, method="POST", data=body, read=1)
    assert failure.sent and failure.may_be_billed and reason in str(failure)
    assert "may have been billed" in str(failure)


def test_a_reset_before_the_body_is_out_got_nothing() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with peer(serve) as port:
        large = Upload(bytes(64 << 20))  # more than all buffers on the way hold
        failure = lost(f"http://127.0.0.1:{port}/x", method="POST", data=large)
    assert not failure.sent and not failure.may_be_billed


def test_an_answer_cut_short_keeps_its_request_id(fal: FalServer) -> None:
    fal.fail("pricing", fal_faults.truncated())
    assert lost(f"{fal.url}/v1/models/pricing").request_id


@pytest.mark.parametrize("answer", [
    b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
])  # fmt: skip
def test_an_answer_that_is_no_http_is_a_lost_connection(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    with peer(serve) as port:
        assert lost(f"http://127.0.0.1:{port}/x").sent


def test_no_cookie_is_kept_and_none_is_sent() -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        for _ in range(2):
            asked.append(read_request(connection))
            connection.sendall(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=1; Path=/\r\n\r\n"))

    with peer(serve) as port, new_session() as session:
        for _ in range(2):
            url = f"http://127.0.0.1:{port}/x"
            exchange(session, "GET", url, auth=NoAuth(), timeout=(2, 2))
        assert len(session.cookies) == 0
    assert len(asked) == 2 and b"ookie" not in b"".join(asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["", "https://[", "file:///etc/passwd", "\\", "/x"])
def test_no_redirect_is_followed(fal: FalServer, status: int, place: str) -> None:
    with FalServer() as elsewhere:
        fal.fail("submit", fal_faults.redirect(place or elsewhere.url, status))
        reply = call(f"{fal.url}/fal-ai/onereward", "POST", data=Upload(BODY))
        assert reply.status == status and not reply.ok
        assert elsewhere.requests == [] and len(fal.requests) == 1


def test_a_redirect_with_a_body_without_end_is_cut() -> None:
    written: list[int] = []

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nConnection: close\r\n\r\n")
        try:
            for _ in range(64):
                connection.sendall(bytes(1 << 20))
                written.append(1)
        except OSError:  # the client hung up, as it should
            return

    with peer(serve) as port, pytest.raises(Oversized):
        call(f"http://127.0.0.1:{port}/x", max_bytes=1 << 20)
    assert len(written) < 32


@pytest.mark.parametrize("fault", [fal_faults.huge_body(40), fal_faults.gzip_bomb(40)])
def test_an_answer_without_end_is_cut(fal: FalServer, fault: Fault) -> None:
    fal.fail("pricing", fault)
    with pytest.raises(Oversized, match="127.0.0.1 sent more than 2 MB"):
        call(f"{fal.url}/v1/models/pricing", max_bytes=2 << 20)


def test_an_answer_of_exactly_the_limit_is_read(fal: FalServer) -> None:
    fal.fail("pricing", fal_faults.huge_body(2))
    assert len(call(f"{fal.url}/v1/models/pricing", max_bytes=2 << 20).body) == 2 << 20


def test_netrc_does_not_replace_the_key_or_add_one(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    call(f"{fal.url}/v1/models/pricing")
    assert fal.requests[0].headers["authorization"] == f"Key {KEY}"
    with new_session() as session:
        exchange(session, "GET", f"{fal.url}/files/x", auth=NoAuth(), timeout=(2, 2))
    assert "authorization" not in fal.requests[1].headers


def test_nothing_that_holds_the_key_shows_it() -> None:
    server = Server("studio", "https://gpu", "https://gpu", "https://gpu/v1")
    client = FalClient(server, KEY)
    for thing in (KeyAuth(KEY), ApiKey(KEY, "FAL_KEY"), client, client._session, vars(client)):
        assert "secret" not in repr(thing) + str(thing)
    client.close()


def test_a_failure_shows_neither_key_nor_signature(fal: FalServer) -> None:
    fal.down()  # what the HTTP library says then holds the address
    failure = lost(f"{fal.url}/files/x.png?{SIGNATURE}")
    shown = str(failure) + repr(failure) + "".join(traceback.format_exception(failure))
    assert "127.0.0.1" in shown and SIGNATURE not in shown and KEY not in shown


@pytest.mark.parametrize("phase", ["submit", "status", "pricing"])
def test_a_service_that_repeats_the_key_does_not_bring_it_into_a_message(
    fal: FalServer, tmp_path: Path, phase: str
) -> None:
    said = {"detail": f"Not with {KEY}", "error_type": f"bad {KEY}"}
    fal.fail(phase, fal_faults.answer(403, said, {"X-Fal-Error-Type": KEY}), 9)
    tried = attempt(fal, tmp_path, run_cap=0.0, session_cap=0.0)
    assert KEY not in tried.told and (tried.error is None) == (phase == "pricing")


# Servers of one's own are often given a key for form's sake.
@pytest.mark.parametrize("key", ["fal", "a", "1", "test", "images"])
def test_a_key_that_is_a_common_word_spoils_no_answer(tmp_path: Path, key: str) -> None:
    with FalServer(key=key) as fal:
        fal.next_job(fal_faults.as_data_uri())
        assert attempt(fal, tmp_path).painted


def test_a_proxy_of_the_environment_is_used(
    fal: FalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", fal.url)
    assert call("http://no-such-host.invalid/v1/models/pricing").status == 200
    fal.down()
    failure = lost("http://no-such-host.invalid/x", method="POST", data=Upload(BODY))
    assert not failure.sent and "the proxy refused" in str(failure)


def test_json_of_an_answer_is_none_if_it_is_none() -> None:
    for body in (b"", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000):
        assert Reply(200, CaseInsensitiveDict(), body).json() is None
    page = Reply(200, CaseInsensitiveDict(), b"<html>")
    assert not page.from_app
    assert Reply(503, CaseInsensitiveDict(), b'{"detail": 1}').from_app
    assert Reply(503, CaseInsensitiveDict({"X-Fal-Request-Id": "a"}), b"<html>").from_app
    assert [Reply(s, {}, b"").ok for s in (199, 200, 204, 299, 300, 404)] == [0, 1, 1, 1, 0, 0]
