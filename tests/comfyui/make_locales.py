"""Writes the English locale from what a real ComfyUI says about the pack's nodes, so that the
schema stays the one place of these words.

python tests/comfyui/make_locales.py
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfy_server import PACK, base_directory, running

ENGLISH = PACK / "locales" / "en"
EDIT_MENU = PACK / "web" / "js" / "panel" / "edit_menu.mjs"
# Menus whose entries are files or servers of this machine.
FOUND_HERE = ("server", "transformer", "t5xxl", "clip_l", "vae", "lora")
COMMAND = "OneReward_EditSelected"

Words = dict[str, Any]


def node_words(object_info: Mapping[str, Any]) -> Words:
    """nodeDefs.json, as the schemas of the pack's nodes have it."""
    ours = sorted(name for name in object_info if name.startswith("OneReward"))
    return {name: _node(object_info[name]) for name in ours}


def menu_words() -> Words:
    """main.json: the pack's category, and the entries of its menu."""
    title, tasks = _edit_menu()
    entries = {words: words for words in (title, *tasks.values())}
    return {"nodeCategories": {"OneReward": "OneReward"}, "contextMenu": entries}


def command_words() -> Words:
    """commands.json, with `_` for the dots of the ids."""
    label = "Edit the selected picture with OneReward"
    tasks = _edit_menu()[1]
    each = {f"{COMMAND}_{name}": {"label": f"{label}: {words}"} for name, words in tasks.items()}
    return {COMMAND: {"label": label}, **each}


def english(object_info: Mapping[str, Any]) -> dict[str, Words]:
    """Every generated file of the English locale, by its name."""
    return {
        "nodeDefs.json": node_words(object_info),
        "main.json": menu_words(),
        "commands.json": command_words(),
    }


def _node(info: Mapping[str, Any]) -> Words:
    words: Words = {"display_name": info["display_name"], "description": info["description"]}
    inputs = dict(_inputs(info))
    if inputs:
        words["inputs"] = inputs
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    words["outputs"] = {str(i): {"name": n, "tooltip": t} for i, (n, t) in enumerate(outputs)}
    return words


def _inputs(info: Mapping[str, Any]) -> Iterator[tuple[str, Words]]:
    for group in ("required", "optional"):
        for name, (_, options) in info["input"].get(group, {}).items():
            words: Words = {"name": name, "tooltip": options["tooltip"]}
            if "options" in options and name not in FOUND_HERE:
                words["options"] = {choice: choice for choice in options["options"]}
            yield name, words
            if options.get("control_after_generate"):
                yield "control_after_generate", {"name": "control after generate"}


def _edit_menu() -> tuple[str, dict[str, str]]:
    """The menu's title, and its entries by task."""
    source = EDIT_MENU.read_text("utf-8")
    [title] = re.findall(r'^const TITLE = "(.+)"$', source, re.MULTILINE)
    return title, dict(re.findall(r'\{ name: "(\w+)", label: "([^"]+)"', source))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        with running(base_directory(Path(scratch) / "base")) as comfyui:
            files = english(comfyui.get("/object_info"))
    ENGLISH.mkdir(parents=True, exist_ok=True)
    for name, words in files.items():
        text = json.dumps(words, ensure_ascii=False, indent=2) + "\n"
        (ENGLISH / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
