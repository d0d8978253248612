"""The server, held to fal's protocol by fal's own JavaScript client, led to it in three ways."""

from __future__ import annotations

import hashlib

import pytest
from fakes.live_server import ENDPOINT, LiveServer
from fakes.official_clients import javascript_client, why_no_javascript

pytestmark = pytest.mark.skipif(bool(why_no_javascript()), reason=why_no_javascript())

DOWNLOAD = "application/octet-stream"  # what is no picture is not for a browser to show
each_way = pytest.mark.parametrize("way", ["middleware", "proxy", "fetch"])


@pytest.fixture
def server(plain: LiveServer) -> LiveServer:
    return plain


@each_way
def test_subscribe_tells_every_step_once(server: LiveServer, way: str) -> None:
    said = javascript_client("subscribe", way, server, more={"num_inference_steps": 8})
    for told in said["polling"], said["streaming"]:
        states = told["states"]
        assert states[-1] == "COMPLETED" and "IN_PROGRESS" in states
        assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
        steps = [line for line in told["lines"] if line.startswith("step ")]
        assert steps == [f"step {k} of 8" for k in range(1, 9)]
        assert told["data"]["seed"] == 5
        (image,) = told["data"]["images"]
        assert len(server.call("GET", image["url"]).content) == image["file_size"]
        status = server.call("GET", f"/{ENDPOINT}/requests/{told['requestId']}/status")
        assert status.json()["request_id"] == told["requestId"]
    assert said["run"]["data"]["images"][0]["width"] == 256 and said["run"]["requestId"]


@each_way
def test_files_are_uploaded_and_used_as_input(server: LiveServer, way: str) -> None:
    said = javascript_client("uploads", way, server)
    text = hashlib.sha256(b"some text").hexdigest()
    assert (said["stored"]["type"], said["stored"]["sha256"]) == (DOWNLOAD, text)
    assert said["stored"]["url"].startswith(server.url + "/files/")
    assert said["different"] == 1


def test_a_file_of_more_than_90_mib_goes_in_parts(server: LiveServer) -> None:
    said = javascript_client("large", "fetch", server)
    assert said["size"] > 90 << 20
    assert (said["stored"]["type"], said["stored"]["sha256"]) == (DOWNLOAD, said["sha256"])


@each_way
def test_jobs_are_cancelled_in_the_queue_and_while_they_run(server: LiveServer, way: str) -> None:
    said = javascript_client("cancel", way, server)
    assert said["position"] == 0
    for end in said["ends"]:
        status, result, again = end["status"], end["result"], end["again"]
        assert (status["status"], status["error_type"]) == ("COMPLETED", "client_cancelled")
        assert (result["name"], result["status"]) == ("ApiError", 499)
        assert result["body"]["error_type"] == "client_cancelled" and result["requestId"]
        assert (again["status"], again["body"]) == (400, {"status": "ALREADY_COMPLETED"})


@each_way
def test_a_failed_job_is_a_validation_error_with_fals_entries(server: LiveServer, way: str) -> None:
    for error in javascript_client("failed", way, server):
        assert (error["name"], error["status"]) == ("ValidationError", 422)
        assert error["requestId"] and error["fields"] == error["body"]["detail"]
        mask, number = sorted(error["fields"], key=lambda one: str(one["loc"]))
        assert (mask["loc"], mask["type"]) == (["body", "mask_url"], "missing")
        assert (number["loc"], number["type"]) == (["body", "num_images"], "greater_than_equal")
        assert number["ctx"] == {"ge": 1} and number["input"] == 0


@each_way
def test_refusals_are_api_errors_with_the_servers_body(server: LiveServer, way: str) -> None:
    said = javascript_client("refused", way, server)
    assert all(error["name"] == "ApiError" for error in said.values())
    assert [said[name]["status"] for name in ("key", "upload")] == [401, 401]
    for name in ("status", "result", "cancel", "stream"):
        assert (said[name]["status"], said[name]["body"]) == (404, {"status": "NOT_FOUND"}), name
    assert said["app"]["status"] == 404 and "not found" in said["app"]["body"]["detail"]
    assert all(error["requestId"] for error in said.values())


def test_a_job_that_cannot_start_in_time_is_given_up_and_not_sent_again(server: LiveServer) -> None:
    said = javascript_client("late", "middleware", server)
    assert (said["late"]["status"], said["late"]["timeoutType"]) == (504, "user")
    assert said["late"]["body"]["error_type"] == "request_timeout"
    assert said["seconds"] < 15
