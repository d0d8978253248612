"""The demo-scenes stage: four pictures, one per task, that show what the preview model can do.

Words, holes and seeds were chosen by eye among some hundred results of the shipped weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .draws import Draws
from .grid import to_picture
from .painter import Painter
from .sprites import Sprites

SIDE = 512
#: scenes are painted at about the model's own scale, so that old and new parts are equally sharp
PAINTED_SIDE = 288
JPEG_QUALITY = 92

Point = tuple[float, float]


@dataclass(frozen=True)
class Hole:
    """Where to change: centre and half extents (x, y) px of |x|^power + |y|^power < 1."""

    center: Point
    half: Point
    power: float


@dataclass(frozen=True)
class Thing:
    """An object that stands in the scene: centre (x, y) and size in px."""

    name: str
    center: Point
    size: float
    seed: int


@dataclass(frozen=True)
class DemoScene:
    """One picture; `entry` is what the demo reads about it."""

    background: str
    seed: int
    entry: dict[str, Any]
    hole: Hole | None = None
    thing: Thing | None = None

    @property
    def name(self) -> str:
        """The file name without its end: the task."""
        return str(self.entry["task"])


SCENES = (
    DemoScene(
        "beach",
        0,
        {"task": "fill", "prompt": "a sailboat", "seed": 2, "caption": 'Fill: "a sailboat"'},
        Hole((310.0, 262.0), (86.0, 92.0), 3),
    ),
    DemoScene(
        "beach",
        9,
        {"task": "remove", "seed": 0, "caption": "Remove"},
        Hole((300.0, 440.0), (62.0, 62.0), 3),
        Thing("crab", (300.0, 440.0), 100.0, seed=1),
    ),
    DemoScene(
        "sunset",
        9,
        {
            "task": "extend",
            "prompt": "a sunset over the sea",
            "extend": "16:9",
            "seed": 30,
            "caption": 'Extend to 16:9: "a sunset over the sea"',
        },
    ),
    DemoScene(
        "brick",
        10,
        {"task": "text", "text": "SALE", "seed": 2, "caption": 'Text: "SALE"'},
        Hole((256.0, 256.0), (118.0, 48.0), 20),
    ),
)


def paint_hole(hole: Hole) -> Tensor:
    """The hole as a mask, bool `[SIDE, SIDE]`."""
    axis = torch.arange(SIDE) + 0.5
    x = ((axis - hole.center[0]) / hole.half[0]).abs() ** hole.power
    y = ((axis - hole.center[1]) / hole.half[1]).abs() ** hole.power
    return y[:, None] + x[None, :] < 1


def paint_scene(scene: DemoScene, archive: Any) -> Tensor:
    """The picture, `[3, SIDE, SIDE]` in 0..1; `archive` is the opened assets file."""
    generator = torch.Generator().manual_seed(scene.seed)
    picture = Painter(PAINTED_SIDE, "cpu", generator).paint(scene.background, 1)
    picture = F.interpolate(picture, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    thing = scene.thing
    if thing is None:
        return picture[0]
    sprites = Sprites(archive, Draws("cpu", thing.seed), torch.float32)
    index = [thing.name in names.split("|") for names in sprites.names].index(True)
    x, y = (torch.tensor([value]) for value in thing.center)
    return sprites.draw(picture, torch.tensor([index]), (x, y), torch.tensor([thing.size]))[0]


def make_demo_scenes(assets: Path, out: Path) -> None:
    """Write <task>.jpg, <task>_mask.png (white = change) and scenes.json, the list of entries."""
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    with np.load(assets, allow_pickle=False) as archive:
        for scene in SCENES:
            entry = {"file": f"{scene.name}.jpg", **scene.entry}
            picture = to_picture(paint_scene(scene, archive))
            picture.save(out / entry["file"], quality=JPEG_QUALITY, subsampling=0)
            if scene.hole:
                entry["mask"] = f"{scene.name}_mask.png"
                white = paint_hole(scene.hole).numpy()
                Image.fromarray(white).save(out / entry["mask"], optimize=True)
            entries.append(entry)
    text = json.dumps(entries, indent=2) + "\n"
    (out / "scenes.json").write_text(text, encoding="utf-8")
