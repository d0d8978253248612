"""The fal nodes in a real ComfyUI: runs, cancels, progress and the journal, against a fake fal."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import signal
import time

import numpy as np
import pytest
import requests
from comfy_scene import (
    BOX,
    REACH,
    collect,
    error_of,
    fill_on_fal,
    fills_on_fal,
    put_scene,
    scene,
    succeeded,
)
from comfy_server import QUEUE_URL, ComfyUI, running
from comfy_socket import LINE, listening
from fakes import fal_calls, fal_faults
from fakes.fal_jobs import RUNNING
from fakes.fal_painter import seed_colour
from fakes.fal_server import FalServer
from PIL import Image

pytestmark = pytest.mark.comfy

SILENCE = 60.0  # seconds for which fal keeps an answer back
AT_ONCE = 10.0  # seconds from Interrupt to the end, on a busy machine: nothing was waited for
SEEDS = itertools.count(101)  # no two jobs alike, for the journal would answer the second


@pytest.fixture(scope="module", autouse=True)
def picture(comfyui: ComfyUI) -> None:
    put_scene(comfyui.folder)


def test_a_fill_on_fal_sends_the_crop_and_changes_nothing_outside_the_mask(
    comfyui: ComfyUI, fal: FalServer
) -> None:
    seed = next(SEEDS)
    run = succeeded(comfyui, fill_on_fal(seed))
    [text], [shown] = run.outputs["proof"]["text"], run.outputs["save"]["images"]
    sent = json.loads(fal.calls("submit")[0].body)
    crop = opened(sent["image_url"])
    place = re.search(r"crop 1 at x (\d+), y (\d+): (\d+)x(\d+), seen at \3x\4 ", text)
    assert place is not None, text
    left, top, width, height = map(int, place.groups())
    source = scene()
    assert np.array_equal(crop, source[top : top + height, left : left + width])
    assert crop.size < source.size / 5
    assert [call.phase for call in fal.requests if call.body] == ["submit"]

    assert "largest change outside the blend 0," in text
    after = np.asarray(comfyui.picture(shown)).astype(int)
    x, y, w, h = BOX
    near = np.zeros(source.shape[:2], bool)
    near[y - REACH : y + h + REACH, x - REACH : x + w + REACH] = True
    assert np.array_equal(after[~near], source[~near])
    assert np.abs(after[y : y + h, x : x + w] - seed_colour(seed)).mean() < 8

    [request_id] = fal.jobs
    assert f"request {request_id}" in text
    assert re.search(r"cost: about \$0\.\d{3}; about \$\d+\.\d{3} this session", text)


def opened(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("state", "silent", "stops"),
    [
        pytest.param("queued", False, True, id="queued"),
        pytest.param("queued", True, True, id="queued, while fal keeps an answer back"),
        pytest.param("running", False, True, id="running"),
        pytest.param("running", False, False, id="running to its end"),
    ],
)
def test_an_interrupt_reaches_the_job_at_once_and_the_next_run_works(
    comfyui: ComfyUI, fal: FalServer, state: str, silent: bool, stops: bool
) -> None:
    prompt = fill_on_fal(next(SEEDS))
    fal.hold(state)
    fal.cancel_stops_running = stops
    with listening(comfyui) as ear:
        prompt_id = comfyui.queue(prompt, ear.client_id)
        ear.line("in queue" if state == "queued" else "running")
        if silent:
            asked = len(fal.calls("status"))
            fal.fail("status", fal_faults.silence(SILENCE))
            comfyui.wait(lambda: len(fal.calls("status")) > asked, 20)
        pressed = time.monotonic()
        comfyui.post("/interrupt", {})
        end = ear.end_of(prompt_id)
    [cancel] = fal.calls("cancel")
    assert end.name == "execution_interrupted"
    assert end.data["node_id"] == "fill"
    assert cancel.at - pressed < AT_ONCE
    assert end.at - pressed < AT_ONCE
    fal.release()
    succeeded(comfyui, prompt)
    # What was cancelled is sent again; what ran on all the same is paid for, and fetched.
    assert len(fal.calls("submit")) == (2 if stops else 1)
    assert fal.paid == 1


def test_two_nodes_work_side_by_side_and_comfyui_goes_on_answering(
    comfyui: ComfyUI, fal: FalServer
) -> None:
    fal.hold("running")
    with listening(comfyui) as ear:
        prompt_id = comfyui.queue(fills_on_fal(next(SEEDS), next(SEEDS)), ear.client_id)
        comfyui.wait(lambda: both_run(fal), 20)
        for _ in range(15):
            assert comfyui.get("/queue")["queue_running"]
        assert both_run(fal), "it answered while both jobs were held"
        fal.release()
        assert ear.end_of(prompt_id).name == "execution_success"
    assert fal.paid == 2


def both_run(fal: FalServer) -> bool:
    return [job.state for job in fal.jobs.values()] == [RUNNING] * 2


def test_an_interrupt_reaches_the_jobs_of_both_nodes(comfyui: ComfyUI, fal: FalServer) -> None:
    fal.hold("running")
    with listening(comfyui) as ear:
        prompt_id = comfyui.queue(fills_on_fal(next(SEEDS), next(SEEDS)), ear.client_id)
        comfyui.wait(lambda: both_run(fal), 20)
        pressed = time.monotonic()
        comfyui.post("/interrupt", {})
        assert ear.end_of(prompt_id).name == "execution_interrupted"
    comfyui.wait(lambda: not comfyui.get("/queue")["queue_running"], 5)
    assert len(fal.calls("cancel")) == 2
    assert all(job.cancelled for job in fal.jobs.values())
    assert all(cancel.at - pressed < AT_ONCE for cancel in fal.calls("cancel"))
    fal.release()
    succeeded(comfyui, fill_on_fal(next(SEEDS)))


def test_cost_queue_position_log_and_seconds_are_shown_on_the_node_they_belong_to(
    comfyui: ComfyUI, fal: FalServer
) -> None:
    fal.hold("queued")
    fal.run_seconds = 1.5
    fal.next_job(fal_faults.logs(["loading weights", "painting"]), times=2)
    with listening(comfyui) as ear:
        seeds = [next(SEEDS), next(SEEDS)]
        prompt_id = comfyui.queue(fills_on_fal(*seeds), ear.client_id)
        ear.line("in queue, position 0")
        ear.line("in queue, position 1")
        fal.release()
        assert ear.end_of(prompt_id).name == "execution_success"
    for position, job in enumerate(fal.jobs.values()):
        lines = ear.lines(str(job.arguments["seed"]))
        assert re.fullmatch(r"fal: .*0\.\d\d MP, about \$0\.\d{3}", lines[0]), lines
        assert any(re.fullmatch(rf"in queue, position {position}, \d+ s", line) for line in lines)
        assert any(re.fullmatch(r"running, \d+ s: loading weights", line) for line in lines)
        assert any(re.fullmatch(r"running, [12] s: painting", line) for line in lines)
        assert re.match(r"cost: about \$0\.\d{3}; about", lines[-1]), lines
    nodes = {message.data[0] for message in ear.messages if message.name == LINE}
    assert nodes == set(map(str, seeds))


def test_collect_gives_the_crop_of_a_job_that_this_comfyui_sent(
    comfyui: ComfyUI, fal: FalServer
) -> None:
    succeeded(comfyui, fill_on_fal(next(SEEDS)))
    [request_id] = fal.jobs
    run = succeeded(comfyui, collect(request_id))
    [shown], [text] = run.outputs["shown"]["images"], run.outputs["said"]["text"]
    sent = opened(json.loads(fal.calls("submit")[0].body)["image_url"])
    assert np.asarray(comfyui.picture(shown)).shape == sent.shape
    assert request_id in text and "from cache" in text and "cost: $0" in text
    assert len(fal.calls("submit")) == 1


def test_collect_fetches_a_job_that_something_else_sent(comfyui: ComfyUI, fal: FalServer) -> None:
    body = fal_calls.arguments((320, 240))
    headers = {"Authorization": f"Key {fal.key}"}
    requests.post(f"{fal.url}/fal-ai/onereward", json=body, headers=headers, timeout=5)
    [request_id] = fal.jobs
    run = succeeded(comfyui, collect(f" {request_id}\n"))
    [shown], [text] = run.outputs["shown"]["images"], run.outputs["said"]["text"]
    assert comfyui.picture(shown).size == (320, 240)
    assert request_id in text
    assert len(fal.calls("submit")) == 1


@pytest.mark.parametrize("nonsense", ["../../x", "", "a b", "x?y=1", "x/../y", "%2e%2e"])
def test_collect_refuses_what_can_be_no_request_id_and_asks_nobody(
    comfyui: ComfyUI, fal: FalServer, nonsense: str
) -> None:
    said = error_of(comfyui.run(collect(nonsense)))
    assert "InputError" in said.split(":")[0]
    assert f'"{nonsense}" is no request id' in said
    assert fal.requests == []


def test_another_process_on_the_same_folder_pays_for_no_job_twice(
    comfyui: ComfyUI, fal: FalServer
) -> None:
    paid, cut_short = fill_on_fal(next(SEEDS)), fill_on_fal(next(SEEDS))
    succeeded(comfyui, paid)
    variables = {"FAL_KEY": fal.key, QUEUE_URL: fal.url}
    with running(comfyui.folder, variables=variables) as restarted:
        [text] = succeeded(restarted, paid).outputs["proof"]["text"]
        assert "from cache" in text and "cost: $0, from cache;" in text
        assert len(fal.calls("submit")) == 1
        fal.hold("running")
        asked = len(fal.calls("status"))
        restarted.queue(cut_short)
        # Asking about a job begins when it is written down.
        comfyui.wait(lambda: len(fal.calls("status")) > asked, 20)
        os.killpg(restarted.process.pid, signal.SIGKILL)
    fal.release()
    [text] = succeeded(comfyui, cut_short).outputs["proof"]["text"]
    assert list(fal.jobs)[1] in text and "resumed" in text
    assert len(fal.calls("submit")) == 2
    assert fal.paid == 2
