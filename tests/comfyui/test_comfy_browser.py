"""The example workflows in ComfyUI's real front end, run by its real Run button."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from comfy_browser import Browser, FrontEnd
from comfy_graph import (
    BACKENDS,
    MODEL_BACKEND,
    NOTES,
    fill_example,
    load,
    needs_files,
    runs_on_fal,
    workflow_files,
)
from comfy_server import PACK_FOLDER, ComfyUI
from fakes.fal_server import FalServer

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

WORKFLOWS = workflow_files()
TITLE_BAR = 30


def each_of(paths: Iterable[Path]) -> pytest.MarkDecorator:
    chosen = list(paths)
    return pytest.mark.parametrize("path", chosen, ids=[path.stem for path in chosen])


@pytest.fixture(scope="module")
def page(browser: Browser, comfyui: ComfyUI) -> Iterator[FrontEnd]:
    with browser.tab(comfyui) as tab:
        yield tab


def output_nodes(graph: dict[str, Any]) -> list[int]:
    """The nodes that show pictures at the end."""
    kinds = ("PreviewImage", "SaveImage")
    return [node["id"] for node in graph["nodes"] if node["type"] in kinds]


def overlaps(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The pairs of nodes that lie on each other, by title."""
    pairs = combinations(nodes, 2)
    return [(one["title"], other["title"]) for one, other in pairs if overlap(one, other)]


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    (x1, y1), (w1, h1) = one["pos"], one["size"]
    (x2, y2), (w2, h2) = other["pos"], other["size"]
    across = x1 < x2 + w2 and x2 < x1 + w1
    return across and y1 - TITLE_BAR < y2 + h2 and y2 - TITLE_BAR < y1 + h1


def open_example(page: FrontEnd, path: Path) -> dict[str, Any]:
    """Open an example from the templates, and look at how it lies there; its graph."""
    graph = load(path)
    assert page.open_template(PACK_FOLDER, path.stem) >= 256, "no thumbnail"
    page.page.wait_for_function(
        "count => app.graph.nodes.length === count", arg=len(graph["nodes"])
    )
    page.fit_view()
    nodes = page.nodes()
    assert sorted(node["type"] for node in nodes) == sorted(node["type"] for node in graph["nodes"])
    assert [node for node in nodes if not node["known"] and node["type"] not in NOTES] == []
    assert overlaps(nodes) == []
    assert page.cut_off() == []
    return graph


@each_of(path for path in WORKFLOWS if not needs_files(path))
def test_the_example_opens_from_the_templates_and_runs(
    page: FrontEnd, fal: FalServer, path: Path
) -> None:
    graph = open_example(page, path)
    assert page.page.get_by_role("dialog").count() == 0

    name, detail = page.run()
    assert name == "execution_success", detail
    assert bool(fal.paid) == runs_on_fal(path)
    shown = [page.shown(node_id) for node_id in output_nodes(graph)]
    page.screenshot(path.stem)
    assert shown
    assert all(picture["width"] >= 256 and picture["colours"] > 64 for picture in shown)
    assert [node for node in page.nodes() if node["red"]] == []
    assert overlaps(page.nodes()) == [], "nodes that grew by a preview"
    assert page.complaints == []


@each_of(path for path in WORKFLOWS if needs_files(path))
def test_the_example_opens_without_its_files_and_says_what_is_missing(
    page: FrontEnd, path: Path
) -> None:
    graph = open_example(page, path)
    if MODEL_BACKEND in {node["type"] for node in graph["nodes"]}:
        # ComfyUI's own dialog, and what 0.33 has in its place
        missing = page.page.get_by_text("Missing Models")
        missing.or_(page.page.get_by_text("4 errors found")).first.wait_for()
        page.screenshot(path.stem)
        page.page.keyboard.press("Escape")
    else:
        assert page.page.get_by_role("dialog").count() == 0
        name, detail = page.run()
        assert name == "execution_error", detail
        assert "There is no OneReward or FLUX.1-Fill transformer" in detail["exception_message"]
        page.screenshot(path.stem)
        page.page.keyboard.press("Escape")
    assert page.complaints == []


def test_the_fill_example_also_runs_in_the_nodes_2_renderer(page: FrontEnd) -> None:
    graph = load(fill_example())
    with page.nodes_2():
        page.load(graph)
        name, detail = page.run()
        assert name == "execution_success", detail
        shown = [page.shown_in_nodes_2(node_id) for node_id in output_nodes(graph)]
        page.fit_view()
        page.screenshot("Fill (preview model), Nodes 2.0")
    assert shown == [768]
    assert page.complaints == []


def test_a_wrong_mask_is_reported_on_the_page_in_our_words(page: FrontEnd) -> None:
    graph = load(fill_example())
    odd = {"SolidMask": [1.0, 300, 200], "MaskComposite": [0, 0, "add"]}
    for node in graph["nodes"]:
        node["widgets_values"] = odd.get(node["type"], node["widgets_values"])
    page.load(graph)
    name, detail = page.run()
    assert name == "execution_error", detail
    words = page.page.get_by_text("Mask is 300x200").first
    details = page.page.get_by_role("button", name="View details")
    words.or_(details).first.wait_for()
    if details.is_visible():  # ComfyUI 0.33 folds the words away, 0.3.75 shows a dialog
        details.click()
    words.wait_for()
    page.screenshot("a wrong mask")
    assert detail["exception_type"].endswith("InputError")
    page.page.keyboard.press("Escape")
    assert page.complaints == []


@pytest.mark.parametrize("newer", [False, True], ids=["canvas renderer", "nodes 2.0"])
def test_the_fal_backend_keeps_its_values_when_saved_and_opened_again(
    page: FrontEnd, newer: bool
) -> None:
    values = {
        "server": "fal", "output_format": "jpeg", "private": True, "safety_checker": False,
        "on_flagged": "return input", "run_cap": 1.5, "session_cap": 7.5, "parallel_jobs": 9,
        "start_deadline": 60, "deadline": 1200, "priority": "low",
    }  # fmt: skip
    with page.nodes_2() if newer else nullcontext():
        page.load(load(fill_example("fal")))
        page.set_widgets("OneRewardFalBackend", values)
        page.load(page.save())
        sent = [node for node in page.prompt().values() if node["class_type"] in BACKENDS]
        page.screenshot(f"OneReward Fal Backend, {newer=}")
        assert page.cut_off() == []
    assert [node["inputs"] for node in sent] == [values]
    assert page.complaints == []
