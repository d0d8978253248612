"""The nodes on the pack's own server: a real ComfyUI, and beside it a real server over TLS whose
certificate only servers.json vouches for. The preview model paints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_scene import BOX, REACH, error_of, fill_on_fal, put_scene, scene, succeeded
from comfy_server import ComfyUI, Run, base_directory, running
from comfy_socket import Ear, listening
from fakes.live_server import ENDPOINT, LiveServer

pytestmark = pytest.mark.comfy

KEY, WRONG_KEY = "ONEREWARD_FAL_TEST_STUDIO_KEY", "ONEREWARD_FAL_TEST_WRONG_KEY"
NOBODYS = "0123456789abcdef:0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("studio"), tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, studio: LiveServer) -> Iterator[ComfyUI]:
    """A ComfyUI that knows the server by name, and no fal."""
    folder = base_directory(tmp_path_factory.mktemp("laptop") / "base")
    put_scene(folder)
    ours = folder / "user" / "__onereward"
    ours.mkdir()
    assert studio.ca_file is not None
    (ours / "studio.pem").write_bytes(studio.ca_file.read_bytes())
    entry = {"url": studio.url, "ca": "studio.pem"}
    entries = {"studio": entry | {"key_env": KEY}, "strange": entry | {"key_env": WRONG_KEY}}
    (ours / "servers.json").write_text(json.dumps(entries))
    with running(folder, variables={KEY: studio.key, WRONG_KEY: NOBODYS}) as server:
        yield server


def fill_at(server: str, seed: int, steps: int = 12, count: int = 1) -> dict[str, Any]:
    """Fill the box on that server, prove it and save it."""
    prompt = fill_on_fal(seed, server=server)
    prompt["fill"]["inputs"] |= {"steps": steps, "num_images": count}
    return prompt


def bar_of(ear: Ear) -> list[tuple[int, int]]:
    """How ComfyUI's bar of the fill node moved."""
    told = [m.data for m in ear.messages if m.name == "progress" and m.data["node"] == "fill"]
    return [(data["value"], data["max"]) for data in told]


def run(laptop: ComfyUI, ear: Ear, prompt: dict[str, Any]) -> Run:
    """A prompt from its start to its end, in the ear's presence."""
    prompt_id = laptop.queue(prompt, ear.client_id)
    ear.end_of(prompt_id)
    laptop.wait(lambda: bool(laptop.get(f"/history/{prompt_id}")), 10)
    return laptop.finished(prompt_id)


def unchanged(after: np.ndarray) -> bool:
    """Bit for bit the scene, outside the blend."""
    x, y, w, h = BOX
    near = np.zeros(after.shape[:2], bool)
    near[y - REACH : y + h + REACH, x - REACH : x + w + REACH] = True
    return bool((after[~near] == scene()[~near]).all())


def test_a_fill_at_the_studio_moves_the_bar_costs_nothing_and_changes_only_the_mask(
    laptop: ComfyUI, studio: LiveServer
) -> None:
    node = laptop.get("/object_info/OneRewardFalBackend")["OneRewardFalBackend"]
    assert '["fal", "studio", "strange"]' in json.dumps(node["input"]["required"]["server"])
    with listening(laptop) as ear:
        done = run(laptop, ear, fill_at("studio", seed=301, steps=48))
    assert done.status == "success", done.message("execution_error")
    [text], [shown] = done.outputs["proof"]["text"], done.outputs["save"]["images"]
    assert "largest change outside the blend 0," in text and "studio, 48 steps" in text
    assert "cost: free; $0 this session" in text
    after = np.asarray(laptop.picture(shown))
    x, y, w, h = BOX
    assert unchanged(after) and (after != scene())[y : y + h, x : x + w].mean() > 0.9

    values = [value for value, total in bar_of(ear) if total == 48]
    assert values == sorted(values) and values[-1] == 48
    assert len(set(values) - {0, 48}) >= 3
    lines = ear.lines("fill")
    assert lines[0].startswith("studio: 1 new job, ") and lines[0].endswith(", free")
    assert any(line.startswith("running, ") for line in lines)
    assert [line for line in lines if "step" in line] == []


def test_four_variations_are_four_pictures_on_one_bar(laptop: ComfyUI) -> None:
    with listening(laptop) as ear:
        done = run(laptop, ear, fill_at("studio", seed=310, steps=4, count=4))
    assert done.status == "success", done.message("execution_error")
    pictures = [np.asarray(laptop.picture(shown)) for shown in done.outputs["save"]["images"]]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert all(unchanged(picture) for picture in pictures)
    values = [value for value, total in bar_of(ear) if total == 16]
    assert values == sorted(values) and values[-1] == 16
    assert any(line.startswith("studio: 4 new jobs, ") for line in ear.lines("fill"))


def test_an_interrupt_stops_the_samplers_at_the_studio(laptop: ComfyUI, studio: LiveServer) -> None:
    before = {job["request_id"] for job in jobs_of(laptop)}
    with listening(laptop) as ear:
        prompt_id = laptop.queue(fill_at("studio", seed=320, steps=50, count=2), ear.client_id)
        ear.wait(lambda m: m.name == "progress" and m.data["value"] >= 2)
        laptop.post("/interrupt", {})
        assert ear.end_of(prompt_id).name == "execution_interrupted"
    laptop.wait(lambda: studio.call("GET", "/health").json()["running"] == 0, 20)
    jobs = [job for job in jobs_of(laptop) if job["request_id"] not in before]
    assert [job["state"] for job in jobs] == ["cancelled"] * 2
    for job in jobs:
        answer = studio.call("GET", f"/{ENDPOINT}/requests/{job['request_id']}")
        assert (answer.status_code, answer.json()["error_type"]) == (499, "client_cancelled")
    succeeded(laptop, fill_at("studio", seed=321, steps=2))


def jobs_of(laptop: ComfyUI) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = laptop.get("/onereward/journal")["jobs"]
    return jobs


def test_a_wrong_key_is_said_and_no_key_is_anywhere(laptop: ComfyUI, studio: LiveServer) -> None:
    with listening(laptop) as ear:
        said = error_of(run(laptop, ear, fill_at("strange", seed=330)))
    assert "CredentialsError" in said and "strange answered 401" in said
    assert "The key is not valid there; set another one." in said
    paths = ("/history", "/object_info", "/settings", "/onereward/status", "/onereward/journal")
    places = {path: json.dumps(laptop.get(path)).encode() for path in paths}
    places["websocket"] = b"\n".join(ear.raw)
    places |= {str(path): path.read_bytes() for path in files_of(laptop.folder)}
    assert any(name.endswith("journal.sqlite3") for name in places)
    assert b"onereward" in places[str(laptop.log)].lower()
    for half in [*studio.key.split(":"), *NOBODYS.split(":")]:
        assert len(half) > 4
        assert [name for name, data in places.items() if half.encode() in data] == []
    assert studio.key.split(":")[1] not in studio.errors


def files_of(folder: Path) -> Iterator[Path]:
    """Every file under a base directory but the pack's own."""
    for path in folder.rglob("*"):
        if path.is_file() and "custom_nodes" not in path.parts:
            yield path
