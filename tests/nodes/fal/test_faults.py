"""The faults of the fake fal server are real on the wire, and its outcomes are what they say."""

from __future__ import annotations

import base64
import errno
import io
import json
import select
import socket
import ssl
import time
import zlib
from collections.abc import Iterator

import pytest
import requests
import trustme
from fakes import fal_faults
from fakes.fal_calls import KEY, arguments, follow, picture, submit
from fakes.fal_faults import Fault
from fakes.fal_server import ENDPOINT, FalServer
from PIL import Image


@pytest.fixture
def fal() -> Iterator[FalServer]:
    with FalServer() as server:
        yield server


def head(method: str, path: str, length: int) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Authorization: Key id:secret"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def connect(fal: FalServer) -> socket.socket:
    host, port = fal.url.partition("//")[2].split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def send(fal: FalServer, fault: Fault) -> bytes:
    """All that comes back for a submit, from the connection's first to its last byte."""
    body = json.dumps(arguments()).encode()
    fal.fail("submit", fault)
    with connect(fal) as connection:
        connection.sendall(head("POST", f"/{ENDPOINT}", len(body)) + body)
        return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_reset_after_the_body_leaves_one_job(fal: FalServer) -> None:
    with pytest.raises(ConnectionResetError):
        send(fal, fal_faults.reset_after_body())
    assert len(fal.jobs) == 1 and len(fal.calls("submit")) == 1


def test_a_reset_before_the_body_leaves_none(fal: FalServer) -> None:
    fal.fail("submit", fal_faults.reset_before_body())
    with connect(fal) as connection:
        connection.sendall(head("POST", f"/{ENDPOINT}", 1000))
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert fal.jobs == {}
    assert [call.body for call in fal.calls("submit")] == [b""]


def test_a_reset_is_one_under_tls_too() -> None:
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(trusting)
    with FalServer(tls=serving) as fal, connect(fal) as plain:
        fal.fail("pricing", fal_faults.reset_after_body())
        with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(head("GET", "/v1/models/pricing", 0))
            # The TLS layer reports an end of file, so the socket is asked itself.
            hung_up = select.poll()
            hung_up.register(connection, 0)
            assert hung_up.poll(5000)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def test_a_truncated_answer_ends_before_its_length(fal: FalServer) -> None:
    got, _, body = send(fal, fal_faults.truncated()).partition(b"\r\n\r\n")
    length = int(got.lower().partition(b"content-length: ")[2].split()[0])
    assert 0 < len(body) == length // 2
    assert len(fal.jobs) == 1


def test_a_gzip_bomb_is_small_on_the_wire_and_large_in_memory(fal: FalServer) -> None:
    fal.fail("status", fal_faults.gzip_bomb(megabytes=20))
    with requests.get(f"{fal.url}/{ENDPOINT}/requests/x/status", stream=True, timeout=5) as answer:
        packed = answer.raw.read(decode_content=False)
        assert answer.headers["content-encoding"] == "gzip"
    assert len(packed) < 20 * fal_faults.MEGABYTE / 900
    assert zlib.decompress(packed, wbits=31) == bytes(20 * fal_faults.MEGABYTE)


def test_a_huge_body_does_not_announce_itself(fal: FalServer) -> None:
    fal.fail("download", fal_faults.huge_body(megabytes=3))
    answer = requests.get(fal.url + "/files/x", timeout=5)
    assert "content-length" not in answer.headers
    assert answer.headers["content-type"] == "image/png"
    assert len(answer.content) == 3 * fal_faults.MEGABYTE


def test_a_client_may_leave_in_the_middle_of_a_huge_body(fal: FalServer) -> None:
    fal.fail("download", fal_faults.huge_body(megabytes=200))
    start = time.monotonic()
    with requests.get(fal.url + "/files/x", stream=True, timeout=5) as answer:
        answer.raw.read(1000)
    assert requests.get(fal.url + "/files/x", timeout=5).status_code == 404
    assert time.monotonic() - start < 2


