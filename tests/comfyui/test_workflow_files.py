"""The converter from the editor's JSON to API prompts, and what holds for every example file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from comfy_graph import api_prompt, load, needs_files, runs_on_fal, workflow_files
from PIL import Image

WORKFLOWS = workflow_files()
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])

FILES = "https://huggingface.co/"  # the dialog of missing models offers files from there

INFO: dict[str, Any] = {
    "LoadImage": {
        "input": {"required": {"image": [["a.png"], {"image_upload": True}]}},
        "input_order": {"required": ["image"]},
    },
    "Sampler": {
        "input": {
            "required": {
                "image": ["IMAGE", {}],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {}],
            },
            "optional": {"words": ["STRING", {"forceInput": True}]},
        },
        "input_order": {"required": ["image", "seed", "steps"], "optional": ["words"]},
    },
}


def node(number: int, kind: str, values: list[Any], mode: int = 0, **wires: int) -> dict[str, Any]:
    slots = [{"name": name, "link": link} for name, link in wires.items()]
    return {"id": number, "type": kind, "mode": mode, "inputs": slots, "widgets_values": values}


def graph(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": [[7, 1, 0, 2, 0, "IMAGE"]]}


def test_widget_values_get_names_and_the_editors_own_slots_are_dropped() -> None:
    picture = node(1, "LoadImage", ["a.png", "image"])
    sampler = node(2, "Sampler", [5, "randomize", 28], image=7)
    assert api_prompt(graph(picture, sampler, node(3, "Note", ["hello"])), INFO) == {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "Sampler", "inputs": {"image": ["1", 0], "seed": 5, "steps": 28}},
    }


def test_a_muted_node_and_its_wires_are_left_out() -> None:
    muted = node(1, "LoadImage", ["a.png", "image"], mode=2)
    prompt = api_prompt(graph(muted, node(2, "Sampler", [5, "fixed", 28], image=7)), INFO)
    assert list(prompt) == ["2"]
    assert "image" not in prompt["2"]["inputs"]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (node(2, "Sampler", [5, "fixed"]), "no value for steps"),
        (node(2, "Sampler", [5, "fixed", 28, 4.0]), "values without an input"),
        (node(2, "Sampler", [5, "fixed", 28], mode=4), "mode 4"),
        (node(2, "Painter", []), "Painter"),
    ],
)
def test_a_graph_that_does_not_fit_the_server_is_refused(
    sampler: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        api_prompt(graph(sampler), INFO)


@each_workflow
def test_an_example_has_a_small_thumbnail_of_the_same_name(path: Path) -> None:
    thumbnail = path.with_suffix(".jpg")
    assert thumbnail.stat().st_size < 80_000
    with Image.open(thumbnail) as picture:
        assert picture.format == "JPEG"
        assert picture.width == 512


@each_workflow
def test_an_example_says_how_to_use_it_and_names_the_packages_of_its_nodes(path: Path) -> None:
    nodes = load(path)["nodes"]
    [note] = [each["widgets_values"][0] for each in nodes if each["type"] == "MarkdownNote"]
    assert "1. " in note
    wanted = ("not OneReward", "no key")
    if runs_on_fal(path):  # key, cost, and what leaves the machine
        wanted = ("FAL_KEY", "costs money", "costs $0", "**What is sent:** the crop")
    if needs_files(path):  # which file goes where, and what may be done with it
        wanted = ("**diffusion_models**", "**text_encoders**", "**vae**", "no key", "CC BY-NC 4.0")
    assert [words for words in wanted if words not in note] == []
    for each in nodes:
        if each["type"] != "MarkdownNote":
            ours = each["type"].startswith("OneReward")
            assert each["properties"]["cnr_id"] == ("onereward" if ours else "comfy-core")
            assert each["properties"]["Node name for S&R"] == each["type"]


@each_workflow
def test_an_example_is_portable(path: Path) -> None:
    graph = load(path)
    pictures = [each["widgets_values"][0] for each in graph["nodes"] if each["type"] == "LoadImage"]
    assert graph["version"] == 0.4
    assert pictures == ["example.png"]  # the one picture that every ComfyUI comes with
    text = path.read_text(encoding="utf-8")
    assert not re.search(r'"(/|[A-Za-z]:\\\\)', text)
    links = re.findall(r"https?://[^\s\")]+", text)
    assert bool(links) == needs_files(path)
    assert [link for link in links if not link.startswith(FILES)] == []


@each_workflow
def test_an_example_that_needs_files_links_each_for_the_missing_models_dialog(path: Path) -> None:
    nodes = load(path)["nodes"]
    [note] = [each["widgets_values"][0] for each in nodes if each["type"] == "MarkdownNote"]
    models = [model for each in nodes for model in each["properties"].get("models", ())]
    assert len(models) == (4 if needs_files(path) else 0)
    for model in models:
        assert model["url"].startswith(FILES) and model["url"].endswith("/" + model["name"])
        assert f"**{model['directory']}**: [{model['name']}]({model['url']})" in note
