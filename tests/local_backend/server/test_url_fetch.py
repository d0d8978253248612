"""What an image URL may lead to: no other machine of this network, no endless body, no trick."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from onereward_pack.local_backend.server.database import open_database
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.local_backend.server.storage import ssrf
from onereward_pack.local_backend.server.storage import url_fetch as fetch_module
from onereward_pack.local_backend.server.storage.files import Files
from onereward_pack.local_backend.server.storage.ssrf import is_public, look_up
from onereward_pack.local_backend.server.storage.url_fetch import FetchError, fetch

MB = 1 << 20
PUBLIC = "93.184.215.14"
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", public_url="http://127.0.0.1:8000", max_body_mb=1)


@pytest.fixture
def own(settings: Settings) -> Iterator[Files]:
    engine = open_database(settings)
    yield Files(engine, settings)
    engine.dispose()


class Site:
    """A web server on this machine. Paths lead to answers; what was asked is kept."""

    def __init__(self, pages: dict[str, Answer], tls: ssl.SSLContext | None = None) -> None:
        asked: list[tuple[str, dict[str, str]]] = []
        self.asked, self.pages = asked, pages
        self.connections = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                site.connections += 1
                super().setup()

            def do_GET(self) -> None:
                asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                try:
                    pages[self.path.partition("?")[0]](self)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has heard enough

            def log_message(self, *words: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *request: object) -> None:
                pass  # clients that do not trust the certificate

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def says(body: bytes = b"picture", status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def leads_to(location: str, status: int = 302) -> Answer:
    return says(b"", status, Location=location)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site({"/a.png": says()})
    yield site
    site.close()


def resolver(*answers: Sequence[str]) -> Any:
    """Answers the first time the first, and so on; the last one for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def get(url: str, settings: Settings, own: Files, resolve: Any = look_up) -> bytes:
    return asyncio.run(fetch(url, settings, own, resolve))


def refusal(url: str, settings: Settings, own: Files, resolve: Any = look_up) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, settings, own, resolve)
    return caught.value


def allowing(settings: Settings, *hosts: str) -> Settings:
    return settings.model_copy(update={"allow_hosts": hosts})


# Addresses


PRIVATE = (
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1",
    "172.31.255.255", "192.168.1.1", "169.254.169.254", "169.254.0.1", "100.64.0.1",
    "100.127.255.254", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "192.88.99.1", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a00:1", "::127.0.0.1", "::8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1",
    "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1", "2001:4:112::1", "2001:db8::1",
    "3fff::1", "100::1", "4000::1",
    "5f00::1", "2606:4700::1%eth0", "", "example.com", "127.1", "0x7f.1", "8.8.8.8 ", "8.8.8.8/8",
)  # fmt: skip


def test_an_address_that_is_not_one_public_machine_is_refused() -> None:
    assert [address for address in PRIVATE if is_public(address)] == []


def test_a_public_address_is_not_refused() -> None:
    for address in (
        "8.8.8.8", PUBLIC, "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1",
        "2606:4700:4700::1111", "2a00:1450:4001:80e::200e", "2003::1",
    ):  # fmt: skip
        assert is_public(address), address


SPELLINGS = (
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.1", "2130706433", "0x7f000001",
    "0x7f.0.0.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0", "127.0.0.1.", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "169.254.169.254",
    "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
    "[fe80::1]", "[64:ff9b::7f00:1]", "10.0.0.1", "metadata.invalid",
)  # fmt: skip


def test_no_spelling_of_this_machine_or_network_is_fetched(
    settings: Settings, own: Files, site: Site
) -> None:
    for host in SPELLINGS:
        error = refusal(f"http://{host}:{site.port}/a.png", settings, own)
        assert error.kind == "file_download_error", host
        assert "has no public address" in error.message, host
    assert site.connections == 0


