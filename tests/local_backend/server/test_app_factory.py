"""The server's HTTP side with workers that do as they are told: routes, keys, hosts, errors."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.workers import PNG, Workers
from onereward_pack.local_backend.server.database import open_database
from onereward_pack.local_backend.server.http.app_factory import Head, make_app
from onereward_pack.local_backend.server.keys import Keys
from onereward_pack.local_backend.server.messages import LogLine
from onereward_pack.local_backend.server.settings import Settings
from starlette.testclient import TestClient

APP = "/fal-ai/onereward"
BODY = {"image_url": "data:image/png;base64,AAAA", "mask_url": "data:image/png;base64,AAAA"}
PROXY = "/api/fal/proxy"


class Site:
    """A server with its client; `keys` are two clients' headers."""

    def __init__(self, client: TestClient, keys: list[dict[str, str]]) -> None:
        self.client, self.keys = client, keys

    def ask(self, method: str, path: str, key: int | None = 0, **more: Any) -> Any:
        headers = {**(self.keys[key] if key is not None else {}), **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def submit(self, path: str = APP, **fields: Any) -> dict[str, Any]:
        answer = self.ask("POST", path, json={**BODY, **fields})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def until(self, told: dict[str, Any], state: str = "COMPLETED") -> dict[str, Any]:
        for _ in range(6000):  # a minute
            answer = self.ask("GET", path_of(told["status_url"]), params={"logs": "1"})
            body: dict[str, Any] = answer.json()
            assert answer.status_code == (200 if body["status"] == "COMPLETED" else 202)
            if body["status"] == state:
                return body
            time.sleep(0.01)
        raise AssertionError(body)


def path_of(url: str) -> str:
    return url.removeprefix("http://127.0.0.1:8000")


@contextmanager
def serving(folder: Path, *scripts: list[Any], **more: Any) -> Iterator[Site]:
    settings = Settings(data=folder / "data", **more)
    engine = open_database(settings)
    keys = [{"Authorization": f"Key {Keys(engine).make(name)}"} for name in ("one", "two")]
    engine.dispose()
    with TestClient(make_app(Head(settings, Workers(*scripts)))) as client:
        yield Site(client, keys)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(tmp_path) as site:
        yield site


# The queue


def test_a_job_goes_through_the_queue_and_its_pictures_can_be_fetched(site: Site) -> None:
    told = site.submit(seed=5)
    assert set(told) == {
        "status", "queue_position", "request_id", "gateway_request_id",
        "response_url", "status_url", "cancel_url",
    }  # fmt: skip
    assert (told["status"], told["queue_position"]) == ("IN_QUEUE", 0)
    ended = site.until(told)
    assert "error" not in ended and ended["metrics"]["inference_time"] >= 0
    result = site.ask("GET", path_of(told["response_url"]))
    assert result.headers["x-fal-request-id"] == told["request_id"]
    assert result.headers["x-fal-billable-units"] == "0"
    (image,) = result.json()["images"]
    assert site.ask("GET", path_of(image["url"]), key=None).content == PNG


@pytest.mark.parametrize("base", [APP, APP + "/", APP + "/sub/path"])
@pytest.mark.parametrize("end", ["", "/", "/response", "/response/"])
def test_the_result_is_found_however_a_client_writes_the_path(
    site: Site, base: str, end: str
) -> None:
    told = site.submit()
    site.until(told)
    path = f"{base.rstrip('/')}/requests/{told['request_id']}"
    assert site.ask("GET", path + end).json()["seed"] is not None
    assert site.ask("GET", path + "/status/").status_code == 200


@pytest.mark.parametrize("logs", ["0", "1", "true", "false"])
def test_logs_are_given_as_a_list_or_null(tmp_path: Path, logs: str) -> None:
    with serving(tmp_path, [LogLine("step 1 of 1"), LogLine("hm", "WARN")]) as site:
        told = site.submit(sed=1)
        site.until(told)
        lines = site.ask("GET", path_of(told["status_url"]), params={"logs": logs}).json()["logs"]
    if logs in ("0", "false"):
        assert lines is None
        return
    assert [(line["level"], line["message"]) for line in lines] == [
        ("WARN", 'The field "sed" is not known and was ignored.'),
        ("INFO", "step 1 of 1"),
        ("WARN", "hm"),
    ]
    assert {line["source"] for line in lines} == {"USER"}
    assert lines[0]["timestamp"].endswith("+00:00")


def test_a_stream_tells_every_state_and_every_line_once(tmp_path: Path) -> None:
    with serving(tmp_path, [LogLine(f"step {n} of 3") for n in (1, 2, 3)]) as site:
        told = site.submit()
        url = path_of(told["status_url"]) + "/stream?logs=1"
        text = site.ask("GET", url).text
    events = [json.loads(part[6:]) for part in text.split("\n\n") if part.startswith("data: ")]
    lines = [line["message"] for event in events for line in event["logs"]]
    assert lines == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert events[-1]["status"] == "COMPLETED"
    assert all(event["response_url"] == told["response_url"] for event in events)


def test_a_wrong_input_is_accepted_and_its_422_comes_with_the_result(site: Site) -> None:
    told = site.submit(num_images=0)
    ended = site.until(told)
    assert ended["error"] == "Invalid status code: 422"
    result = site.ask("GET", path_of(told["response_url"]))
    assert result.status_code == 422
    assert result.json()["detail"][0]["loc"] == ["body", "num_images"]


def test_a_job_is_not_ready_before_it_is_done(tmp_path: Path) -> None:
    with serving(tmp_path, [asyncio.Event()]) as site:
        told = site.submit()
        site.until(told, "IN_PROGRESS")
        result = site.ask("GET", path_of(told["response_url"]))
        assert (result.status_code, result.json()) == (
            400, {"detail": "Request is still in progress"},
        )  # fmt: skip


def test_cancels_are_answered_with_fals_words(tmp_path: Path) -> None:
    with serving(tmp_path, [asyncio.Event()]) as site:
        running, queued = site.submit(), site.submit()
        site.until(running, "IN_PROGRESS")
        answers = []
        for told in (queued, queued, running):
            answers.append(site.ask("PUT", path_of(told["cancel_url"])))
        assert [(a.status_code, a.json()["status"]) for a in answers] == [
            (200, "OK"), (400, "ALREADY_COMPLETED"), (202, "CANCELLATION_REQUESTED"),
        ]  # fmt: skip
        for told in (queued, running):
            assert site.until(told)["error_type"] == "client_cancelled"
            result = site.ask("GET", path_of(told["response_url"]))
            assert result.status_code == 499
            assert result.headers["X-Fal-Error-Type"] == "client_cancelled"


@pytest.mark.parametrize("name", [str(uuid.UUID(int=7)), "x", "%00", "..%2f..", "a" * 5000])
def test_an_unknown_job_is_not_found(site: Site, name: str) -> None:
    for method, end in (("GET", ""), ("GET", "/status"), ("PUT", "/cancel")):
        answer = site.ask(method, f"{APP}/requests/{name}{end}")
        assert answer.status_code == 404
        assert answer.json() == {"status": "NOT_FOUND"} or "not found" in answer.json()["detail"]


# Keys


def test_a_job_is_seen_by_its_own_key_only(site: Site) -> None:
    told = site.submit()
    for path in (told["status_url"], told["response_url"], told["status_url"] + "/stream"):
        assert site.ask("GET", path_of(path), key=1).json() == {"status": "NOT_FOUND"}
    assert site.ask("PUT", path_of(told["cancel_url"]), key=1).status_code == 404
    assert site.until(told)["status"] == "COMPLETED"


@pytest.mark.parametrize("header", [None, "Key a:b", "Bearer x", "Key", ""])
def test_without_a_good_key_nothing_is_told(site: Site, header: str | None) -> None:
    told = site.submit()
    headers = {} if header is None else {"Authorization": header}
    asked = [("POST", APP), ("POST", "/run" + APP), ("POST", "/storage/auth/token"),
             ("PUT", path_of(told["cancel_url"])), ("GET", path_of(told["response_url"])),
             ("GET", path_of(told["status_url"])),
             ("POST", "/storage/upload/initiate")]  # fmt: skip
    for method, path in asked:
        answer = site.ask(method, path, key=None, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json() == {"detail": "No user found for Key ID and Secret"}
        assert "x-fal-request-id" in answer.headers


# Refusals


@pytest.mark.parametrize(
    ("query", "body", "headers", "status"),
    [
        ("", b"[]", {}, 400),
        ("", b"{", {}, 400),
        ("?fal_webhook=https%3A%2F%2Fx.example", b"{}", {}, 400),
        ("?fal_max_queue_length=x", b'{"image_url":"data:,","mask_url":"data:,"}', {}, 400),
        ("", b"{}", {"X-Fal-Request-Timeout": "never"}, 400),
    ],
)
def test_a_submit_that_is_no_job_is_refused_at_once(
    site: Site, query: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = site.ask("POST", APP + query, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error_type"] == "bad_request" == answer.headers["x-fal-error-type"]


def test_a_full_queue_answers_429_and_a_client_may_set_a_lower_limit(tmp_path: Path) -> None:
    with serving(tmp_path, [asyncio.Event()], max_queue=2) as site:
        site.until(site.submit(), "IN_PROGRESS")
        assert site.submit()["queue_position"] == 0
        impatient = site.ask("POST", APP + "?fal_max_queue_length=1", json=BODY)
        assert site.submit()["queue_position"] == 1
        full = site.ask("POST", APP, json=BODY)
        for answer in (impatient, full):
            assert answer.status_code == 429 and answer.headers["retry-after"]
            assert answer.json()["error_type"] == "queue_full"
            assert "nginx" not in answer.text


def test_a_client_cannot_raise_the_limit_of_the_queue(tmp_path: Path) -> None:
    with serving(tmp_path, [asyncio.Event()], max_queue=1) as site:
        site.until(site.submit(), "IN_PROGRESS")
        assert site.submit()["queue_position"] == 0
        greedy = site.ask("POST", APP + "?fal_max_queue_length=9", json=BODY)
        assert greedy.status_code == 429 and greedy.json()["error_type"] == "queue_full"


def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, max_body_mb=1) as site:
        big = {**BODY, "prompt": "x" * (1 << 20)}
        assert site.ask("POST", APP, json=big).status_code == 413
        assert site.ask("POST", "/run" + APP, json=big).status_code == 413
        target = {"x-fal-target-url": "https://queue.fal.run" + APP}
        assert site.ask("POST", PROXY, json=big, headers=target).status_code == 413


def test_an_unknown_path_says_so_as_fal_does(site: Site) -> None:
    for path in ("/fal-ai/flux", APP + "/sub", "/run/other/app", "/nothing"):
        answer = site.ask("POST", path, json={})
        assert answer.status_code in (404, 405), path
        assert answer.headers["x-fal-request-id"]
    assert site.ask("POST", "/fal-ai/flux").json() == {"detail": "Path /fal-ai/flux not found"}


# Direct calls


def test_a_direct_call_answers_with_the_result_or_its_error(site: Site) -> None:
    good = site.ask("POST", "/run" + APP, json={**BODY, "seed": 3})
    assert (good.status_code, good.json()["seed"]) == (200, 3)
    bad = site.ask("POST", "/run" + APP, json={})
    assert bad.status_code == 422 and len(bad.json()["detail"]) == 2
    assert good.headers["x-fal-request-id"] != bad.headers["x-fal-request-id"]


# Hosts and the proxy


def test_fals_host_names_lead_to_the_right_routes(site: Site) -> None:
    run = site.ask("POST", APP, json=BODY, headers={"Host": "fal.run"})
    assert "images" in run.json()
    queued = site.ask("POST", APP, json=BODY, headers={"Host": "queue.fal.run:8443"})
    assert queued.json()["status"] == "IN_QUEUE"
    token = site.ask("POST", "/storage/auth/token?storage_type=fal-cdn-v3", json={},
                     headers={"Host": "rest.fal.ai"})  # fmt: skip
    assert token.json()["token"]


def test_the_proxy_route_leads_to_fals_hosts_and_to_no_other(site: Site) -> None:
    def through(method: str, url: str | None, **more: Any) -> Any:
        headers = {} if url is None else {"x-fal-target-url": url}
        return site.ask(method, PROXY, headers=headers, **more)

    assert "images" in through("POST", "https://fal.run" + APP, json=BODY).json()
    told = through("POST", "https://queue.fal.run" + APP, json=BODY).json()
    url = f"https://queue.fal.run{APP}/requests/{told['request_id']}/status?logs=1"
    assert through("GET", url).json()["request_id"] == told["request_id"]
    assert through("GET", None).status_code == 400
    for other in ("https://example.com/", "http://fal.run" + APP, "https://fal.run.evil.example/",
                  "https://evil@queue.fal.run.example/", "file:///etc/passwd", "https://[", "x",
                  "https://queue.fal.run@evil.example/"):  # fmt: skip
        assert through("GET", other).status_code == 412, other
    nested = through("POST", "https://queue.fal.run" + PROXY)
    assert nested.status_code in (401, 404)


# The server's own


def test_health_prices_and_the_api_page_need_no_job(site: Site) -> None:
    assert site.ask("GET", "/health", key=None).json() == {
        "status": "ok", "queued": 0, "running": 0,
    }  # fmt: skip
    price = site.ask("GET", "/v1/models/pricing?endpoint_id=fal-ai/onereward").json()["prices"]
    assert [(p["unit_price"], p["currency"]) for p in price] == [(0, "USD")]
    api = site.ask("GET", "/openapi.json", key=None).json()
    schema = api["paths"][APP]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["image_url", "mask_url"] and len(schema["properties"]) == 13
    assert site.ask("GET", "/docs", key=None).status_code == 200


def test_web_pages_of_other_origins_are_shut_out_unless_named(tmp_path: Path) -> None:
    asked = {"Origin": "https://studio.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization,x-fal-target-url"}  # fmt: skip
    with serving(tmp_path) as site:
        answer = site.ask("OPTIONS", PROXY, key=None, headers=asked)
        assert "access-control-allow-origin" not in answer.headers
        got = site.ask("GET", "/health", headers={"Origin": "https://studio.example"})
        assert "access-control-allow-origin" not in got.headers
    with serving(tmp_path, cors_origins=("https://studio.example",)) as site:
        answer = site.ask("OPTIONS", PROXY, key=None, headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://studio.example"
        assert "x-fal-target-url" in answer.headers["access-control-allow-headers"]
        told = site.ask("POST", APP, json=BODY, headers={"Origin": "https://studio.example"})
        assert "x-fal-request-id" in told.headers["access-control-expose-headers"]


def test_a_fault_of_the_server_is_a_500_in_fals_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onereward_pack.local_backend.server.queue.store import JobStore

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret path")

    settings = Settings(data=tmp_path / "data")
    app = make_app(Head(settings, Workers()))
    monkeypatch.setattr(JobStore, "counts", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/health")
    assert (answer.status_code, answer.json()["error_type"]) == (500, "internal_error")
    assert "secret" not in answer.text and answer.headers["x-fal-request-id"]


def test_a_head_whose_queue_stands_still_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    head = Head(Settings(data=tmp_path / "data"), Workers())
    with TestClient(make_app(head)) as client:
        head.check()
        monkeypatch.setattr(head.leases, "claim", fail)
        head.dispatcher.wake()
        for _ in range(6000):
            if client.get("/health").status_code == 503:
                break
            time.sleep(0.01)
        with pytest.raises(RuntimeError, match="not worked off"):
            head.check()
