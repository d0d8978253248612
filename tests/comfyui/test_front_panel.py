"""The panel on a task node, in ComfyUI's real front ends: plan, progress, result, price, errors."""

from __future__ import annotations

import re
from typing import Any
from zlib import crc32

import pytest
from comfy_browser import FrontEnd
from comfy_frame import box, drag, handle
from comfy_graph import MUTED, Graph, fill_example, load, workflow_files
from fakes.fal_server import FalServer
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, expect

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

SELECTED = "() => Object.values(app.canvas.selected_nodes).map(node => node.title)"
EXTEND_TO = """() => app.graph.nodes.find(node => node.comfyClass === "OneRewardExtend")
    .widgets.find(widget => widget.name === "extend_to").value"""


def panel(front: FrontEnd) -> Locator:
    """The one panel of the open graph."""
    return front.page.locator(".or-panel")


def line(front: FrontEnd) -> Locator:
    return panel(front).locator(".or-line")


def tab(front: FrontEnd, name: str) -> Locator:
    return panel(front).get_by_role("tab", name=name)


def example(title: str) -> Graph:
    [path] = [path for path in workflow_files() if path.stem == title]
    return load(path)


def own_mask(graph: Graph, picture: str) -> Graph:
    """The Fill example on a picture of the user's own, with the mask painted into it."""
    by_type = {node["type"]: node for node in graph["nodes"]}
    by_type["LoadImage"]["widgets_values"] = [picture, "image"]
    image, mask = by_type["LoadImage"], by_type["MaskComposite"]
    image["outputs"][1]["links"], mask["outputs"][0]["links"] = mask["outputs"][0]["links"], []
    for link in graph["links"]:
        if link[1] == mask["id"]:
            link[1:3] = [image["id"], 1]
    return graph


def quick(graph: Graph) -> Graph:
    """The Fill example in two steps instead of 28."""
    for node in graph["nodes"]:
        if node["type"] == "OneRewardFill":
            at = node["widgets_values"].index(28)
            node["widgets_values"][at] = 2
    return graph


@pytest.fixture(scope="module")
def painted(front: FrontEnd) -> str:
    """A picture in the input folder with a mask in its alpha, as the mask editor leaves it."""
    image = Image.new("RGBA", (640, 480), (90, 140, 200, 255))
    ImageDraw.Draw(image).ellipse((240, 180, 400, 300), fill=(200, 60, 60, 0))
    image.save(front.server.folder / "input" / "painted.png")
    return "painted.png"


def test_the_plan_is_on_the_node_before_anything_runs(front: FrontEnd, painted: str) -> None:
    front.load(own_mask(load(fill_example()), painted))
    expect(panel(front)).to_contain_text("1 crop")
    expect(panel(front)).to_contain_text("preview model")
    expect(tab(front, "Plan")).to_have_attribute("aria-selected", "true")
    expect(tab(front, "Result")).to_be_disabled()
    front.fit_view()
    front.screenshot("panel, plan")
    assert front.complaints == []


def test_a_run_shows_steps_and_then_before_and_after(front: FrontEnd, painted: str) -> None:
    front.load(own_mask(load(fill_example()), painted))
    expect(panel(front)).to_contain_text("1 crop")
    front.set_widget("OneRewardFill", "prompt", f"a blue star, {front.label}")
    front.set_widget("OneRewardFill", "steps", 8)
    seen = front.page.evaluate_handle(
        """() => {
            const seen = new Set()
            const panel = document.querySelector(".or-panel")
            const line = panel.querySelector(".or-line")
            const look = () => {
                seen.add(line.textContent)
                if (panel.textContent.includes("step preview")) seen.add("step preview")
            }
            new MutationObserver(look).observe(panel,
                {subtree: true, childList: true, characterData: true, attributes: true})
            return seen
        }"""
    )
    name, detail = front.run()
    assert name == "execution_success", detail
    expect(line(front)).to_have_text(re.compile(r"^preview model: not OneReward, \d+\.\d s$"))
    told = front.page.evaluate("seen => [...seen]", seen)
    assert any(re.match(r"Step \d+ of 8, \d+ s$", text) for text in told), told
    assert "step preview" in told
    expect(tab(front, "Result")).to_have_attribute("aria-selected", "true")
    divider = panel(front).get_by_role("slider")
    expect(divider).to_have_attribute("aria-valuenow", "50")
    divider.focus()
    front.page.keyboard.press("ArrowLeft")
    expect(divider).to_have_attribute("aria-valuenow", "48")
    front.fit_view()
    front.screenshot("panel, result")
    assert front.badges("OneRewardFill")[-1] == "preview model: not OneReward"
    assert front.complaints == []


def test_the_tabs_change_by_mouse_and_keyboard(front: FrontEnd, painted: str) -> None:
    front.load(quick(own_mask(load(fill_example()), painted)))
    assert front.run()[0] == "execution_success"
    expect(tab(front, "Result")).to_have_attribute("aria-selected", "true")
    tab(front, "Plan").click()
    expect(panel(front).locator(".or-plan")).to_be_visible()
    front.page.keyboard.press("ArrowRight")
    expect(tab(front, "Result")).to_be_focused()
    expect(tab(front, "Result")).to_have_attribute("aria-selected", "true")
    assert front.complaints == []