NO_ADDRESSES = (
    "ftp://example.com/a", "file:///etc/passwd", "gopher://example.com/", "a.png", "", "http:", "http://a.example:0/",
    "http://", "http:///a", "//example.com/a", "http://[::1", "http://a b/", "http://exa\\mple/",
    "http://example.com:99999/", "http://example.com:x/", "unix:/run/docker.sock", "http://..",
    "http://\ud800/", "http://example.com/\ud800", "HTTP+UNIX://x/", "http://[v1.x]/", "http://[]/",
    "http://%00/",
    "http://" + "a" * 300 + "/", "http://example.com/" + "a" * 9000, "javascript:alert(1)",
    "http://user:hunter2@example.com/?hunter2", "http://hunter2@example.com/",
    "http://example.com%2f@127.0.0.1/", "http://127.0.0.1%2eexample.com/", "http://[fe80::1%25eth0]/",
)  # fmt: skip


def test_what_is_no_plain_web_address_is_refused_before_any_look_up(
    settings: Settings, own: Files
) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError(host)

    for url in NO_ADDRESSES:
        error = refusal(url, settings, own, resolve)
        assert error.kind == "file_download_error" and "hunter2" not in error.message
        assert "could not be fetched" not in error.message, url  # it was not tried


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    settings: Settings, own: Files, site: Site
) -> None:
    for answer in ([PUBLIC, "127.0.0.1"], ["::1", PUBLIC], [PUBLIC, "fd00::1"], []):
        error = refusal(f"http://a.example:{site.port}/", settings, own, resolver(answer))
        assert "no public address" in error.message
    assert site.connections == 0


@pytest.fixture
def only_here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """127.0.0.1 counts as public, so that a server here can play the internet."""
    known = {"127.0.0.1"}
    monkeypatch.setattr(ssrf, "is_public", lambda text: text in known or is_public(text))
    return known


def test_a_name_is_looked_up_once_and_the_address_that_was_checked_is_asked(
    settings: Settings, own: Files, site: Site, only_here: set[str]
) -> None:
    times = 0

    async def rebinding(host: str, port: int) -> Sequence[str]:
        nonlocal times
        times += 1
        return ["127.0.0.1"] if times == 1 else ["10.0.0.1"]

    url = f"http://rebind.example:{site.port}/a.png?x=1"
    assert get(url, settings, own, rebinding) == b"picture"
    assert times == 1
    path, headers = site.asked[0]
    assert path == "/a.png?x=1" and headers["host"] == f"rebind.example:{site.port}"
    # the second look finds a private address, and nothing is connected to
    assert "no public address" in refusal(url, settings, own, rebinding).message
    assert len(site.asked) == 1


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    settings: Settings, own: Files, site: Site, only_here: set[str]
) -> None:
    only_here.add("127.0.0.2")
    url = f"http://a.example:{site.port}/a.png"
    assert get(url, settings, own, resolver(["127.0.0.2", "127.0.0.1"])) == b"picture"
    assert "could not be fetched" in refusal(url, settings, own, resolver(["127.0.0.2"])).message


