"""Workflow files: found, and turned from the editor's JSON into the prompt that the API takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfy_server import PACK

NOTES = ("MarkdownNote", "Note")
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
RUNS, MUTED = 0, 2
BACKENDS = ("OneRewardPreviewBackend", "OneRewardFalBackend", "OneRewardLocalBackend")
MODEL_BACKEND = "OneRewardModelBackend"
TASKS = ("OneRewardFill", "OneRewardRemove", "OneRewardExtend", "OneRewardText")

Graph = dict[str, Any]


def workflow_files() -> list[Path]:
    """The pack's example workflows, in the order of their names."""
    return sorted((PACK / "example_workflows").glob("*.json"))


def fill_example(backend: str = "preview model") -> Path:
    """The workflow that the tests vary, on "preview model" or "fal"."""
    return PACK / "example_workflows" / f"Fill ({backend}).json"


def runs_on_fal(path: Path) -> bool:
    """Whether an example workflow is one of those that cost money."""
    return path.stem.endswith("(fal)")


def needs_files(path: Path) -> bool:
    """Whether an example workflow is one of those that need model files of tens of gigabytes."""
    return path.stem.endswith(("(your own GPU)", "(ComfyUI model)"))


def load(path: Path) -> Graph:
    """A workflow as the editor saved it."""
    graph: Graph = json.loads(path.read_text(encoding="utf-8"))
    return graph


def task_node(prompt: Mapping[str, Any]) -> str:
    """The id of the one OneReward task node of an API prompt."""
    [found] = [key for key, node in prompt.items() if node["class_type"] in TASKS]
    return found


def api_prompt(graph: Graph, object_info: Mapping[str, Any]) -> Graph:
    """What the front end would post for a workflow of plain nodes.

    Notes and muted nodes are left out. Raises ValueError for a node that is bypassed or unknown
    and for widget values that do not fit the node's inputs one by one.
    """
    running = {node["id"]: node for node in graph["nodes"] if _runs(node)}
    unknown = {node["type"] for node in running.values()} - set(object_info)
    if unknown:
        raise ValueError(f"the server has no node {sorted(unknown)}")
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"] if link[1] in running}
    prompt: Graph = {}
    for key, node in running.items():
        info = object_info[node["type"]]
        inputs = _widgets(node, info) | _linked(node, sources)
        prompt[str(key)] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _runs(node: Graph) -> bool:
    if node["type"] in NOTES or node["mode"] == MUTED:
        return False
    if node["mode"] != RUNS:
        raise ValueError(f"node {node['id']} has mode {node['mode']}, neither running nor muted")
    return True


def _linked(node: Graph, sources: Mapping[int, list[Any]]) -> Graph:
    wired = {slot["name"]: slot.get("link") for slot in node.get("inputs", ())}
    return {name: sources[link] for name, link in wired.items() if link in sources}


def _widgets(node: Graph, info: Mapping[str, Any]) -> Graph:
    """Name the positional widget values, which include slots that only the editor uses."""
    left = list(node.get("widgets_values", ()))
    inputs: Graph = {}
    uploads = False
    for name, kind, options in _schema(info):
        if not _is_widget(kind, options):
            continue
        if not left:
            raise ValueError(f"{node['type']} has no value for {name}")
        inputs[name] = left.pop(0)
        if options.get("control_after_generate"):
            left.pop(0)
        uploads = uploads or options.get("image_upload", False)
    if uploads and left:
        left.pop(0)  # the upload button's own slot comes last
    if left:
        raise ValueError(f"{node['type']} has values without an input: {left}")
    return inputs


def _schema(info: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for group, names in info["input_order"].items():
        for name in names if group != "hidden" else ():
            kind, *options = info["input"][group][name]
            yield name, kind, options[0] if options else {}


def _is_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    return not options.get("forceInput") and (isinstance(kind, list) or kind in WIDGET_TYPES)
