"""What leads an artist to the pack: the menu of a Load Image node, blueprints, help, Chinese."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from typing import Any, Literal

import pytest
import requests
from comfy_browser import READY, FrontEnd, each_front_end
from comfy_server import PACK, ComfyUI
from fakes.fal_server import FalServer
from make_locales import english
from playwright.sync_api import Locator, TimeoutError, expect

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

MENU = "Edit with OneReward"
LOAD_IMAGE = {
    "id": 1, "type": "LoadImage", "pos": [100, 100], "size": [280, 330], "flags": {}, "order": 0,
    "mode": 0, "inputs": [], "properties": {}, "widgets_values": ["example.png", "image"],
    "outputs": [{"name": name, "type": name, "links": None} for name in ("IMAGE", "MASK")],
}  # fmt: skip
IN_THE_WAY = LOAD_IMAGE | {"id": 2, "pos": [500, 150]}
VIEW = (0.7, 300, 250)  # away from the edges of the page
TITLE_AT = """id => {
    const { canvas, ds } = app.canvas, node = app.graph.getNodeById(id);
    const page = canvas.getBoundingClientRect();
    return [page.left + (node.pos[0] + 60 + ds.offset[0]) * ds.scale,
            page.top + (node.pos[1] - 14 + ds.offset[1]) * ds.scale];
}"""
SELECTED = "() => [...app.canvas.selectedItems].map(node => node.type)"
# The graph as the page has noted it, from which Control+Z goes one step back.
NOTED = "app.extensionManager.workflow.activeWorkflow.changeTracker.activeState"
SELECT = "id => app.canvas.selectItems([app.graph.getNodeById(id)])"
# What a person does with four drags of the mouse.
WIRE = """() => {
    const load = app.graph.nodes.find(node => node.type === "LoadImage");
    const blueprint = app.graph.nodes.find(node => node.subgraph);
    blueprint.inputs.forEach((slot, at) => {
        if (slot.type === "IMAGE") load.connect(0, blueprint, at);
        if (slot.type === "MASK") load.connect(1, blueprint, at);
    });
    const preview = LiteGraph.createNode("PreviewImage");
    app.graph.add(preview);
    blueprint.connect(0, preview, 0);
    return [blueprint.subgraph.nodes.map(node => node.type), blueprint.widgets.length];
}"""


def open_pictures(front: FrontEnd, *nodes: dict[str, Any]) -> None:
    """A graph of Load Image nodes, away from the edges of the page."""
    front.load({"version": 0.4, "last_node_id": 9, "last_link_id": 0, "links": [],
                "nodes": list(nodes), "groups": [], "config": {}, "extra": {}})  # fmt: skip
    front.page.wait_for_function("() => app.graph.getNodeById(1)?.imgs?.length > 0")
    front.view(*VIEW)


def offers_menu_items(front: FrontEnd) -> bool:
    """Whether the node's own menu shows what extensions add: 1.32.9 with Nodes 2.0 does not."""
    return front.label != "1.32.9 nodes 2.0"


def edit(front: FrontEnd, choice: str) -> None:
    """Right-click Load Image and choose, or press the button above the node."""
    if offers_menu_items(front):
        click_until(front, front.page.get_by_text(MENU, exact=True).first, "right").click()
    else:
        click_until(
            front, front.page.locator(".selection-toolbox button:has(.pi-sparkles)")
        ).click()
    front.page.get_by_text(choice, exact=True).first.click()


def click_until(
    front: FrontEnd, wanted: Locator, button: Literal["left", "right"] = "left"
) -> Locator:
    """Click Load Image's title until what should appear is there: a click that comes while ComfyUI
    still works on the graph is none.
    """
    for _ in range(4):
        front.page.mouse.click(*front.page.evaluate(TITLE_AT, 1), button=button)
        try:
            wanted.wait_for(timeout=3000)
        except TimeoutError:
            front.page.keyboard.press("Escape")
        else:
            return wanted
    raise AssertionError(f"{wanted} did not appear")


def wires(front: FrontEnd) -> set[tuple[str, str, str]]:
    """(type of the source, type of the wire, type of the target)"""
    graph = front.save()
    types = {node["id"]: node["type"] for node in graph["nodes"]}
    return {(types[link[1]], link[5], types[link[3]]) for link in graph["links"]}


def mask_editor(front: FrontEnd) -> Locator:
    return front.page.get_by_role("dialog").filter(has_text=re.compile("Mask Editor", re.I))


