from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_node_has_a_help_page_and_every_page_a_node() -> None:
    sources = "".join(path.read_text("utf-8") for path in ROOT.glob("nodes/comfyui/*_nodes.py"))
    nodes = set(re.findall(r'node_id="(\w+)"', sources))
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert nodes
    assert pages == nodes
    for page in pages:
        text = (ROOT / "web" / "docs" / f"{page}.md").read_text("utf-8")
        title = re.search(rf'node_id="{page}",\s+display_name="([^"]+)"', sources)
        assert title is not None
        assert text.startswith(f"# {title[1]}\n")
