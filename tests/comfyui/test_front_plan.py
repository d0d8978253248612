"""The plan in the real front end: the picture with its crops, and the frame of Extend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_browser import FrontEnd, each_front_end
from comfy_frame import box, drag, handle
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, expect

pytestmark = [pytest.mark.comfy, pytest.mark.browser, each_front_end]

# A bare page would do for the views; on ComfyUI's own they also get its style. `scale` stands for
# the zoom of the graph, which both renderers make by a transform.
MOUNT = """async ([module, name, scale]) => {
    const { [name]: View } = await import(`/extensions/onereward/js/plan/${module}`);
    document.querySelector("#test-view")?.remove();
    const box = document.createElement("div");
    box.id = "test-view";
    box.style = `position: fixed; left: 300px; top: 120px; z-index: 9999; width: 560px;
        height: 460px; transform-origin: 0 0; transform: scale(${scale}); background: #353535`;
    const said = [];
    const view = new View({ onChange: text => said.push(text) });
    box.append(view.element);
    document.body.append(box);
    box.view = view;
    box.said = said;
}"""
SHOW = """async ([body, picture]) => {
    const { postJson } = await import("/extensions/onereward/js/lib/server.mjs");
    const { pictureUrl } = await import("/extensions/onereward/js/plan/sources.mjs");
    const view = document.querySelector("#test-view").view;
    try { view.show(await postJson("plan", body), picture ? pictureUrl(body) : null) }
    catch (error) { view.fail(error) }
}"""
SAID = "() => document.querySelector('#test-view').said"
EXAMPLE = {"filename": "example.png", "subfolder": "", "type": "input"}
PREVIEW = {"node": "OneRewardPreviewBackend", "inputs": {}}


@pytest.fixture(autouse=True)
def tidy(front: FrontEnd) -> Iterator[None]:
    yield
    front.page.evaluate("() => document.querySelector('#test-view')?.remove()")


def mount(front: FrontEnd, name: str, scale: float = 1.0) -> Locator:
    module = {"PlanView": "view.mjs", "ExtendFrame": "extend_frame.mjs"}[name]
    front.page.evaluate(MOUNT, [module, name, scale])
    return front.page.locator("#test-view")


def show(front: FrontEnd, **fields: Any) -> None:
    body = {"node_id": "1", "task": "fill", "image": EXAMPLE, "mask": None, "backend": PREVIEW}
    front.page.evaluate(SHOW, [body | fields, True])


def painted(front: FrontEnd, folder: Path) -> dict[str, str]:
    """example.png with two strokes of the MaskEditor on it, uploaded as the page does it."""
    alpha = Image.new("L", (768, 768), 255)
    draw = ImageDraw.Draw(alpha)
    draw.ellipse((60, 80, 180, 200), fill=0)
    draw.rectangle((560, 600, 700, 660), fill=0)
    picture = Image.linear_gradient("L").resize((768, 768)).convert("RGB")
    picture.putalpha(alpha)
    picture.save(folder / "painted.png")
    data = (folder / "painted.png").read_bytes()
    file = {"name": "painted.png", "mimeType": "image/png", "buffer": data}
    form: Any = {"image": file, "subfolder": "clipspace", "type": "input", "overwrite": "true"}
    reply = front.page.request.post(f"{front.url}/upload/image", multipart=form)
    said = reply.json()
    return {"filename": said["name"], "subfolder": said["subfolder"], "type": said["type"]}


def said(front: FrontEnd) -> list[str]:
    texts: list[str] = front.page.evaluate(SAID)
    return texts


def test_the_plan_lies_on_the_picture_where_it_was_painted(front: FrontEnd, tmp_path: Path) -> None:
    view = mount(front, "PlanView")
    file = painted(front, tmp_path)
    show(front, image=file, mask={**file, "channel": "alpha"})
    crops = view.locator(".or-plan-crop")
    expect(crops).to_have_text(["1", "2"])
    expect(view.locator(".or-plan-line")).to_have_text(
        re.compile(r"^2 crops, 0\.\d\d MP, 2 jobs on the preview model")
    )
    picture = box(view.locator(".or-plan-picture"))
    assert abs(picture["width"] - picture["height"]) < 1, "a square picture in a wide panel"
    first = box(crops.first)
    scale = picture["width"] / 768
    assert first["x"] <= picture["x"] + 60 * scale <= first["x"] + first["width"]
    crops.first.hover()
    expect(view.locator(".or-plan-detail")).to_have_text(re.compile(r"^Crop 1 at x \d+, y \d+: "))
    front.screenshot("plan")
    crops.last.focus()
    expect(view.locator(".or-plan-detail")).to_have_text(re.compile(r"^Crop 2 at "))
    assert front.complaints == []


def test_an_error_takes_the_plans_place_in_words(front: FrontEnd, tmp_path: Path) -> None:
    view = mount(front, "PlanView")
    file = painted(front, tmp_path)
    show(front, image=file, mask={**file, "channel": "alpha"})
    show(front, image=EXAMPLE, canvas={"grow": 9999})
    expect(view.locator(".or-error")).to_have_text(re.compile("^canvas: Grow 9999 is out of range"))
    assert view.locator(".or-plan-crop").count() == 0
    show(front, image=EXAMPLE, mask={**EXAMPLE, "channel": "alpha"})
    expect(view.locator(".or-plan-line")).to_have_text(re.compile("^The mask is empty"))
    assert view.locator(".or-error").count() == 0
    assert front.complaints == []


def test_the_frame_stands_where_the_numbers_say(front: FrontEnd) -> None:
    view = mount(front, "ExtendFrame")
    show(front, task="extend", extend_to="left 256, bottom 128")
    numbers = view.locator(".or-extend-numbers")
    expect(numbers).to_have_text("1024x896, 1.14:1 (left 256, bottom 128 px)")
    frame, source = box(view.locator(".or-extend-frame")), box(view.locator(".or-extend-source"))
    scale = source["width"] / 768
    assert abs(source["x"] - frame["x"] - 256 * scale) < 1.5
    assert abs(source["y"] - frame["y"]) < 1.5
    assert abs(frame["height"] - 896 * scale) < 1.5
    front.screenshot("the frame, two sides")
    show(front, task="extend", extend_to="16:9")
    expect(numbers).to_have_text("1365x768, 16:9 (left 298, right 299 px)")
    view.locator(".or-plan-crop").first.hover(position={"x": 20, "y": 30})
    expect(view.locator(".or-plan-detail")).to_have_text(re.compile("^Crop 1 at x 0, y 0: "))
    front.screenshot("the frame, 16 to 9")
    assert front.complaints == []


def test_a_drag_moves_the_frame_and_writes_the_numbers(front: FrontEnd) -> None:
    view = mount(front, "ExtendFrame", 0.8)
    show(front, task="extend", extend_to="right 64")
    right = handle(view, "right")
    px = 768 / box(view.locator(".or-extend-source"))["width"]
    drag(front, right, 192 / px, 40, release=False)
    numbers = view.locator(".or-extend-numbers")
    expect(numbers).to_have_text("1024x768, 4:3 (right 256 px)")
    assert said(front) == [], "only a release is told"
    front.screenshot("the frame, dragged")
    front.page.mouse.up()
    assert said(front) == ["right 256"]
    assert right.get_attribute("aria-valuenow") == "256"
    show(front, task="extend", extend_to=said(front)[-1])
    expect(numbers).to_have_text("1024x768, 4:3 (right 256 px)")
    px = 768 / box(view.locator(".or-extend-source"))["width"]
    front.page.keyboard.down("Alt")
    drag(front, handle(view, "top left"), -96 / px, -48 / px)
    front.page.keyboard.up("Alt")
    assert said(front)[-1] == "left 96, top 48, right 96, bottom 48"
    drag(front, handle(view, "bottom"), 0, -300)
    assert said(front)[-1] == "left 96, top 48, right 96", "never smaller than the picture"
    assert front.complaints == []


def test_the_frame_goes_by_keys_and_back_by_a_double_click(front: FrontEnd) -> None:
    view = mount(front, "ExtendFrame")
    show(front, task="extend", extend_to="left 100")
    handle(view, "left").focus()
    front.page.keyboard.press("ArrowLeft")
    assert said(front) == ["left 112"], "to the next multiple of 8"
    front.page.keyboard.press("Shift+ArrowLeft")
    front.page.keyboard.press("ArrowUp")
    assert said(front)[1:] == ["left 176"], "a side has one axis"
    handle(view, "bottom right").focus()
    front.page.keyboard.press("ArrowDown")
    front.page.keyboard.press("ArrowRight")
    assert said(front)[-1] == "left 176, right 8, bottom 8"
    handle(view, "bottom right").dblclick()
    assert said(front)[-1] == "left 176"
    handle(view, "left").dblclick()
    assert said(front)[-1] == "768x768"
    show(front, task="extend", extend_to=said(front)[-1])
    expect(view.locator(".or-plan-line")).to_have_text(re.compile("has this shape already"))
    drag(front, handle(view, "left"), -60, 0, release=False)
    front.page.keyboard.press("Escape")
    front.page.mouse.up()
    assert said(front)[-1] == "768x768"
    expect(view.locator(".or-extend-numbers")).to_have_text("768x768, 1:1 (nothing added)")
    assert front.complaints == []
