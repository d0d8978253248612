"""The server, held to fal's protocol by fal's own Python client, unchanged, over TLS."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.live_server import SQUARE, LiveServer, arguments, follow, picture_of, submit
from fakes.official_clients import python_client
from PIL import Image, ImageChops, ImageStat

CANCELLED = [499, "Request was cancelled", "client_cancelled"]
RING = 8  # pixels beside the mask that the seam is hidden in


@pytest.fixture
def server(secure: LiveServer) -> LiveServer:
    return secure


@pytest.fixture(autouse=True)
def idle(server: LiveServer) -> Iterator[None]:
    """A test leaves no job behind, which the next one would have to wait for."""
    yield
    health = server.call("GET", "/health").json()
    assert (health["queued"], health["running"]) == (0, 0)


def steps(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("step ")]


def fetched(server: LiveServer, result: dict[str, Any]) -> Image.Image:
    """The result's only picture, got without a key."""
    (told,) = result["images"]
    answer = server.call("GET", told["url"], headers={"Authorization": None})
    assert answer.headers["content-type"] == told["content_type"] == "image/png"
    assert len(answer.content) == told["file_size"]
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (told["width"], told["height"])
    return picture


# A job that goes well


def test_subscribe_tells_every_step_and_fetches_the_result(server: LiveServer) -> None:
    script = """
states, lines = [], []
def update(status):
    states.append(type(status).__name__)
    lines.extend(log["message"] for log in (getattr(status, "logs", None) or [])[len(lines):])
result = fal_client.subscribe(APP, EXTRA, with_logs=True, on_queue_update=update, interval=0.02)
said = [states, lines, result]
"""
    body = arguments(steps=12)
    states, lines, result = python_client(script, server, body)
    assert states[-1] == "Completed" and "InProgress" in states
    assert states == sorted(states, key=["Queued", "InProgress", "Completed"].index)
    assert steps(lines) == [f"step {k} of 12" for k in range(1, 13)]
    assert (result["seed"], result["prompt"]) == (5, body["prompt"])
    assert result["has_nsfw_concepts"] == [False] and result["timings"]["inference"] > 0
    painted = fetched(server, result)
    changed = ImageChops.difference(painted, picture_of(body["image_url"])).convert("L")
    inside, outside = Image.new("L", changed.size), Image.new("L", changed.size, 255)
    inside.paste(255, SQUARE)
    outside.paste(0, SQUARE)
    drift = ImageStat.Stat(changed, outside).mean[0]
    assert ImageStat.Stat(changed, inside).mean[0] > 4 * drift


def test_a_picture_that_does_not_fit_the_model_stays_as_it_was_outside_of_the_mask(
    server: LiveServer,
) -> None:
    body = arguments(size=(250, 235))
    result = python_client("said = fal_client.subscribe(APP, EXTRA)", server, body)
    painted, source = fetched(server, result), picture_of(body["image_url"])
    assert painted.size == source.size
    changed = ImageChops.difference(painted, source).getbbox()
    left, top, right, bottom = SQUARE
    assert changed is not None
    assert changed[0] >= left - RING and changed[1] >= top - RING
    assert changed[2] <= right + RING and changed[3] <= bottom + RING
    assert changed[2] - changed[0] > (right - left) / 2


def test_the_asynchronous_client_follows_two_jobs_at_once(server: LiveServer) -> None:
    script = """
lines = {5: [], 6: []}
async def one(seed):
    def update(status):
        seen = [log["message"] for log in getattr(status, "logs", None) or []]
        lines[seed] = seen or lines[seed]
    return await fal_client.subscribe_async(
        APP, {**ARGUMENTS, "seed": seed}, with_logs=True, on_queue_update=update)
async def both():
    return await asyncio.gather(one(5), one(6))
said = [asyncio.run(both()), lines[5], lines[6]]
"""
    results, *lines = python_client(script, server)
    assert [result["seed"] for result in results] == [5, 6]
    assert [steps(one) for one in lines] == [["step 1 of 2", "step 2 of 2"]] * 2
    first, second = (fetched(server, result).tobytes() for result in results)
    assert first != second


def test_a_direct_run_makes_the_same_picture_as_the_queue(server: LiveServer) -> None:
    script = """
said = [fal_client.run(APP, ARGUMENTS), fal_client.subscribe(APP, ARGUMENTS),
        asyncio.run(fal_client.run_async(APP, ARGUMENTS))]
"""
    pictures = [fetched(server, result).tobytes() for result in python_client(script, server)]
    assert len(set(pictures)) == 1


def test_pictures_come_inside_the_result_if_so_asked(server: LiveServer) -> None:
    script = """
inside = fal_client.subscribe(APP, {**ARGUMENTS, "sync_mode": True})
said = [inside, fal_client.subscribe(APP, ARGUMENTS)]
"""
    inside, linked = python_client(script, server)
    (told,) = inside["images"]
    assert told["url"].startswith("data:image/png;base64,")
    assert picture_of(told["url"]).tobytes() == fetched(server, linked).tobytes()


def test_several_pictures_and_the_default_format(server: LiveServer) -> None:
    body = {**arguments(), "num_images": 2, "output_format": "jpeg", "seed": None}
    result = python_client("said = fal_client.subscribe(APP, EXTRA)", server, body)
    urls = [told["url"] for told in result["images"]]
    assert len(set(urls)) == 2 and result["has_nsfw_concepts"] == [False, False]
    for told in result["images"]:
        answer = server.call("GET", told["url"])
        assert told["content_type"] == answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (256, 256)


