"""The fake fal server, held to the protocol by the official client, and its own promises."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from fakes import fal_faults
from fakes.fal_calls import KEY, arguments, data_uri, follow, picture, submit
from fakes.fal_painter import DRIFT, seed_colour
from fakes.fal_server import ENDPOINT, FalServer
from PIL import Image

# The official client, unchanged


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def fal() -> Iterator[FalServer]:
    with FalServer() as server:
        yield server


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FalServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FalServer(tls=context) as server:
        yield server


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


PRELUDE = """
import json, sys, time, fal_client
APP, ARGUMENTS, EXTRA = json.load(sys.stdin)
def failure(call, *args):
    try:
        call(*args)
    except fal_client.FalClientHTTPError as error:
        return [error.status_code, error.message, error.error_type]
def wait_until_runs(handle):
    while not isinstance(handle.status(), fal_client.InProgress):
        time.sleep(0.01)
"""


def official(script: str, fal: FalServer, extra: object = None, ca_file: Path | None = None) -> Any:
    """What the script, which runs beside the official client, leaves in `said`."""
    host = fal.url.partition("//")[2]
    env = {**os.environ, "FAL_KEY": fal.key, "FAL_RUN_HOST": host, "FAL_QUEUE_RUN_HOST": host}
    env["NO_PROXY"] = "127.0.0.1"
    if ca_file is not None:
        env["SSL_CERT_FILE"] = str(ca_file)
    run = subprocess.run(
        [sys.executable, "-c", PRELUDE + script + "\nprint(json.dumps(said))"],
        input=json.dumps([ENDPOINT, arguments(), extra]),
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_official_client_subscribes_with_logs(secure: FalServer, ca_file: Path) -> None:
    secure.run_seconds = 0.5
    secure.next_job(fal_faults.logs(["loading", "painting"]))
    script = """
states, lines = [], []
def update(status):
    states.append(type(status).__name__)
    lines.extend(log["message"] for log in (getattr(status, "logs", None) or [])[len(lines):])
result = fal_client.subscribe(APP, ARGUMENTS, with_logs=True, on_queue_update=update)
said = [states, lines, result]
"""
    states, lines, result = official(script, secure, ca_file=ca_file)
    assert states[-2:] == ["InProgress", "Completed"]
    assert lines == ["loading", "painting"]
    assert result["seed"] == 5 and result["images"][0]["width"] == 64
    assert secure.calls("submit")[0].headers["user-agent"].startswith("fal-client/1.0.3")
    # The client asks once more, without logs, before it fetches the result.
    *asked, last = (call.query["logs"] for call in secure.calls("status"))
    assert set(asked) == {"true"} and last == "false"
    assert secure.paid == 1


def test_the_official_client_raises_what_a_failed_job_says(
    secure: FalServer, ca_file: Path
) -> None:
    secure.next_job(fal_faults.content_policy())
    secure.next_job(fal_faults.platform_error(503, "runner_disconnected"))
    script = "said = [failure(fal_client.subscribe, APP, ARGUMENTS) for _ in range(2)]"
    model, platform = official(script, secure, ca_file=ca_file)
    assert model[0] == 422
    assert model[1][0]["type"] == "content_policy_violation" and model[1][0]["input"] == "a dog"
    assert platform == [503, "Runner disconnected", "runner_disconnected"]
    assert (len(secure.jobs), secure.paid) == (2, 0)


def test_the_official_client_cancels_a_queued_job(secure: FalServer, ca_file: Path) -> None:
    secure.hold()
    script = """
first, handle = fal_client.submit(APP, ARGUMENTS), fal_client.submit(APP, ARGUMENTS)
before = handle.status()
handle.cancel()
after = handle.status()
said = [before.position, after.error_type, failure(handle.get), failure(handle.cancel)]
"""
    position, kind, result, again = official(script, secure, ca_file=ca_file)
    assert (position, kind) == (1, "client_cancelled")
    assert result == [499, "Request was cancelled", "client_cancelled"]
    assert again[0] == 400 and json.loads(again[1]) == {"status": "ALREADY_COMPLETED"}
    assert [job.cancelled for job in secure.jobs.values()] == [False, True]


@pytest.mark.parametrize("stops", [False, True])
def test_the_official_client_cancels_a_running_job(
    secure: FalServer, ca_file: Path, stops: bool
) -> None:
    secure.run_seconds, secure.cancel_stops_running = 1.0, stops
    script = """
handle = fal_client.submit(APP, ARGUMENTS)
wait_until_runs(handle)
handle.cancel()
said = failure(handle.get)
"""
    failure = official(script, secure, ca_file=ca_file)
    assert failure == ([499, "Request was cancelled", "client_cancelled"] if stops else None)
    (job,) = secure.jobs.values()
    assert job.cancelled and job.finished and job.billed is not stops


def test_the_official_client_finds_a_job_by_its_id_until_it_expires(
    secure: FalServer, ca_file: Path
) -> None:
    script = """
