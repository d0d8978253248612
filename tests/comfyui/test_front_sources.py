"""What the page reads from a graph before it runs, in the real front end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comfy_browser import FrontEnd, each_front_end
from comfy_graph import Graph, fill_example, load, workflow_files

pytestmark = [pytest.mark.comfy, pytest.mark.browser, each_front_end]

EXAMPLE = {"filename": "example.png", "subfolder": "", "type": "input"}
REQUEST = """async type => {
    const { planRequest } = await import("/extensions/onereward/js/plan/sources.mjs");
    return planRequest(app.graph.nodes.find(node => node.type === type));
}"""


def wire_mask(graph: Graph) -> Graph:
    """The example with LoadImage's own mask in place of the drawn one."""
    text = json.dumps(graph)
    graph = json.loads(text)
    loader = next(node for node in graph["nodes"] if node["type"] == "LoadImage")
    task = next(node for node in graph["nodes"] if node["type"] == "OneRewardFill")
    link = next(i["link"] for i in task["inputs"] if i["name"] == "mask")
    for node in graph["nodes"]:
        for output in node.get("outputs", []):
            if link in (output["links"] or []):
                output["links"].remove(link)
    loader["outputs"][1]["links"] = [link]
    [each] = [each for each in graph["links"] if each[0] == link]
    each[1:3] = [loader["id"], 1]
    return graph


def test_the_request_is_read_from_the_graph(front: FrontEnd) -> None:
    graph = wire_mask(load(fill_example("fal")))
    front.load(graph)
    asked = front.page.evaluate(REQUEST, "OneRewardFill")["body"]
    assert asked["image"] == EXAMPLE and asked["mask"] == {**EXAMPLE, "channel": "alpha"}
    assert asked["backend"]["node"] == "OneRewardFalBackend"
    assert asked["backend"]["inputs"]["run_cap"] == 5 and asked["canvas"] is None
    assert (asked["task"], asked["steps"], asked["cfg"], asked["num_images"]) == ("fill", 28, 4, 1)
    assert asked["node_id"] == "7" and asked["preset"] == "custom"
    front.load(load(fill_example("fal")))
    asked = front.page.evaluate(REQUEST, "OneRewardFill")["body"]
    assert asked["image"] == EXAMPLE and asked["mask"] is None, "a drawn mask is known by a run"
    extend = next(path for path in workflow_files() if path.stem == "Extend (fal)")
    front.load(load(extend))
    asked = front.page.evaluate(REQUEST, "OneRewardExtend")["body"]
    assert (asked["extend_to"], asked["anchor"], asked["overlap"]) == ("3:2", "center", 24)
    assert front.complaints == []


CHANGE = """change => {
    const { graph } = app;
    const of = type => graph.nodes.find(node => node.type === type);
    const task = of("OneRewardExtend"), loader = of("LoadImage");
    const input = (node, name) => node.inputs.findIndex(i => i.name === name);
    const add = type => {
        const node = window.LiteGraph.createNode(type);
        graph.add(node);
        return node;
    };
    if (change === "reroute") {
        const reroute = add("Reroute");
        loader.connect(0, reroute, 0);
        reroute.connect(0, task, input(task, "image"));
    }
    if (change === "another node") {
        const invert = add("ImageInvert");
        loader.connect(0, invert, 0);
        invert.connect(0, task, input(task, "image"));
    }
    if (change === "bypass") of("OneRewardFalBackend").mode = 4;
    if (change === "mute") of("OneRewardFalBackend").mode = 2;
    if (change === "unplug") task.disconnectInput(input(task, "image"));
    if (change === "primitive") {
        const number = add("PrimitiveInt");
        number.widgets.find(w => w.name === "value").value = 3;
        number.connect(0, task, input(task, "num_images"));
    }
    if (change === "computed") {
        const length = add("StringLength");
        length.connect(0, task, input(task, "num_images"));
    }
    if (change === "a loaded file") {
        loader.widgets[0].value = "clipspace/painted one.png [temp]";
    }
    if (change === "subgraph") {
        const { subgraph } = graph.convertToSubgraph(new Set([task]));
        return subgraph.nodes.find(node => node.type === "OneRewardExtend").id;
    }
}"""
INNER = """async () => {
    const { planRequest } = await import("/extensions/onereward/js/plan/sources.mjs");
    const host = app.graph.nodes.find(node => node.subgraph);
    const inner = host.subgraph.nodes.find(node => node.type === "OneRewardExtend");
    return { ...planRequest(inner), host: host.id };
}"""


def asked_after(front: FrontEnd, change: str) -> dict[str, Any]:
    path = next(path for path in workflow_files() if path.stem == "Extend (fal)")
    front.load(load(path))
    front.page.evaluate(CHANGE, change)
    found: dict[str, Any] = front.page.evaluate(REQUEST, "OneRewardExtend")
    return found


def test_what_passes_a_value_on_is_looked_through(front: FrontEnd) -> None:
    assert asked_after(front, "reroute")["body"]["image"] == EXAMPLE
    assert asked_after(front, "another node")["body"]["image"] is None
    for change in ("bypass", "mute"):
        assert asked_after(front, change)["body"]["backend"] is None, change
    assert asked_after(front, "unplug")["input"] == "image"
    assert asked_after(front, "primitive")["body"]["num_images"] == 3
    computed = asked_after(front, "computed")
    assert computed["input"] == "num_images" and "comes from another node" in computed["why"]
    assert asked_after(front, "a loaded file")["body"]["image"] == {
        "filename": "painted one.png", "subfolder": "clipspace", "type": "temp",
    }  # fmt: skip
    assert front.complaints == []


def test_a_node_in_a_subgraph_finds_its_picture_outside(front: FrontEnd) -> None:
    path = next(path for path in workflow_files() if path.stem == "Extend (fal)")
    front.load(load(path))
    inner = front.page.evaluate(CHANGE, "subgraph")
    found = front.page.evaluate(INNER)
    body = found["body"]
    assert body["image"] == EXAMPLE and body["node_id"] == f"{found['host']}:{inner}"
    assert body["backend"]["node"] == "OneRewardFalBackend" and body["extend_to"] == "3:2"
    assert front.complaints == []
