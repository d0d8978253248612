"""The demo: one edit of each task on pictures that ship with the pack, on one contact sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...nodes.contracts import Backend, EditTask, ProgressSink
from ...nodes.edit.recipes import make_recipe, text_prompt
from ...nodes.edit.run import Edit, edit, extend
from ...nodes.image_io import decode_image, decode_mask
from .contact_sheet import contact_sheet, with_mask

if TYPE_CHECKING:
    from torch import Tensor

SCENES = Path(__file__).resolve().parent / "demo_scenes"
TITLE = "Preview model: a small demonstrator that ships with the pack. It is not OneReward."


def run_demo(backend: Backend, progress: ProgressSink) -> Tensor:
    """Run the four edits of demo_scenes/scenes.json; returns the sheet, float [H, W, 3]."""
    scenes = json.loads((SCENES / "scenes.json").read_text("utf-8"))
    rows = []
    for scene in scenes:
        progress.status(scene["task"])
        done, before = _run(scene, backend, progress)
        rows.append((scene["caption"], before, done.images[0]))
    return contact_sheet(TITLE, rows)


def _run(scene: dict[str, Any], backend: Backend, progress: ProgressSink) -> tuple[Edit, Tensor]:
    task = EditTask(scene["task"])
    image = decode_image((SCENES / scene["file"]).read_bytes())
    prompt = text_prompt(scene["text"]) if task is EditTask.TEXT else scene.get("prompt", "")
    recipe = make_recipe(task, prompt=prompt, seed=scene["seed"], steps=28, cfg=4.0, num_images=1)
    if task is EditTask.EXTEND:
        to, anchor = scene["extend"], scene.get("anchor", "center")
        return extend(image, to, anchor, 24, recipe, None, backend, progress), image[0]
    mask = decode_mask((SCENES / scene["mask"]).read_bytes())
    return edit(image, mask, recipe, None, backend, progress), with_mask(image[0], mask[0])
