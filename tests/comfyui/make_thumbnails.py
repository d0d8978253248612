"""Runs every example workflow on a real ComfyUI and writes its thumbnail: before | after.

python tests/comfyui/make_thumbnails.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from comfy_graph import api_prompt, load, task_node, workflow_files
from comfy_server import ComfyUI, base_directory, running
from PIL import Image

WIDTH = 512
GAP = 4
QUALITY = 88


def side_by_side(before: Image.Image, after: Image.Image) -> Image.Image:
    """Both pictures at one height, together WIDTH wide, with a white gap."""
    height = round((WIDTH - GAP) / (before.width / before.height + after.width / after.height))
    width = round(before.width * height / before.height)
    left = before.resize((width, height), Image.Resampling.LANCZOS)
    right = after.resize((WIDTH - GAP - width, height), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (WIDTH, height), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (width + GAP, 0))
    return sheet


def pictures(comfyui: ComfyUI, prompt: dict[str, Any]) -> tuple[Image.Image, Image.Image]:
    """What goes into the prompt's task node and what comes out. RuntimeError if the run fails."""
    task = task_node(prompt)
    sources = {"before": prompt[task]["inputs"]["image"], "after": [task, 0]}
    previews = {
        name: {"class_type": "PreviewImage", "inputs": {"images": source}}
        for name, source in sources.items()
    }
    run = comfyui.run(prompt | previews)
    if run.status != "success":
        raise RuntimeError(run.message("execution_error"))
    before, after = (comfyui.picture(run.outputs[name]["images"][0]) for name in sources)
    return before, after


def main(wanted: list[str]) -> None:
    """Make the thumbnails of the workflows whose names start with a wanted word, or of all."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = base_directory(Path(scratch) / "base")
        with running(folder) as comfyui:
            info = comfyui.get("/object_info")
            for path in workflow_files():
                if not wanted or path.stem.startswith(tuple(wanted)):
                    sheet = side_by_side(*pictures(comfyui, api_prompt(load(path), info)))
                    sheet.save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
