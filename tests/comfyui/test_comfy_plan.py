"""POST /onereward/plan on a real ComfyUI: what an edit would do, told without running anything."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from comfy_graph import api_prompt, fill_example, load, task_node
from comfy_server import ComfyUI
from fakes.fal_server import FalServer
from PIL import Image, ImageDraw

pytestmark = pytest.mark.comfy

EXAMPLE = {"filename": "example.png", "subfolder": "", "type": "input"}
PREVIEW = {"node": "OneRewardPreviewBackend", "inputs": {}}
EXIF_ORIENTATION = 0x0112


def body(**fields: Any) -> dict[str, Any]:
    whole = {"node_id": "never run", "task": "fill", "image": EXAMPLE, "mask": None}
    return whole | {"canvas": None, "backend": PREVIEW, "steps": 28, "cfg": 4.0} | fields


def ask(comfyui: ComfyUI, **fields: Any) -> requests.Response:
    return requests.post(f"{comfyui.url}/onereward/plan", json=body(**fields), timeout=30)


def plan(comfyui: ComfyUI, **fields: Any) -> dict[str, Any]:
    reply = ask(comfyui, **fields)
    assert reply.status_code == 200, reply.text
    said: dict[str, Any] = reply.json()
    return said


def refused(comfyui: ComfyUI, status: int = 400, **fields: Any) -> tuple[str, str | None]:
    reply = ask(comfyui, **fields)
    assert reply.status_code == status, reply.text
    return reply.json()["error"], reply.json().get("input")


def upload(comfyui: ComfyUI, file: Path, name: str) -> dict[str, str]:
    """Put a file into the input folder, as the page does; what it is called there."""
    files = {"image": (name, file.read_bytes())}
    data = {"subfolder": "clipspace", "type": "input"}
    reply = requests.post(f"{comfyui.url}/upload/image", files=files, data=data, timeout=30)
    said = reply.json()
    return {"filename": said["name"], "subfolder": said["subfolder"], "type": said["type"]}


def painted(
    comfyui: ComfyUI, folder: Path, size: tuple[int, int] = (768, 768),
    box: tuple[int, int, int, int] = (100, 120, 200, 180),
) -> dict[str, str]:  # fmt: skip
    """What the MaskEditor saves: the picture, transparent where it was painted."""
    alpha = Image.new("L", size, 255)
    ImageDraw.Draw(alpha).rectangle(box, fill=0)
    picture = Image.new("RGB", size, (90, 120, 80))
    picture.putalpha(alpha)
    file = folder / "painted.png"
    picture.save(file)
    return upload(comfyui, file, f"painted-{uuid.uuid4().hex}.png")


def test_a_painted_mask_is_planned_for(comfyui: ComfyUI, tmp_path: Path) -> None:
    file = painted(comfyui, tmp_path)
    said = plan(comfyui, image=file, mask={**file, "channel": "alpha"})
    assert said["size"] == [768, 768] and said["source"] == [0, 0, 768, 768]
    [crop] = said["crops"]
    x, y, width, height = crop["box"]
    assert x <= 100 and y <= 120 and x + width >= 201 and y + height >= 181
    assert said["kind"] == "preview" and said["jobs"] == 1 and said["price"] is None
    assert said["words"].startswith(f"1 crop, {said['megapixels']:.2f} MP, 1 job on the preview")
    assert said["overlay"].startswith("data:image/png;base64,")


def test_a_loaded_mask_is_read_by_its_channel(comfyui: ComfyUI, tmp_path: Path) -> None:
    picture = Image.new("RGB", (768, 768), (0, 0, 0))
    ImageDraw.Draw(picture).rectangle((50, 50, 90, 90), fill=(255, 0, 0))
    picture.save(tmp_path / "mask.png")
    file = upload(comfyui, tmp_path / "mask.png", f"mask-{uuid.uuid4().hex}.png")
    assert len(plan(comfyui, mask={**file, "channel": "red"})["crops"]) == 1
    for channel in ("blue", "alpha"):
        assert plan(comfyui, mask={**file, "channel": channel})["crops"] == []
    words, at_fault = refused(comfyui, mask={**file, "channel": "black"})
    assert 'no channel "black"' in words and at_fault == "mask"


@pytest.mark.parametrize("ending", ["webp", "tiff", "gif"])
def test_a_mask_is_read_in_the_formats_that_comfyui_loads(
    comfyui: ComfyUI, tmp_path: Path, ending: str
) -> None:
    picture = Image.new("RGBA", (768, 768), (90, 120, 80, 255))
    picture.paste((0, 0, 0, 0), (100, 120, 200, 180))
    picture.save(tmp_path / f"mask.{ending}")
    file = upload(comfyui, tmp_path / f"mask.{ending}", f"mask-{uuid.uuid4().hex}.{ending}")
    said = plan(comfyui, image=file, mask={**file, "channel": "alpha"})
    [crop] = said["crops"]
    x, y, width, height = crop["box"]
    assert x <= 100 and y <= 120 and x + width >= 200 and y + height >= 180


def test_a_picture_without_alpha_has_an_empty_mask(comfyui: ComfyUI) -> None:
    said = plan(comfyui, mask={**EXAMPLE, "channel": "alpha"})
    assert said["words"].startswith("The mask is empty") and said["crops"] == []


def test_a_mask_of_another_shape_is_refused(comfyui: ComfyUI, tmp_path: Path) -> None:
    other = {**painted(comfyui, tmp_path, (300, 200)), "channel": "alpha"}
    words, at_fault = refused(comfyui, mask=other)
    assert "Mask is 300x200, but the picture is 768x768" in words and at_fault == "mask"


def test_a_picture_that_its_camera_turned_is_planned_upright(
    comfyui: ComfyUI, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    for ending in ("jpg", "png", "webp", "tiff"):
        file = tmp_path / f"turned.{ending}"
        Image.new("RGB", (400, 300)).save(file, exif=exif)
        turned = upload(comfyui, file, f"turned-{uuid.uuid4().hex}.{ending}")
        said = plan(comfyui, task="extend", image=turned, extend_to="left 64")
        assert said["source"] == [64, 0, 300, 400], ending


@pytest.mark.parametrize("file", [
    {"filename": "../comfyui.log"}, {"filename": "/etc/passwd"}, {"filename": "a/../example.png"},
    {"filename": "example.png", "subfolder": ".."}, {"filename": "comfyui.log", "subfolder": "/"},
    {"filename": "fal_key", "subfolder": "../user/__onereward"}, {"filename": ""},
    {"filename": "example.png\0"}, {"filename": ["example.png"]},
    {"filename": "example.png", "type": "models"}, {"filename": "default", "type": "user"},
])  # fmt: skip
def test_no_file_outside_of_the_picture_folders_is_looked_at(
    comfyui: ComfyUI, file: dict[str, Any]
) -> None:
    words, at_fault = refused(comfyui, image={"subfolder": "", "type": "input", **file})
    assert at_fault == "image"
    assert "does not lie in" in words or "no folder" in words or "Use text" in words


def test_a_file_that_is_gone_or_no_picture_is_said(comfyui: ComfyUI) -> None:
    words, at_fault = refused(comfyui, image={**EXAMPLE, "filename": "gone.png"})
    assert 'There is no "gone.png" in ComfyUI\'s input folder' in words and at_fault == "image"
    (comfyui.folder / "input" / "words.png").write_text("no picture")
    words, at_fault = refused(comfyui, image={**EXAMPLE, "filename": "words.png"})
    assert "words.png is not a readable picture" in words and at_fault == "image"


def test_a_picture_beyond_the_limit_is_not_opened(comfyui: ComfyUI, tmp_path: Path) -> None:
    Image.new("1", (14000, 10000)).save(tmp_path / "huge.png")
    huge = upload(comfyui, tmp_path / "huge.png", f"huge-{uuid.uuid4().hex}.png")
    words, at_fault = refused(comfyui, image=huge)
    assert "14000x10000 pixels" in words and at_fault == "image"


@pytest.mark.parametrize(("to", "size"), [
    ("16:9", [1365, 768]), ("left 256, right 128", [1152, 768]), ("1.5x", [1152, 1152]),
    ("768x768", [768, 768]),
])  # fmt: skip
def test_an_extension_is_planned_from_its_picture_alone(
    comfyui: ComfyUI, to: str, size: list[int]
) -> None:
    said = plan(comfyui, task="extend", mask=None, extend_to=to, anchor="center", overlap=24)
    assert said["size"] == size and bool(said["crops"]) == (size != [768, 768])


@pytest.mark.parametrize(("fields", "named"), [
    ({"task": "paint"}, None), ({"task": None}, None), ({"steps": 0}, "steps"),
    ({"steps": "28"}, "steps"), ({"num_images": 17}, "num_images"), ({"cfg": True}, "cfg"),
    ({"image": "example.png"}, "image"), ({"canvas": {"grow": 9999}}, "canvas"),
    ({"canvas": {"target": "huge"}}, "canvas"), ({"canvas": {"clean": "yes"}}, "canvas"),
    ({"backend": {"node": "SaveImage"}}, "backend"), ({"backend": []}, "backend"),
    ({"backend": {"node": "OneRewardFalBackend", "inputs": {"server": "nowhere"}}}, "backend"),
    ({"backend": {"node": "OneRewardLocalBackend", "inputs": {"vae": "../x"}}}, "backend"),
    ({"task": "extend", "extend_to": "wide"}, "extend_to"),
])  # fmt: skip
def test_what_breaks_a_rule_names_its_input(
    comfyui: ComfyUI, fields: dict[str, Any], named: str | None
) -> None:
    words, at_fault = refused(comfyui, **{"mask": {**EXAMPLE, "channel": "alpha"}} | fields)
    assert words and at_fault == named


def test_what_another_node_makes_is_known_after_a_run(comfyui: ComfyUI) -> None:
    for field, other in (("image", {}), ("mask", {"image": EXAMPLE})):
        words, at_fault = refused(comfyui, 409, **{"image": None} | other)
        assert "after the first run" in words and at_fault == field


def test_a_run_makes_known_what_other_nodes_make_and_how_long_it_takes(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt = api_prompt(load(fill_example()), object_info)
    node = task_node(prompt)
    prompt[node]["inputs"]["steps"] = 2
    assert comfyui.run(prompt).status == "success"
    said = plan(comfyui, node_id=node, image=None, mask=None)
    assert said["size"] == [768, 768] and len(said["crops"]) == 1
    assert said["seconds"] > 0 and re.search(r", about \d+ (s|min)$", said["words"])


def test_another_sites_page_is_refused(comfyui: ComfyUI) -> None:
    url = f"{comfyui.url}/onereward/plan"
    plain = requests.post(url, data=json.dumps(body()), timeout=30)
    assert plain.status_code == 415 and "error" in plain.json()


def test_a_plan_for_fal_tells_the_price_and_sends_no_job(
    comfyui: ComfyUI, fal: FalServer, tmp_path: Path
) -> None:
    file = painted(comfyui, tmp_path)
    backend = {"node": "OneRewardFalBackend", "inputs": {"server": "fal", "run_cap": 0.01}}
    said = plan(
        comfyui, image=file, mask={**file, "channel": "alpha"}, backend=backend, num_images=3
    )
    expected = said["megapixels"] * 1.048576 * fal.unit_price
    assert said["kind"] == "fal" and said["jobs"] == 3
    assert said["price"] == pytest.approx(expected)
    assert f"3 jobs on fal, about ${expected:.3f}" in said["words"]
    assert any("run_cap of $0.01" in note for note in said["notes"])
    assert {request.method for request in fal.requests} <= {"GET"} and fal.jobs == {}


def test_what_runs_without_a_backend_is_said(comfyui: ComfyUI) -> None:
    said = plan(comfyui, task="extend", extend_to="16:9", backend=None)
    assert said["kind"] == "fal" and "because a key is set" in said["notes"][0]


def test_a_preset_goes_before_steps_and_cfg(comfyui: ComfyUI) -> None:
    assert plan(comfyui, task="extend", preset="fast (cfg 1)", steps=None)["jobs"] > 0


def test_a_plan_of_four_megapixels_is_there_at_once(comfyui: ComfyUI, tmp_path: Path) -> None:
    """In as long as it takes to read the picture ten times: twice to five times, on idle cores."""
    file = painted(comfyui, tmp_path, (2048, 2048), (300, 300, 1500, 1500))
    fields: dict[str, Any] = {"image": file, "mask": {**file, "channel": "alpha"}}
    plans, reads = [], []
    for grow in (20, 21, 22):  # none is known already
        plans.append(seconds_of(lambda: plan(comfyui, **fields, canvas={"grow": grow})))  # noqa: B023
        reads.append(seconds_of(lambda: Image.open(tmp_path / "painted.png").getextrema()))
    assert min(plans) < 10 * min(reads), (plans, reads)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
