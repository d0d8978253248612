"""Makes the thumbnail of every example workflow with a real ComfyUI.

On the preview model: before | after. On fal, which is not asked, and on models that are not there:
before | the area to paint in red, for what one model paints must not be shown as another's.

python tests/comfyui/make_thumbnails.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from comfy_graph import (
    BACKENDS,
    MODEL_BACKEND,
    api_prompt,
    load,
    needs_files,
    runs_on_fal,
    task_node,
    workflow_files,
)
from comfy_server import ComfyUI, base_directory, running
from PIL import Image

WIDTH = 512
GAP = 4
QUALITY = 88
NEW_AREA = "#808080"
RED, TINT = "#d02020", 0.6


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


def pictures(comfyui: ComfyUI, prompt: dict[str, Any]) -> tuple[Image.Image, ...]:
    """What goes into the prompt's task node, what comes out, and the mask output.

    Raises:
        RuntimeError: the run failed.
    """
    task = task_node(prompt)
    sources = {
        "before": prompt[task]["inputs"]["image"],
        "after": [task, 0],
        "mask": ["mask image", 0],
    }
    shown = {
        name: {"class_type": "PreviewImage", "inputs": {"images": source}}
        for name, source in sources.items()
    }
    shown["mask image"] = {"class_type": "MaskToImage", "inputs": {"mask": [task, 1]}}
    run = comfyui.run(prompt | shown)
    if run.status != "success":
        raise RuntimeError(run.message("execution_error"))
    return tuple(comfyui.picture(run.outputs[name]["images"][0]) for name in sources)


def on_preview_model(prompt: dict[str, Any]) -> dict[str, Any]:
    """The prompt with a backend that costs nothing, in as few steps as there are."""
    free: dict[str, Any] = {"class_type": "OneRewardPreviewBackend", "inputs": {}}
    backends = (*BACKENDS, MODEL_BACKEND)
    swapped = {
        name: free if node["class_type"] in backends else node for name, node in prompt.items()
    }
    swapped[task_node(prompt)]["inputs"]["steps"] = 1
    return swapped


def marked(before: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture in the middle of the mask's canvas, and on it the mask in red."""
    canvas = Image.new("RGB", mask.size, NEW_AREA)
    corner = ((mask.width - before.width) // 2, (mask.height - before.height) // 2)
    canvas.paste(before, corner)
    red = Image.blend(canvas, Image.new("RGB", mask.size, RED), TINT)
    return Image.composite(red, canvas, mask.convert("L"))


def thumbnail(comfyui: ComfyUI, path: Path, info: dict[str, Any]) -> Image.Image:
    """The sheet of an example workflow."""
    prompt = api_prompt(load(path), info)
    if not (runs_on_fal(path) or needs_files(path)):
        before, after, _ = pictures(comfyui, prompt)
        return side_by_side(before, after)
    before, _, mask = pictures(comfyui, on_preview_model(prompt))
    return side_by_side(before, marked(before, mask))


def main(wanted: list[str]) -> None:
    """Make the thumbnails of the workflows whose names start with a wanted word, or of all."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = base_directory(Path(scratch) / "base")
        with running(folder) as comfyui:
            info = comfyui.get("/object_info")
            for path in workflow_files():
                if not wanted or path.stem.startswith(tuple(wanted)):
                    sheet = thumbnail(comfyui, path, info)
                    sheet.save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
