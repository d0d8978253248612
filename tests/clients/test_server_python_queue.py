"""What fal's own Python client finds in the queue: jobs by id, keys, deadlines, priorities."""

from __future__ import annotations

import json
import time

import pytest
import requests
from fakes.live_server import LiveServer, arguments, follow, submit, wait_until_runs
from fakes.official_clients import python_client

UNKNOWN = {"status": "NOT_FOUND"}
REFUSALS = """
def refusals(client):
    return [failure(call, APP, EXTRA) for call in (client.status, client.result, client.cancel)]
"""


@pytest.fixture
def server(secure: LiveServer) -> LiveServer:
    return secure


def test_a_second_process_finds_a_job_by_its_id(server: LiveServer) -> None:
    id = python_client("said = fal_client.submit(APP, ARGUMENTS).request_id", server)
    script = """
found = fal_client.result(APP, EXTRA)
status = fal_client.status(APP, EXTRA, with_logs=True)
said = [found, type(status).__name__, status.metrics, len(status.logs)]
"""
    found, state, metrics, lines = python_client(script, server, id)
    assert (found["seed"], state) == (5, "Completed")
    assert metrics["inference_time"] > 0 and lines >= 2


def test_a_second_process_cancels_a_job_by_its_id(server: LiveServer) -> None:
    told = submit(server, arguments(steps=1000))
    wait_until_runs(server, told)
    python_client("said = fal_client.cancel(APP, EXTRA)", server, told["request_id"])
    assert follow(server, told)[1].status_code == 499


@pytest.mark.parametrize("id", ["00000000-0000-4000-8000-000000000000", "nonsense"])
def test_an_unknown_job_is_not_found(server: LiveServer, id: str) -> None:
    for code, message, _ in python_client(
        REFUSALS + "said = refusals(fal_client.sync_client)", server, id
    ):
        assert code == 404 and json.loads(message) == UNKNOWN


def test_the_job_of_another_key_is_not_found(server: LiveServer) -> None:
    id = python_client("said = fal_client.submit(APP, ARGUMENTS).request_id", server)
    key = server.another_key("second")
    script = f"{REFUSALS}said = refusals(fal_client.SyncClient(key={key!r}))"
    for code, message, _ in python_client(script, server, id):
        assert code == 404 and json.loads(message) == UNKNOWN
    theirs = f"said = fal_client.SyncClient(key={key!r}).subscribe(APP, ARGUMENTS)['seed']"
    assert python_client(theirs, server) == 5
    assert python_client("said = fal_client.result(APP, EXTRA)['seed']", server, id) == 5


def test_a_wrong_key_is_refused_everywhere(server: LiveServer) -> None:
    script = f"""{REFUSALS}
id, _, secret = fal_client.sync_client._auth.header_value.partition(" ")[2].partition(":")
said = []
for key in ("id:wrong", id + ":wrong", id + ":" + secret[:-1], secret):
    client = fal_client.SyncClient(key=key)
    said += [*refusals(client), failure(client.subscribe, APP, ARGUMENTS)]
"""
    refused = python_client(script, server, "nonsense")
    assert len(refused) == 16
    assert all(code == 401 and isinstance(message, str) for code, message, _ in refused)


def test_a_job_that_cannot_start_in_time_is_given_up(server: LiveServer) -> None:
    script = """
first = running()
start = time.monotonic()
try:
    fal_client.subscribe(APP, ARGUMENTS, start_timeout=1.2)
except fal_client.FalClientHTTPError as error:
    said = [error.status_code, error.error_type, time.monotonic() - start,
            error.response_headers.get("x-fal-request-timeout-type")]
stop(first)
said.append(fal_client.subscribe(APP, ARGUMENTS, start_timeout=30)["seed"])
"""
    code, kind, seconds, whose, seed = python_client(script, server)
    assert (code, kind, whose) == (504, "request_timeout", "user")
    assert 1.0 < seconds < 15
    assert seed == 5


def test_a_direct_run_that_cannot_start_in_time_is_given_up(server: LiveServer) -> None:
    script = """
first = running()
start = time.monotonic()
said = [failure(fal_client.run, APP, ARGUMENTS, start_timeout=1.2), time.monotonic() - start]
stop(first)
"""
    (code, _, kind), seconds = python_client(script, server)
    assert (code, kind) == (504, "request_timeout")
    assert seconds < 15


def test_a_job_of_low_priority_waits_behind_later_ones(server: LiveServer) -> None:
    script = """
first = running()
low = [fal_client.submit(APP, ARGUMENTS, priority="low") for _ in range(2)]
time.sleep(1.5)
normal = [fal_client.submit(APP, ARGUMENTS, priority="normal") for _ in range(2)]
places = [handle.status().position for handle in (*normal, *low)]
stop(first)
for handle in (*normal, *low):
    handle.get()
def began(handle):
    return handle.status(with_logs=True).logs[0]["timestamp"]
said = [places, [began(handle) for handle in (*normal, *low)]]
"""
    places, began = python_client(script, server)
    assert places == [0, 1, 2, 3]
    assert began == sorted(began)


def test_a_full_queue_refuses_by_the_clients_own_limit(server: LiveServer) -> None:
    first = submit(server, arguments(steps=1000))
    wait_until_runs(server, first)
    second = submit(server)
    path = "/fal-ai/onereward?fal_max_queue_length="
    refused = server.call("POST", path + "1", json=arguments())
    accepted = server.call("POST", path + "2", json=arguments())
    assert (refused.status_code, accepted.status_code) == (429, 200)
    assert isinstance(refused.json()["detail"], str)
    for told in (first, second, accepted.json()):
        server.call("PUT", told["cancel_url"])


def test_a_webhook_is_refused_rather_than_forgotten(server: LiveServer) -> None:
    script = """
said = failure(fal_client.submit, APP, ARGUMENTS, webhook_url="https://example.com/hook")
"""
    code, message, kind = python_client(script, server)
    assert (code, kind) == (400, "bad_request") and "ebhook" in message


def test_a_direct_call_whose_client_hangs_up_is_cancelled(server: LiveServer) -> None:
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(
            f"{server.url}/run/fal-ai/onereward", json=arguments(steps=1000), timeout=2,
            headers={"Authorization": f"Key {server.key}"}, verify=str(server.ca_file),
        )  # fmt: skip
    end = time.monotonic() + 10
    while server.call("GET", "/health").json() != {"status": "ok", "queued": 0, "running": 0}:
        assert time.monotonic() < end, "the job of nobody still runs"
        time.sleep(0.1)


def test_jobs_and_results_survive_a_restart(server: LiveServer) -> None:
    done = submit(server)
    _, before = follow(server, done)
    running, waiting = submit(server, arguments(steps=40)), submit(server)
    wait_until_runs(server, running)
    server.restart()
    after = server.call("GET", done["response_url"])
    assert (after.status_code, after.json()) == (200, before.json())
    url = after.json()["images"][0]["url"]
    assert server.call("GET", url).headers["content-type"] == "image/png"
    for told in (running, waiting):
        assert follow(server, told)[1].status_code == 200
    script = "said = fal_client.status(APP, EXTRA, with_logs=True).logs"
    lines = [log["message"] for log in python_client(script, server, running["request_id"])]
    assert lines[-40:] == [f"step {k} of 40" for k in range(1, 41)]