def test_a_result_that_comfyui_kept_is_explained(front: FrontEnd, painted: str) -> None:
    graph = quick(own_mask(load(fill_example()), painted))
    front.load(graph)
    assert front.run()[0] == "execution_success"
    front.load(graph)  # new nodes, which have heard nothing yet
    expect(tab(front, "Result")).to_be_disabled()
    assert front.run()[0] == "execution_success"
    expect(line(front)).to_contain_text("ComfyUI kept its result")
    assert front.complaints == []


def test_what_it_will_cost_and_what_it_cost(front: FrontEnd, fal: FalServer, painted: str) -> None:
    front.load(own_mask(load(fill_example("fal")), painted))
    front.set_widget("OneRewardFill", "seed", crc32(front.label.encode()))  # new to the journal
    expect(panel(front)).to_contain_text(re.compile(r"about \$0\.\d+"))
    front.fit_view()
    front.screenshot("panel, price before")
    assert not fal.paid
    assert front.run()[0] == "execution_success"
    expect(line(front)).to_have_text(re.compile(r"^fal, .* cost: about \$0\.\d+; .* this session$"))
    assert re.match(r"fal: about \$0\.\d+$", front.badges("OneRewardFill")[-1])
    paid = fal.paid
    front.server.free()
    assert front.run()[0] == "execution_success"
    expect(line(front)).to_have_text(re.compile(r"cost: \$0, from cache; "))
    assert front.badges("OneRewardFill")[-1] == "fal: $0, from cache"
    assert fal.paid == paid
    front.screenshot("panel, from cache")
    assert front.complaints == []


def test_an_error_is_on_the_node_with_the_way_to_its_cause(front: FrontEnd) -> None:
    graph = load(fill_example())
    odd = {"SolidMask": [1.0, 300, 200], "MaskComposite": [0, 0, "add"]}
    for node in graph["nodes"]:
        node["widgets_values"] = odd.get(node["type"], node["widgets_values"])
        node["mode"] = MUTED if node["type"] == "OneRewardPlan" else node["mode"]
    front.load(graph)
    assert front.run()[0] == "execution_error"
    front.close_dialogs()
    expect(line(front)).to_contain_text("Mask is 300x200")
    front.fit_view()
    panel(front).get_by_role("button", name=re.compile("feeds mask")).click()
    front.page.wait_for_function(f"() => ({SELECTED})().join() === 'Put the area in place'")
    front.screenshot("panel, error")
    assert front.complaints == []


def test_the_frame_and_the_numbers_of_an_extension_agree(front: FrontEnd) -> None:
    front.load(example("Extend (preview model)"))
    expect(panel(front)).to_contain_text("1152")
    front.fit_view()
    panel(front).get_by_role("slider", name=re.compile("right", re.IGNORECASE)).first.focus()
    front.page.keyboard.press("ArrowRight")
    front.page.wait_for_function(f"() => ({EXTEND_TO})().includes('right 200')")
    expect(panel(front)).to_contain_text("1160")
    front.set_widget("OneRewardExtend", "extend_to", "left 64")
    expect(panel(front)).to_contain_text("832")
    front.screenshot("panel, frame")
    assert front.complaints == []


def test_the_frame_on_the_node_itself_writes_into_its_widget(front: FrontEnd) -> None:
    front.load(example("Extend (preview model)"))
    frame = front.page.locator(".or-extend")
    expect(frame.locator(".or-extend-numbers")).to_have_text(re.compile("^1152x768, 3:2"))
    front.fit_view()
    front.drawn()
    before = next(node for node in front.nodes() if node["type"] == "OneRewardExtend")
    px = 768 / box(frame.locator(".or-extend-source"))["width"]
    front.screenshot("the frame on its node")
    drag(front, handle(frame, "right"), 64 / px, 0)
    expect(frame.locator(".or-extend-numbers")).to_have_text(
        re.compile(r"left 192, right (256|248|264) px")
    )
    [task] = [n for n in front.prompt().values() if n["class_type"] == "OneRewardExtend"]
    assert re.fullmatch("left 192, right (256|248|264)", task["inputs"]["extend_to"])
    handle(frame, "top").focus()
    front.page.keyboard.press("Shift+ArrowUp")
    expect(frame.locator(".or-extend-numbers")).to_have_text(re.compile("left 192, top 64, right"))
    front.screenshot("the frame on its node, dragged")
    after = next(node for node in front.nodes() if node["type"] == "OneRewardExtend")
    assert after["pos"] == before["pos"], "the node itself is not dragged"
    assert front.complaints == []


def test_the_panel_is_in_no_workflow_and_in_no_prompt(front: FrontEnd) -> None:
    graph = load(fill_example())
    front.load(graph)
    saved = {node["id"]: node for node in front.save()["nodes"]}
    for node in graph["nodes"]:
        if node["type"] == "OneRewardFill":
            assert saved[node["id"]]["widgets_values"] == node["widgets_values"]
    inputs: Any = next(
        node["inputs"] for node in front.prompt().values() if node["class_type"] == "OneRewardFill"
    )
    assert "onereward_panel" not in inputs
    assert front.complaints == []