def test_silence_takes_the_job_and_answers_late(fal: FalServer) -> None:
    fal.fail("submit", fal_faults.silence(0.3))
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{fal.url}/{ENDPOINT}", json=arguments(), headers=KEY, timeout=0.1)
    assert len(fal.jobs) == 1
    fal.fail("submit", fal_faults.silence(0.3))
    start = time.monotonic()
    assert submit(fal)["request_id"] in fal.jobs
    assert time.monotonic() - start > 0.3


def test_a_slow_download_is_whole_in_the_end(fal: FalServer) -> None:
    url = follow(submit(fal))[1].json()["images"][0]["url"]
    whole = requests.get(url, timeout=5).content
    fal.fail("download", fal_faults.slow(0.02, chunk=16))
    start = time.monotonic()
    assert requests.get(url, timeout=5).content == whole
    assert time.monotonic() - start > 0.02 * (len(whole) // 16)


@pytest.mark.parametrize(
    ("fault", "status", "kind", "from_fal", "text"),
    [
        (fal_faults.unauthorized(), 401, "application/json", True, "No user found"),
        (fal_faults.locked(), 403, "application/json", True, "Reason: Exhausted balance"),
        (fal_faults.not_found(), 404, "application/json", True, '{"status": "NOT_FOUND"}'),
        (fal_faults.invalid(), 422, "application/json", True, '"ctx": {"le": 50}'),
        (fal_faults.too_many(7), 429, "application/json", True, '{"detail": "Concurrent'),
        (fal_faults.server_error(), 500, "application/json", True, "internal_error"),
        (fal_faults.ingress(502), 502, "text/html", False, "502 Bad Gateway"),
        (fal_faults.ingress(503), 503, "text/html", False, "nginx"),
        (fal_faults.html_page(), 200, "text/html", False, "log in"),
        (fal_faults.redirect("http://127.0.0.1:1/"), 307, None, True, ""),
    ],
)
def test_a_wrong_answer_makes_no_job_and_the_next_one_is_right(
    fal: FalServer, fault: Fault, status: int, kind: str | None, from_fal: bool, text: str
) -> None:
    fal.fail("submit", fault)
    url = f"{fal.url}/{ENDPOINT}"
    answer = requests.post(url, json=arguments(), headers=KEY, timeout=5, allow_redirects=False)
    assert (answer.status_code, answer.headers.get("content-type")) == (status, kind)
    assert ("x-fal-request-id" in answer.headers) is from_fal
    assert text in answer.text
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    assert answer.headers.get("location") == ("http://127.0.0.1:1/" if status == 307 else None)
    assert fal.jobs == {}
    assert submit(fal)["request_id"] in fal.jobs


def test_faults_of_a_phase_come_in_order_and_as_often_as_said(fal: FalServer) -> None:
    fal.fail("pricing", fal_faults.ingress(502), times=2)
    fal.fail("pricing", fal_faults.locked())
    url = fal.url + "/v1/models/pricing"
    answers = [requests.get(url, headers=KEY, timeout=5).status_code for _ in range(4)]
    assert answers == [502, 502, 403, 200]


def test_a_server_that_is_down_refuses_and_comes_back_on_its_port(fal: FalServer) -> None:
    url, told = fal.url + "/v1/models/pricing", submit(fal)
    with requests.Session() as session:
        assert session.get(url, headers=KEY, timeout=5).status_code == 200
        fal.down()
        for _ in range(2):  # the open connection is cut, a new one is refused
            with pytest.raises(requests.ConnectionError) as error:
                session.get(url, headers=KEY, timeout=5)
        assert "Connection refused" in str(error.value)
        fal.up()
        assert session.get(url, headers=KEY, timeout=5).status_code == 200
    assert follow(told)[1].status_code == 200


def test_a_flagged_picture_is_black_unless_the_checker_is_off(fal: FalServer) -> None:
    fal.next_job(fal_faults.flagged(), times=2)
    for checker in (True, False):
        _, result = follow(submit(fal, enable_safety_checker=checker))
        assert result.json()["has_nsfw_concepts"] == [checker]
        assert (picture(result).getcolors() == [(64 * 48, (0, 0, 0))]) is checker
    assert fal.paid == 2


def test_a_requeued_job_is_seen_to_go_back(fal: FalServer) -> None:
    fal.next_job(fal_faults.requeued())
    fal.hold()
    told = submit(fal)
    first = requests.get(told["status_url"], headers=KEY, timeout=5).json()
    assert first["status"] == "IN_QUEUE"
    fal.release()
    seen, result = follow(told)
    states = [answer["status"] for answer in seen]
    assert "IN_QUEUE" in states[states.index("IN_PROGRESS") :]
    assert result.status_code == 200 and fal.paid == 1


def test_logs_grow_line_by_line_and_come_only_when_asked_for(fal: FalServer) -> None:
    fal.hold("running")
    fal.next_job(fal_faults.logs(["a", "b", "c"]))
    told = submit(fal)
    quiet = requests.get(told["status_url"] + "?logs=false", headers=KEY, timeout=5).json()
    assert quiet["logs"] is None
    fal.release()
    seen, _ = follow(told)
    counts = [len(answer["logs"]) for answer in seen]
    assert counts == sorted(counts) and counts[-1] == 3
    assert [line["message"] for line in seen[-1]["logs"]] == ["a", "b", "c"]


def test_a_start_deadline_says_that_it_was_ours(fal: FalServer) -> None:
    fal.next_job(fal_faults.platform_error(504, "request_timeout"))
    seen, result = follow(submit(fal))
    assert seen[-1]["error_type"] == "request_timeout"
    assert result.status_code == 504
    assert result.headers["x-fal-request-timeout-type"] == "user"
    assert result.headers["x-fal-error-type"] == result.json()["error_type"] == "request_timeout"


def test_a_model_error_echoes_the_input_and_has_its_bounds(fal: FalServer) -> None:
    fal.next_job(fal_faults.image_too_large(1024, 512))
    fal.next_job(fal_faults.model_error(422, "No luck", {"X-Fal-Needs-Retry": "0"}))
    (entry,) = follow(submit(fal))[1].json()["detail"]
    assert entry["ctx"] == {"max_width": 1024, "max_height": 512}
    assert entry["input"] == arguments()["image_url"]
    plain = follow(submit(fal))[1]
    assert plain.json() == {"detail": "No luck"} and plain.headers["x-fal-needs-retry"] == "0"


def test_foreign_urls_are_only_in_the_answers(fal: FalServer) -> None:
    fal.next_job(fal_faults.foreign_status_url("http://other:1/"))
    fal.next_job(fal_faults.foreign_file_url("https://other/x.png"))
    told = submit(fal)
    for name in ("status_url", "response_url", "cancel_url"):
        assert told[name].startswith(f"http://other:1/{ENDPOINT}/requests/{told['request_id']}")
    own = f"{fal.url}/{ENDPOINT}/requests/{told['request_id']}"
    assert requests.get(f"{own}/status", headers=KEY, timeout=5).status_code in (200, 202)
    assert follow(submit(fal))[1].json()["images"][0]["url"] == "https://other/x.png"


def test_broken_files_are_broken_in_the_way_they_say(fal: FalServer) -> None:
    for outcome in (
        fal_faults.html_image(),
        fal_faults.truncated_image(),
        fal_faults.bomb_png(40000, 30000),
        fal_faults.wrong_size(32, 16),
    ):
        fal.next_job(outcome)
    results = [follow(submit(fal))[1] for _ in range(4)]
    files = [requests.get(r.json()["images"][0]["url"], timeout=5) for r in results]
    html, half, bomb, small = files
    assert html.headers["content-type"] == "text/html" and html.content.startswith(b"<!DOCTYPE")
    assert half.headers["content-type"] == "image/png"
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(half.content)).load()
    assert len(bomb.content) < 100
    assert int.from_bytes(bomb.content[16:20], "big") == 40000
    assert int.from_bytes(bomb.content[20:24], "big") == 30000
    assert Image.open(io.BytesIO(small.content)).size == (32, 16)
    assert results[3].json()["images"][0]["width"] == 32


def test_pictures_come_inline_or_not_at_all(fal: FalServer) -> None:
    fal.next_job(fal_faults.as_data_uri())
    fal.next_job(fal_faults.no_images())
    url = follow(submit(fal))[1].json()["images"][0]["url"]
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    empty = follow(submit(fal))[1].json()
    assert (empty["images"], empty["has_nsfw_concepts"]) == ([], [])