# A job that fails


WRONG: dict[str, tuple[str, Any]] = {
    "string_type": ("mask_url", None),
    "image_load_error": ("image_url", "data:image/png;base64,AAAA"),
    "file_download_error": ("mask_url", "http://127.0.0.1:1/mask.png"),
    "less_than_equal": ("num_images", 1000),
    "literal_error": ("output_format", "webp"),
}


def test_a_failed_job_says_why_in_the_queue_and_in_a_direct_run(server: LiveServer) -> None:
    script = """
said = []
for name, value in EXTRA:
    handle = fal_client.submit(APP, {**ARGUMENTS, name: value})
    queue, run = failure(handle.get), failure(fal_client.run, APP, {**ARGUMENTS, name: value})
    status = handle.status(with_logs=True)
    said.append([queue, run, type(status).__name__, status.error, status.error_type])
"""
    told = python_client(script, server, list(WRONG.values()))
    for (kind, (name, value)), (queue, run, *status) in zip(WRONG.items(), told, strict=True):
        code, (entry,), error_type = queue
        assert (code, error_type) == (422, None)
        assert (entry["loc"], entry["type"]) == (["body", name], kind)
        assert entry["msg"] and entry["url"].endswith(kind) and entry["input"] == value
        assert run[0] == 422 and run[1] == [entry]
        assert status == ["Completed", "Invalid status code: 422", None]


def test_a_missing_field_says_so_the_way_pydantic_does(server: LiveServer) -> None:
    script = """
del ARGUMENTS["mask_url"], ARGUMENTS["image_url"]
said = failure(fal_client.subscribe, APP, ARGUMENTS)
"""
    code, entries, _ = python_client(script, server)
    assert code == 422
    assert [(one["loc"], one["type"]) for one in entries] == [
        (["body", "image_url"], "missing"), (["body", "mask_url"], "missing"),
    ]  # fmt: skip
    assert entries[0]["input"]["prompt"] == "a red ball"


# Cancel


def test_a_queued_job_is_cancelled_at_once(server: LiveServer) -> None:
    script = """
first = running()
handles = [fal_client.submit(APP, ARGUMENTS) for _ in range(3)]
before = [handle.status().position for handle in handles]
handles[1].cancel()
after = handles[1].status()
said = [before, handles[2].status().position, after.error_type, failure(handles[1].get),
        failure(handles[1].cancel)]
for handle in (handles[0], handles[2], first):
    handle.cancel()
failure(first.get)
"""
    before, moved_up, kind, result, again = python_client(script, server)
    assert (before, moved_up, kind) == ([0, 1, 2], 1, "client_cancelled")
    assert result == CANCELLED
    assert again[0] == 400 and json.loads(again[1]) == {"status": "ALREADY_COMPLETED"}


def test_a_running_job_stops_within_a_step(server: LiveServer) -> None:
    script = """
handle = running()
while not handle.status(with_logs=True).logs:
    time.sleep(0.02)
start = time.monotonic()
handle.cancel()
result = failure(handle.get)
seconds = time.monotonic() - start
status = handle.status(with_logs=True)
following = fal_client.subscribe(APP, ARGUMENTS)["seed"]
said = [result, seconds, status.error_type, len(status.logs), following]
"""
    result, seconds, kind, lines, following = python_client(script, server)
    assert result == CANCELLED and kind == "client_cancelled"
    assert seconds < 15 and 0 < lines < 1000
    assert following == 5


def test_the_answers_to_a_cancel_are_fals(server: LiveServer) -> None:
    first = submit(server, arguments(steps=1000))
    second = submit(server)
    while server.call("GET", first["status_url"]).json()["status"] == "IN_QUEUE":
        pass
    answers = [server.call("PUT", told["cancel_url"]) for told in (second, first)]
    assert [(one.status_code, one.json()["status"]) for one in answers] == [
        (200, "OK"), (202, "CANCELLATION_REQUESTED"),
    ]  # fmt: skip
    assert all(follow(server, told)[1].status_code == 499 for told in (first, second))
    late = server.call("PUT", first["cancel_url"])
    assert (late.status_code, late.json()) == (400, {"status": "ALREADY_COMPLETED"})


def test_a_finished_job_cannot_be_cancelled_and_keeps_its_result(server: LiveServer) -> None:
    script = """
handle = fal_client.submit(APP, ARGUMENTS)
handle.get()
said = [failure(handle.cancel), handle.status().error_type, handle.get()["seed"]]
"""
    late, kind, seed = python_client(script, server)
    assert late[0] == 400 and json.loads(late[1]) == {"status": "ALREADY_COMPLETED"}
    assert (kind, seed) == (None, 5)


def test_the_clients_own_timeout_cancels_the_job(server: LiveServer) -> None:
    script = """
ids = []
try:
    fal_client.subscribe(APP, LONG, client_timeout=1.5, on_enqueue=ids.append)
except fal_client.FalClientTimeoutError:
    pass
handle = fal_client.SyncClient().get_handle(APP, ids[0])
said = failure(handle.get)
"""
    assert python_client(script, server) == CANCELLED