def overlapping(front: FrontEnd) -> list[tuple[str, str]]:
    """What a node that was added lies on, by type."""
    boxes = [(node["type"], *node["pos"], *node["size"]) for node in front.nodes()]
    return [
        (one[0], other[0])
        for one, other in combinations(boxes, 2)
        if (one[0], other[0]) != ("LoadImage", "LoadImage")
        and one[1] < other[1] + other[3] and other[1] < one[1] + one[3]
        and one[2] - 30 < other[2] + other[4] and other[2] - 30 < one[2] + one[4]
    ]  # fmt: skip


@contextmanager
def setting(front: FrontEnd, name: str, value: Any, back: Any) -> Iterator[None]:
    """A setting of the user's, on a page opened anew."""
    url = f"{front.url}/settings/{name}"
    requests.post(url, json=value, timeout=30).raise_for_status()
    try:
        front.page.reload()
        front.page.wait_for_function(READY)
        yield
    finally:
        requests.post(url, json=back, timeout=30).raise_for_status()


def open_help(front: FrontEnd, node_id: int) -> Locator:
    """Press the node's help button; the picture on the page that opens."""
    front.view(*VIEW)
    front.page.evaluate(SELECT, node_id)
    front.page.locator(".selection-toolbox button:has(.icon-\\[lucide--info\\])").first.click()
    return front.page.locator("img[src*='/extensions/onereward/docs/']").first


def open_search(front: FrontEnd) -> None:
    """Double-click the empty canvas until the search is there: a click that comes while ComfyUI
    still works on the graph is none.
    """
    for _ in range(4):
        front.page.mouse.dblclick(1200, 450)
        with suppress(TimeoutError):
            front.page.wait_for_function(
                "() => document.activeElement.tagName === 'INPUT'", timeout=3000
            )
            return
    raise AssertionError("The search did not open.")


def loaded(picture: Locator) -> int:
    """The width of a picture, once it is there."""
    picture.wait_for()
    picture.page.wait_for_function("img => img.complete", arg=picture.element_handle())
    return int(picture.evaluate("img => img.naturalWidth"))


def without_missing_translations(complaints: list[str]) -> list[str]:
    """ComfyUI asks for docs/<node>/en.md first, which is docs/<node>.md here."""
    asked = [text for text in complaints if re.match(r"404: .+/docs/\w+/en\.md$", text)]
    echoes = [text for text in complaints if text.startswith("console:") and "404" in text]
    return [text for text in complaints if text not in asked + echoes[: len(asked)]]


def test_the_menu_of_a_load_image_node_adds_a_wired_edit_and_opens_the_mask_editor(
    front: FrontEnd,
) -> None:
    open_pictures(front, LOAD_IMAGE, IN_THE_WAY)
    edit(front, "Remove an object")
    expect(mask_editor(front).first).to_be_visible()
    front.screenshot("edit menu, mask editor")
    assert wires(front) == {
        ("LoadImage", "IMAGE", "OneRewardRemove"),
        ("LoadImage", "MASK", "OneRewardRemove"),
        ("OneRewardRemove", "IMAGE", "PreviewImage"),
    }
    assert overlapping(front) == []
    front.page.keyboard.press("Escape")
    expect(mask_editor(front)).to_have_count(0)
    front.screenshot("edit menu, added")
    assert front.page.evaluate(SELECTED) == ["OneRewardRemove"]
    assert front.complaints == []


def test_an_edit_that_was_added_is_undone_in_one_step(front: FrontEnd) -> None:
    """In Nodes 2.0 in two at most: it notes the sizes of new nodes as a step of their own."""
    open_pictures(front, LOAD_IMAGE)
    edit(front, "Extend the picture")
    front.page.wait_for_function("() => app.graph.nodes.length === 3")
    front.page.wait_for_function(f"() => {NOTED}.nodes.length === 3")
    front.page.mouse.move(20, 900)
    front.page.keyboard.press("Control+z")
    if "nodes 2.0" in front.label:
        with suppress(TimeoutError):  # it took back the sizes alone
            front.page.wait_for_function("() => app.graph.nodes.length === 1", timeout=4000)
        if len(front.nodes()) == 3:
            front.page.keyboard.press("Control+z")
    front.page.wait_for_function("() => app.graph.nodes.length === 1")
    assert front.complaints == []


