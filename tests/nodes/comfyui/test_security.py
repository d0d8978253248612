"""Who may send what to the pack's routes: no other site's page, no form, no other machine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from onereward_pack.nodes.comfyui.routes import security
from onereward_pack.nodes.comfyui.routes.security import (
    LARGEST,
    answer,
    is_here,
    json_body,
    one_text,
    refusal,
)
from onereward_pack.nodes.errors import (
    CredentialsError,
    InputError,
    JournalError,
    OneRewardError,
    RemoteError,
)


@dataclass(frozen=True)
class KeyBody:
    key: str


JSON = {"Content-Type": "application/json"}
HERE = "127.0.0.1:8188"


def send(
    data: bytes, headers: Mapping[str, str], *, this_machine_only: bool = True
) -> tuple[int, Any]:
    """What a route that only hands the body back answers: status and JSON."""

    async def route(request: web.Request) -> web.Response:
        body = await json_body(request, this_machine_only=this_machine_only)
        return web.json_response({"got": body})

    async def ask() -> tuple[int, Any]:
        app = web.Application()
        app.router.add_post("/x", route)
        async with TestClient(TestServer(app)) as client:
            async with client.post("/x", data=data, headers=dict(headers)) as reply:
                return reply.status, await reply.json()

    return asyncio.run(ask())


def asked_by(remote: str | None, host: str = HERE, **headers: str) -> web.Request:
    request = make_mocked_request("POST", "/x", headers={"Host": host, **headers})
    return request.clone(remote=remote) if remote is not None else request


def test_an_object_sent_by_a_program_on_this_machine_is_taken() -> None:
    status, said = send(b'{"a": [1, "\xc3\xa9"]}', JSON)
    assert (status, said) == (200, {"got": {"a": [1, "\u00e9"]}})
    status, _ = send(b"{}", {"Content-Type": "application/json; charset=utf-8"})
    assert status == 200


@pytest.mark.parametrize("kind", [
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain",
    "text/json", "application/jsonx",
])  # fmt: skip
def test_what_a_form_could_send_is_refused(kind: str) -> None:
    status, said = send(b"{}", {"Content-Type": kind})
    assert status == 415 and "application/json" in said["error"]


@pytest.mark.parametrize("headers", [
    {"Origin": "http://elsewhere.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://[::1"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "http://127.0.0.1:8188", "Sec-Fetch-Site": "cross-site", "Host": HERE},
])  # fmt: skip
@pytest.mark.parametrize("this_machine_only", [True, False])
def test_a_page_of_another_site_is_refused(
    headers: Mapping[str, str], this_machine_only: bool
) -> None:
    status, said = send(b"{}", {**JSON, **headers}, this_machine_only=this_machine_only)
    assert status == 403 and "another site" in said["error"]


@pytest.mark.parametrize("headers", [
    {"Origin": "http://localhost:8188", "Host": "LocalHost:8188", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://[::1]:8188", "Host": "[::1]:8188"},
    {"Sec-Fetch-Site": "none"},
])  # fmt: skip
def test_comfyuis_own_page_is_heard(headers: Mapping[str, str]) -> None:
    assert send(b"{}", {**JSON, **headers})[0] == 200


@pytest.mark.parametrize("host", [HERE, "localhost", "localhost:8188", "[::1]:8188", "127.1.2.3"])
@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_known_by_all_its_names(remote: str, host: str) -> None:
    assert is_here(asked_by(remote, host))


@pytest.mark.parametrize(("remote", "host"), [
    ("192.168.1.4", HERE), ("::ffff:10.0.0.1", HERE), ("fe80::1", HERE), ("", HERE),
    ("no address", HERE),
    ("127.0.0.1", "elsewhere.example:8188"), ("127.0.0.1", "192.168.1.4:8188"),
    ("127.0.0.1", "127.0.0.1.elsewhere.example"), ("127.0.0.1", "localhost@elsewhere.example"),
    ("127.0.0.1", "[::1"), ("127.0.0.1", ""),
])  # fmt: skip
def test_another_machine_or_another_name_is_not_here(remote: str, host: str) -> None:
    assert not is_here(asked_by(remote, host))


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"])
def test_who_comes_through_a_proxy_is_not_here(name: str) -> None:
    assert not is_here(asked_by("127.0.0.1", HERE, **{name: "10.0.0.7"}))
    status, said = send(b"{}", {**JSON, name: "10.0.0.7"})
    assert status == 403 and "the machine that ComfyUI runs on" in said["error"]
    assert send(b"{}", {**JSON, name: "10.0.0.7"}, this_machine_only=False)[0] == 200


def test_a_name_that_somebody_pointed_at_this_machine_is_refused() -> None:
    own = {"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}
    assert send(b"{}", {**JSON, **own})[0] == 403
    assert send(b"{}", {**JSON, **own}, this_machine_only=False)[0] == 200


def test_another_machine_gets_403_only_where_this_one_is_asked_for() -> None:
    with mock.patch.object(security, "is_loopback", lambda host: host != "127.0.0.1"):
        status, said = send(b"{}", JSON)
        assert status == 403 and "runs on" in said["error"]
        assert send(b"{}", JSON, this_machine_only=False)[0] == 200


@pytest.mark.parametrize("data", [
    b"", b"{", b"[1]", b"null", b'"text"', b"\xff{}", b'{"a": NaN}', b'{"a": Infinity}',
    b"[" * 60000,
])  # fmt: skip
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    status, said = send(data, JSON)
    assert status == 400 and "JSON object" in said["error"]


def test_a_body_that_is_no_json_is_not_shown() -> None:
    _, said = send(b'{"key": "id:secret"', JSON)
    assert "secret" not in json.dumps(said)


def test_64_kilobytes_are_taken_and_no_more() -> None:
    most = b'{"a": "' + b"x" * (LARGEST - 9) + b'"}'
    assert len(most) == LARGEST and send(most, JSON)[0] == 200
    status, said = send(most + b" ", JSON)
    assert status == 400 and "64 KB" in said["error"]


def test_a_refusal_is_words_and_the_input_at_fault() -> None:
    plain = refusal(InputError("The mask is 3x2."))
    assert plain.status == 400 and json.loads(plain.text or "") == {"error": "The mask is 3x2."}
    named = refusal("no", 409, input="mask")
    assert named.status == 409 and json.loads(named.text or "") == {"error": "no", "input": "mask"}


@pytest.mark.parametrize(("error", "status"), [
    (InputError("no such size"), 400), (CredentialsError("no key"), 400),
    (JournalError("no room"), 500), (RemoteError("it is down"), 502),
])  # fmt: skip
def test_what_the_pack_raises_on_purpose_is_answered_in_its_words(
    error: OneRewardError, status: int
) -> None:
    def work() -> object:
        raise error

    reply = asyncio.run(answer(work))
    assert reply.status == status and json.loads(reply.text or "") == {"error": str(error)}


def test_work_is_answered_as_json_from_another_thread_and_a_fault_stays_one() -> None:
    reply = asyncio.run(answer(lambda: [threading.current_thread() is threading.main_thread()]))
    assert reply.status == 200 and json.loads(reply.text or "") == [False]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(answer(lambda: 1 / 0))


@pytest.mark.parametrize("body", [
    {}, {"key": None}, {"key": 5}, {"key": ["secret"]}, {"key": "secret", "more": "secret"},
    {"Key": "secret"},
])  # fmt: skip
def test_a_body_holds_one_text_and_nothing_else(body: dict[str, Any]) -> None:
    assert one_text(KeyBody, {"key": ""}) == KeyBody("")
    with pytest.raises(InputError, match='not {"key": text}') as failure:
        one_text(KeyBody, body)
    assert "secret" not in str(failure.value)