id = fal_client.submit(APP, ARGUMENTS).request_id
found = fal_client.result(APP, id)["seed"]
too_late = failure(fal_client.cancel, APP, id)
said = [id, found, too_late, failure(fal_client.status, APP, "unknown")]
"""
    request_id, found, too_late, unknown = official(script, secure, ca_file=ca_file)
    assert found == 5 and request_id in secure.jobs
    assert too_late[0] == 400
    assert unknown[0] == 404 and json.loads(unknown[1]) == {"status": "NOT_FOUND"}


def test_the_official_client_uploads_and_uses_the_file(fal: FalServer) -> None:
    script = """
import base64
client, url = fal_client.client, EXTRA
client.QUEUE_URL_FORMAT = client.RUN_URL_FORMAT = url + "/"
client.REST_URL = client.CDN_URL = url
png = base64.b64decode(ARGUMENTS["image_url"].partition(",")[2])
ARGUMENTS["image_url"] = fal_client.upload(png, "image/png", "picture.png")
second = fal_client.upload(png, "image/png")
said = [fal_client.subscribe(APP, ARGUMENTS), second != ARGUMENTS["image_url"]]
"""
    result, differ = official(script, fal, fal.url)
    assert differ and result["images"][0]["url"].startswith(fal.url + "/files/")
    phases = [r.phase for r in fal.requests]
    assert phases[:4] == ["token", "upload", "upload", "submit"]
    assert fal.calls("upload")[0].headers["x-fal-file-name"] == "picture.png"


def test_the_official_client_is_refused_with_a_wrong_key(secure: FalServer, ca_file: Path) -> None:
    script = """