def test_extend_opens_no_mask_editor_and_runs_as_added(front: FrontEnd, fal: FalServer) -> None:
    open_pictures(front, LOAD_IMAGE)
    edit(front, "Extend the picture")
    front.page.wait_for_function("() => app.graph.nodes.length === 3")
    assert wires(front) == {
        ("LoadImage", "IMAGE", "OneRewardExtend"),
        ("OneRewardExtend", "IMAGE", "PreviewImage"),
    }
    name, detail = front.run()
    assert name == "execution_success", detail
    assert mask_editor(front).count() == 0
    front.screenshot("edit menu, Extend ran")
    assert front.complaints == []


@each_front_end
def test_the_command_without_a_picture_selected_says_what_to_do(front: FrontEnd) -> None:
    open_pictures(front, LOAD_IMAGE)
    front.page.evaluate("() => app.canvas.deselectAll()")
    command = "app.extensionManager.command.execute('OneReward.EditSelected.Fill')"
    front.page.evaluate(f"() => {command}")
    expect(front.page.get_by_text("Select one Load Image node first.").first).to_be_visible()
    assert len(front.nodes()) == 1
    assert front.complaints == []


@each_front_end
@pytest.mark.parametrize("path", sorted(PACK.glob("subgraphs/*.json")), ids=lambda path: path.stem)
def test_a_blueprint_is_found_by_the_search_and_runs(
    front: FrontEnd, fal: FalServer, path: Any
) -> None:
    page = front.page
    open_pictures(front, LOAD_IMAGE)
    open_search(front)
    page.keyboard.type(path.stem)
    page.get_by_role("option").filter(has_text=path.stem).first.wait_for()
    front.screenshot(f"search, {path.stem}")
    page.keyboard.press("Enter")
    page.wait_for_function("() => app.graph.nodes.some(node => node.subgraph)")
    page.mouse.click(1100, 850)  # where the new node may hang on the pointer
    assert path.stem in {node["title"] for node in front.nodes()}
    inside, widgets = page.evaluate(WIRE)
    assert len(inside) == 1 and inside[0].startswith("OneReward")
    assert widgets >= 2
    name, detail = front.run()
    assert name == "execution_success", detail
    front.screenshot(f"blueprint, {path.stem}")
    assert front.complaints == []


@each_front_end
def test_the_help_button_of_a_node_shows_our_page_and_its_picture(front: FrontEnd) -> None:
    open_pictures(front, LOAD_IMAGE)
    edit(front, "Extend the picture")
    front.page.wait_for_function("() => app.graph.nodes.length === 3")
    edited = next(node["id"] for node in front.nodes() if node["type"] == "OneRewardExtend")
    assert loaded(open_help(front, edited)) == 800
    text = front.page.get_by_text("Makes the picture larger and paints the new area.").first
    expect(text).to_be_visible()
    front.screenshot("help")
    assert without_missing_translations(front.complaints) == []
    front.complaints.clear()


@each_front_end
def test_in_chinese_name_tooltip_and_help_are_chinese(front: FrontEnd) -> None:
    words = json.loads((PACK / "locales/zh/nodeDefs.json").read_text("utf-8"))["OneRewardExtend"]
    with setting(front, "Comfy.Locale", "zh", "en"):
        open_pictures(front, LOAD_IMAGE)
        front.page.evaluate(
            "() => { app.graph.add(Object.assign(LiteGraph.createNode('OneRewardExtend'), "
            "{ pos: [600, 100] })) }"
        )
        front.page.wait_for_function("() => app.graph.nodes.length === 2")
        [node] = [node for node in front.nodes() if node["type"] == "OneRewardExtend"]
        assert node["title"] == words["display_name"]
        names = front.page.evaluate(
            "id => app.graph.getNodeById(id).widgets.map(widget => widget.label)", node["id"]
        )
        assert words["inputs"]["extend_to"]["name"] in names
        tooltip = front.page.evaluate(
            "() => LiteGraph.registered_node_types.OneRewardExtend.nodeData"
            ".inputs.extend_to.tooltip"
        )
        assert tooltip == words["inputs"]["extend_to"]["tooltip"]
        assert loaded(open_help(front, node["id"])) == 800
        expect(front.page.get_by_text(words["description"][:8]).first).to_be_visible()
        front.screenshot("Chinese")
    assert front.complaints == []


def test_the_english_locale_says_what_the_nodes_say(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    served = comfyui.get("/i18n")["en"]
    for name, words in english(object_info).items():
        stored = json.loads((PACK / "locales/en" / name).read_text("utf-8"))
        assert stored == words, "run tests/comfyui/make_locales.py"
        kept = {key: served[key] for key in words} if name == "main.json" else served[name[:-5]]
        assert kept == words