def test_ports_of_a_machines_own_services_are_refused(
    settings: Settings, own: Files, only_here: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def connect(self: object, host: str, port: int, *more: object) -> Any:
        tried.append(port)
        raise fetch_module.httpcore.ConnectError("nobody")

    monkeypatch.setattr(fetch_module.httpcore.AnyIOBackend, "connect_tcp", connect)
    here = resolver(["127.0.0.1"])
    for port in (1, 22, 25, 79, 81, 442, 445, 1023):
        for scheme in ("http", "https"):
            message = refusal(f"{scheme}://a.example:{port}/", settings, own, here).message
            assert message == f"Files are not fetched from port {port}."
    assert tried == []
    for end, port in (("", 80), (":443", 443), (":1024", 1024), (":65535", 65535)):
        refusal(f"http://a.example{end}/", settings, own, here)
        assert tried.pop() == port
    refusal("http://a.example:22/", allowing(settings, "a.example:22"), own, here)
    assert tried == [22]


def test_only_the_named_hosts_are_allowed_and_only_at_the_named_ports(
    settings: Settings, own: Files, site: Site
) -> None:
    here, port = resolver(["127.0.0.1"]), site.port
    url = f"http://nas.example:{port}/a.png"
    for good in ("nas.example", "NAS.example", f"nas.example:{port}", "nas.example."):
        assert get(url, allowing(settings, good), own, here) == b"picture"
        assert get(url.upper().replace("/A.PNG", "/a.png"), allowing(settings, good), own, here)
    for bad in ("example", "as.example", "x.nas.example", "*", "*.example", "nas.example:1", "",
                "127.0.0.1", f"http://nas.example:{port}", "nas", f":{port}"):  # fmt: skip
        assert "no public" in refusal(url, allowing(settings, bad), own, here).message
    # by the name that was asked for, not by where it leads
    assert "no public" in refusal(f"http://other.example:{port}/a.png",
                                  allowing(settings, "nas.example"), own, here).message  # fmt: skip


def test_an_address_of_ipv6_can_be_allowed(settings: Settings, own: Files, site: Site) -> None:
    url, here = f"http://[::1]:{site.port}/a.png", resolver(["127.0.0.1"])
    assert get(url, allowing(settings, f"[::1]:{site.port}"), own, here) == b"picture"
    assert site.asked[0][1]["host"] == f"[::1]:{site.port}"
    address = ssrf.parse("http://[::1]:8080/x")
    assert address.authority == "[::1]:8080" and address.host == "::1"
    assert ssrf.is_allowed(address, ["::1"]) and ssrf.is_allowed(address, ["[::1]:8080"])
    assert not ssrf.is_allowed(address, ["[::1]:80"])


# Redirects


def test_redirects_are_followed_through_the_same_guard(
    settings: Settings, own: Files, site: Site
) -> None:
    here = resolver(["127.0.0.1"])
    settings = allowing(settings, f"nas.example:{site.port}")
    base = f"http://nas.example:{site.port}"
    for n in range(5):
        site.pages[f"/{n}"] = leads_to(f"/{n + 1}" if n % 2 else f"{base}/{n + 1}", 301 + n % 3)
    site.pages["/5"] = says(b"end")
    assert get(f"{base}/2", settings, own, here) == b"end"
    assert "3 redirects" in refusal(f"{base}/1", settings, own, here).message


TRAPS = (
    "http://127.0.0.1:{port}/a.png", "http://[::1]:{port}/a.png", "//127.0.0.1:{port}/a.png",
    "http://2130706433:{port}/a.png", "http://10.0.0.1/a.png", "http://169.254.169.254/latest/",
    "http://localhost:{port}/a.png", "file:///etc/passwd", "gopher://127.0.0.1/", "",
    "http://nas.example:22/", "http://user:pw@nas.example:{port}/a.png", "http://[", "data:,x",
    "http://nas.example.:1/a.png",
)  # fmt: skip


def test_a_redirect_leads_nowhere_that_could_not_be_asked_directly(
    settings: Settings, own: Files, site: Site
) -> None:
    settings = allowing(settings, f"nas.example:{site.port}")
    names = {"nas.example": ["127.0.0.1"]}

    async def resolve(host: str, port: int) -> Sequence[str]:
        return names[host] if host in names else await look_up(host, port)

    for target in TRAPS:
        site.pages["/go"] = leads_to(target.format(port=site.port))
        error = refusal(f"http://nas.example:{site.port}/go", settings, own, resolve)
        assert error.kind == "file_download_error", target
    assert {path for path, _ in site.asked} == {"/go"}


def test_a_redirect_to_this_servers_own_file_needs_no_network(
    settings: Settings, own: Files, site: Site
) -> None:
    name = own.keep("k", b"mine", "image/png", 60)
    site.pages["/go"] = leads_to(own.url(name))
    url = f"http://nas.example:{site.port}/go"
    allowed = allowing(settings, "nas.example")
    assert get(url, allowed, own, resolver(["127.0.0.1"])) == b"mine"


# TLS


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    fetch_module._trust.cache_clear()
    yield ca
    fetch_module._trust.cache_clear()


def test_tls_goes_by_the_name_and_is_not_left_again(
    settings: Settings, own: Files, trusted: trustme.CA, site: Site
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.issue_cert("pictures.example").configure_cert(context)
    secure = Site({"/a.png": says(b"secure"), "/down": leads_to(f"http://nas.example:{site.port}/a.png"),
                   "/up": leads_to("/a.png")}, context)  # fmt: skip
    here = resolver(["127.0.0.1"])
    settings = allowing(settings, "pictures.example", "other.example", "nas.example")
    base = f"https://pictures.example:{secure.port}"
    assert get(f"{base}/a.png", settings, own, here) == b"secure"
    assert get(f"{base}/up", settings, own, here) == b"secure"
    site.pages["/up"] = leads_to(f"{base}/a.png")
    assert get(f"http://nas.example:{site.port}/up", settings, own, here) == b"secure"
    assert "https to http" in refusal(f"{base}/down", settings, own, here).message
    wrong = f"https://other.example:{secure.port}/a.png"
    assert "could not be fetched" in refusal(wrong, settings, own, here).message
    secure.close()


def test_a_certificate_nobody_vouches_for_is_refused(
    settings: Settings, own: Files, trusted: trustme.CA
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("pictures.example").configure_cert(context)
    secure = Site({"/a.png": says(b"secure")}, context)
    url = f"https://pictures.example:{secure.port}/a.png"
    settings = allowing(settings, "pictures.example")
    assert "could not" in refusal(url, settings, own, resolver(["127.0.0.1"])).message
    secure.close()


# Bodies


@pytest.fixture
def ask(settings: Settings, own: Files, site: Site) -> Callable[[Answer], bytes]:
    def ask(answer: Answer) -> bytes:
        site.pages["/x"] = answer
        url = f"http://nas.example:{site.port}/x?secret=hunter2"
        return get(url, allowing(settings, "nas.example"), own, resolver(["127.0.0.1"]))

    return ask


def endless(pause: float = 0.0, told: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if told is not None:
            request.send_header("Content-Length", str(told))
        request.end_headers()
        for _ in range(10_000):
            request.wfile.write(b"x" * (100_000 if not pause else 1))
            request.wfile.flush()
            time.sleep(pause)

    return answer


def test_a_file_up_to_the_limit_is_read(ask: Callable[[Answer], bytes], site: Site) -> None:
    assert len(ask(says(b"x" * MB))) == MB
    headers = site.asked[0][1]
    assert headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "referer"} & set(headers)


@pytest.mark.parametrize("answer", [
    says(b"x" * (MB + 1)), endless(), endless(told=5 * MB),
], ids=["just over", "endless", "told"])  # fmt: skip
def test_a_file_over_the_limit_is_not_read_to_its_end(
    ask: Callable[[Answer], bytes], answer: Answer
) -> None:
    with pytest.raises(FetchError) as caught:
        ask(answer)
    assert caught.value.kind == "file_too_large" and caught.value.ctx == {"max_size": MB}


def test_a_slow_file_has_a_deadline_for_all_of_it(
    ask: Callable[[Answer], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch_module.DEADLINE <= 30
    monkeypatch.setattr(fetch_module, "DEADLINE", 0.3)
    start = time.monotonic()
    with pytest.raises(FetchError, match="did not arrive"):
        ask(endless(0.05))
    assert time.monotonic() - start < 60  # 500, if it were read to its end


def test_a_name_that_nobody_answers_for_has_the_same_deadline(
    settings: Settings, own: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(fetch_module, "DEADLINE", 0.1)
    assert "did not arrive" in refusal("http://a.example/", settings, own, silent).message


NO_FILES = (
    says(status=404), says(status=500), says(status=204), says(status=206), says(status=401),
    says(Content_Encoding="gzip"), says(Content_Encoding="br, identity"), says(status=304),
    says(Location="/a.png", status=300),
)  # fmt: skip


def test_an_answer_that_is_not_the_file_is_refused(ask: Callable[[Answer], bytes]) -> None:
    for answer in NO_FILES:
        with pytest.raises(FetchError) as caught:
            ask(answer)
        assert caught.value.kind == "file_download_error" and "hunter2" not in caught.value.message


NONSENSE = (
    b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
    b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", b"HTTP/1.1 302 Found\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe://\x01\r\n\r\n",
)  # fmt: skip


def test_a_broken_server_is_a_broken_file(ask: Callable[[Answer], bytes]) -> None:
    for raw in NONSENSE:

        def answer(request: BaseHTTPRequestHandler, raw: bytes = raw) -> None:
            request.wfile.write(raw)
            request.close_connection = True

        with pytest.raises(FetchError) as caught:
            ask(answer)
        assert caught.value.kind in ("file_download_error", "file_too_large"), raw[:80]


def test_a_closed_port_is_said_without_the_query(settings: Settings, own: Files) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://nas.example:{port}/x?token=hunter2"
    error = refusal(url, allowing(settings, "nas.example"), own, resolver(["127.0.0.1"]))
    assert error.message == "The file could not be fetched from nas.example."


# This server's own files


def test_own_files_are_read_without_the_network(settings: Settings, own: Files) -> None:
    name = own.keep("k", b"mine", "image/png", 60)
    assert get(own.url(name), settings, own, resolver([])) == b"mine"


def test_an_own_file_that_is_gone_or_too_large_is_said(
    settings: Settings, own: Files, pass_time: Callable[[float], None]
) -> None:
    gone, large = own.keep("k", b"x", "image/png", 60), own.keep("k", b"x" * (MB + 1), "a/b", 90)
    pass_time(61)
    assert "not any more" in refusal(own.url(gone), settings, own).message
    error = refusal(own.url(large), settings, own)
    assert error.kind == "file_too_large" and error.ctx == {"max_size": MB}
    pending = own.begin("k", "image/png", 60)
    assert "not any more" in refusal(own.url(pending), settings, own).message


# Data URIs


GOOD_URIS = (
    ("data:image/png;base64," + base64.b64encode(bytes(range(256))).decode(), bytes(range(256))),
    ("DATA:image/png;BASE64,QUJD", b"ABC"), ("data:;base64,QUI=", b"AB"),
    ("data:;base64,QUI", b"AB"),
    ("data:;base64,QU%49%3D", b"AB"), ("data:;base64,Q U\nI=", b"AB"), ("data:,a%20b%00", b"a b\0"),
    ("data:text/plain;charset=utf-8,x,y", b"x,y"), ("data:a/b;name=base64,QUI=", b"QUI="),
)  # fmt: skip
BAD_URIS = (
    "data:", "data:image/png;base64", "data:;base64,!!!!", "data:;base64,QUI=QUI=",
    "data:;base64,A",
    "data:,\ud800", "data:;base64,\u00e9\u00e9\u00e9\u00e9", "data:;base64,QU-_",
)  # fmt: skip


def test_data_uris_are_decoded(settings: Settings, own: Files) -> None:
    for uri, data in GOOD_URIS:
        assert get(uri, settings, own, resolver([])) == data, uri


def test_a_broken_data_uri_is_an_image_load_error(settings: Settings, own: Files) -> None:
    for uri in BAD_URIS:
        assert refusal(uri, settings, own).kind == "image_load_error", uri


def test_a_data_uri_over_the_limit_is_refused(settings: Settings, own: Files) -> None:
    for size in (MB + 1, 6 * MB):
        for uri in (
            "data:;base64," + base64.b64encode(b"x" * size).decode(),
            "data:," + "x" * size,
        ):
            error = refusal(uri, settings, own)
            assert error.kind == "file_too_large" and error.ctx == {"max_size": MB}
    assert len(get("data:," + "%41" + "x" * (MB - 1), settings, own)) == MB


def test_a_data_uri_of_escapes_that_would_fill_the_memory_is_refused(
    settings: Settings, own: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "MOST_ESCAPES", 100)
    assert get("data:," + "%41" * 100, settings, own) == b"A" * 100
    assert "base64" in refusal("data:," + "%41" * 101, settings, own).message