said = failure(fal_client.SyncClient(key="id:wrong").subscribe, APP, ARGUMENTS)
"""
    assert official(script, secure, ca_file=ca_file)[0] == 401
    assert secure.jobs == {}


# What comes out


def test_the_mask_takes_the_seeds_colour_and_all_else_drifts(fal: FalServer) -> None:
    _, result = follow(submit(fal, num_images=2))
    for number in (0, 1):
        painted = picture(result, number)
        assert painted.size == (64, 48)
        assert painted.getpixel((8, 8)) == painted.getpixel((23, 23)) == seed_colour(5 + number)
        assert painted.getpixel((7, 8)) == painted.getpixel((24, 24)) == (90 + DRIFT,) * 3
    assert result.headers["x-fal-billable-units"] == str(2 * 64 * 48 / 1e6)
    assert result.headers["x-fal-request-id"] in fal.jobs


def test_the_answer_is_a_jpeg_with_a_random_seed_unless_asked_otherwise(fal: FalServer) -> None:
    told = [submit(fal, seed=None, output_format="jpeg", sync_mode=sync) for sync in (True, False)]
    inline, linked = (follow(one)[1].json() for one in told)
    assert inline["images"][0]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert linked["images"][0]["content_type"] == "image/jpeg"
    assert inline["seed"] != linked["seed"]


@pytest.mark.parametrize(
    ("wrong", "name", "kind"),
    [
        ({"mask_url": "data:image/png;base64,AAAA"}, "mask_url", "image_load_error"),
        ({"image_url": "http://127.0.0.1:1/a.png"}, "image_url", "file_download_error"),
        ({"image_url": data_uri(Image.new("RGB", (9, 9)))}, "mask_url", "value_error"),
        ({"num_images": 0}, "num_images", "greater_than_equal"),
        ({"seed": "5"}, "seed", "int_type"),
        ({"output_format": "webp"}, "output_format", "literal_error"),
    ],
)
def test_a_wrong_input_is_accepted_and_its_422_comes_with_the_result(
    fal: FalServer, wrong: dict[str, Any], name: str, kind: str
) -> None:
    seen, result = follow(submit(fal, **wrong))
    assert seen[-1]["error"] == "Invalid status code: 422"
    assert result.status_code == 422
    (entry,) = result.json()["detail"]
    assert (entry["loc"], entry["type"]) == (["body", name], kind)
    assert fal.paid == 0


def test_a_missing_field_says_so_the_way_pydantic_does(fal: FalServer) -> None:
    body = {"image_url": arguments()["image_url"]}
    told = requests.post(f"{fal.url}/{ENDPOINT}", json=body, headers=KEY, timeout=5).json()
    (entry,) = follow(told)[1].json()["detail"]
    assert entry["loc"] == ["body", "mask_url"] and entry["type"] == "missing"
    assert entry["input"] == body


# Queue, keys and storage


def test_the_slots_run_in_order_and_the_others_know_their_place() -> None:
    with FalServer(slots=1) as fal:
        fal.hold("running")
        told = [submit(fal) for _ in range(3)]
        wait_for_state(fal, told[0], "IN_PROGRESS")
        assert [status(one).get("queue_position") for one in told] == [None, 0, 1]
        assert requests.get(told[0]["response_url"], headers=KEY, timeout=5).status_code == 400
        fal.release()
        assert [follow(one)[1].status_code for one in told] == [200] * 3
        assert fal.paid == 3
        starts = [job.since for job in fal.jobs.values()]
        assert starts == sorted(starts)


def test_held_jobs_stay_queued_and_a_forgotten_one_is_not_found(fal: FalServer) -> None:
    fal.hold()
    told = submit(fal)
    time.sleep(0.1)
    assert status(told)["status"] == "IN_QUEUE"
    fal.release()
    assert follow(told)[1].status_code == 200
    fal.forget(told["request_id"])
    for url in (told["status_url"], told["response_url"]):
        gone = requests.get(url, headers=KEY, timeout=5)
        assert (gone.status_code, gone.json()) == (404, {"status": "NOT_FOUND"})
    assert fal.paid == 1


def test_the_seconds_in_queue_and_at_work_may_change_under_a_waiting_job(fal: FalServer) -> None:
    fal.queue_seconds = fal.run_seconds = 60
    told = submit(fal)
    assert status(told)["status"] == "IN_QUEUE"
    fal.queue_seconds = 0
    wait_for_state(fal, told, "IN_PROGRESS")
    fal.run_seconds = 0
    assert follow(told)[1].status_code == 200


def test_the_key_is_asked_for_everywhere_but_at_files_and_presigned_urls(fal: FalServer) -> None:
    told = submit(fal)
    file = follow(told)[1].json()["images"][0]["url"]
    initiate = fal.url + "/storage/upload/initiate?storage_type=fal-cdn-v3"
    for method, url in (
        ("POST", f"{fal.url}/{ENDPOINT}"),
        ("GET", told["status_url"]),
        ("GET", told["response_url"]),
        ("PUT", told["cancel_url"]),
        ("POST", initiate),
        ("POST", fal.url + "/storage/auth/token"),
        ("POST", fal.url + "/files/upload"),
        ("GET", fal.url + "/v1/models/pricing"),
    ):
        answer = requests.request(method, url, timeout=5)
        assert answer.status_code == 401 and "x-fal-request-id" in answer.headers, url
    urls = requests.post(initiate, json={"content_type": "image/png"}, headers=KEY, timeout=5)
    urls = urls.json()
    put = requests.put(urls["upload_url"], b"abc", headers={"Content-Type": "x/y"}, timeout=5)
    assert put.status_code == 200
    back = requests.get(urls["file_url"], timeout=5)
    assert (back.content, back.headers["content-type"]) == (b"abc", "x/y")
    assert fal.leaks == []
    requests.get(file, headers=KEY, timeout=5)
    assert [leak.phase for leak in fal.leaks] == ["download"]


def test_prices_and_unknown_endpoints(fal: FalServer) -> None:
    url = f"{fal.url}/v1/models/pricing?endpoint_id={ENDPOINT},fal-ai/other"
    (price,) = requests.get(url, headers=KEY, timeout=5).json()["prices"]
    assert (price["endpoint_id"], price["unit_price"]) == (ENDPOINT, 0.035)
    assert (price["unit"], price["currency"]) == ("megapixels", "USD")
    other = requests.post(f"{fal.url}/fal-ai/other", json={}, headers=KEY, timeout=5)
    assert other.status_code == 404 and other.json()["detail"] == "Path /fal-ai/other not found"
    assert other.headers["x-fal-billable-units"] == "0"


def test_a_stop_in_the_middle_of_everything_is_quick_and_leaves_no_thread() -> None:
    before = threading.enumerate()
    with FalServer() as fal, requests.Session() as session:
        fal.hold()
        submit(fal)
        fal.fail("pricing", fal_faults.silence(60))
        session.get(fal.url + "/files/none", timeout=5)  # stays open
        with pytest.raises(requests.ReadTimeout):
            requests.get(fal.url + "/v1/models/pricing", timeout=0.1)
        start = time.monotonic()
    assert time.monotonic() - start < 30  # half of the silence
    assert threading.enumerate() == before


def status(told: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(told["status_url"], headers=KEY, timeout=5).json()
    return answer


def wait_for_state(fal: FalServer, told: dict[str, Any], state: str) -> None:
    end = time.monotonic() + 5
    while fal.jobs[told["request_id"]].state != state:
        assert time.monotonic() < end
        time.sleep(0.005)
