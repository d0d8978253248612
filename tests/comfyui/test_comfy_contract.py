"""What saved workflows rely on is frozen: ids, the order of inputs and outputs, types, defaults.

After a change on purpose: ONEREWARD_UPDATE_CONTRACT=1 python -m pytest tests -k contract
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK_FOLDER

pytestmark = pytest.mark.comfy

CONTRACT = Path(__file__).resolve().parent.parent / "node_contract.json"
WORDING = {"tooltip", "placeholder", "display_name"}


def contract_of(info: dict[str, Any]) -> dict[str, Any]:
    inputs = []
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            fixed = {k: v for k, v in (options[0] if options else {}).items() if k not in WORDING}
            inputs.append({"name": name, "type": kind, "group": group, **fixed})
    outputs = list(zip(info["output_name"], info["output"], strict=True))
    return {
        "inputs": inputs,
        "outputs": [list(o) for o in outputs],
        "output_node": info["output_node"],
    }


def test_the_node_contract_is_unchanged(object_info: dict[str, Any]) -> None:
    module = f"custom_nodes.{PACK_FOLDER}"
    found = {
        name: contract_of(info)
        for name, info in sorted(object_info.items())
        if info["python_module"] == module
    }
    if os.environ.get("ONEREWARD_UPDATE_CONTRACT"):
        CONTRACT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    assert json.loads(json.dumps(found)) == json.loads(CONTRACT.read_text("utf-8"))


def test_a_node_shows_at_most_eight_unfolded_widgets(object_info: dict[str, Any]) -> None:
    widgets = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
    for name, node in json.loads(CONTRACT.read_text("utf-8")).items():
        assert name in object_info
        shown = [
            i["name"]
            for i in node["inputs"]
            if (i["type"] in widgets or isinstance(i["type"], list))
            and not (i.get("forceInput") or i.get("advanced"))
        ]
        assert len(shown) <= 8, (name, shown)
