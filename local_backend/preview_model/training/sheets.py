"""The sheets stage: pictures of what the exported model does on held-out scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from torch import Tensor

from .classifier import HELD_OUT
from .grid import save_sheet
from .sampling import fill, fill_all, load_pipeline
from .scenes import SceneBank, Scenes

SIDE = 256
SCALES = (1.0, 1.5, 3.0, 4.0, 5.0)
PROMPTS = (
    "a cat",
    "a dog",
    "a red circle",
    "a blue star",
    "a house",
    "a rocket",
    'the word "SALE"',
    "remove",
)

Row = list[Tensor]


def _two_columns(rows: list[Row], labels: list[str]) -> tuple[list[Row], list[str]]:
    """Fold a long list of rows into two columns."""
    half = (len(rows) + 1) // 2
    rows = rows + [[]] * (2 * half - len(rows))
    labels = labels + [""] * (2 * half - len(labels))
    folded = [a + b for a, b in zip(rows[:half], rows[half:], strict=True)]
    pairs = zip(labels[:half], labels[half:], strict=True)
    return folded, [f"{a}   |   {b}" for a, b in pairs]


def _hole(image: Tensor, mask: Tensor) -> Tensor:
    return image * (1 - mask) + 0.5 * mask


def _with_objects(bank: SceneBank, scenes: Scenes) -> Tensor:
    """The scenes with an object in every hole: what is to be removed."""
    box = scenes.box
    n = len(box)
    index = bank.draws.pick(n, bank.sprites.objects)
    center = ((box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2)
    size = torch.minimum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) * 0.8
    drawn = bank.sprites.draw(scenes.image, index, center, size)
    return drawn * scenes.mask + scenes.image * (1 - scenes.mask)


def _draw_tasks(
    pipe: FluxFillPipeline, bank: SceneBank, tasks: Sequence[str], path: Path, steps: int
) -> None:
    """Input, mask and result of one scene per task."""
    scenes = bank.batch(len(tasks), SIDE, SIDE, tasks)
    texts = bank.texts(scenes)
    results = fill_all(pipe, scenes.image, scenes.mask, texts, 4.0, steps, seed=3)
    removing = tasks[0] == "remove"
    hole = _hole(scenes.image, scenes.mask)
    inputs = _with_objects(bank, scenes) if removing else hole
    masks = scenes.mask.expand(-1, 3, -1, -1)
    rows = [[inputs[i], masks[i], results[i]] for i in range(len(tasks))]
    save_sheet(*_two_columns(rows, texts), path)


def _draw_scales(pipe: FluxFillPipeline, bank: SceneBank, path: Path, steps: int) -> None:
    """One hole, many prompts, many strengths of true CFG."""
    image, _ = bank.backgrounds.crops(torch.tensor([8]), SIDE, SIDE)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[:, :, 70:230, 48:208] = 1
    rows = [[_hole(image, mask)[0], mask[0].expand(3, -1, -1)]]
    for cfg in SCALES:
        rows.append([fill(pipe, image, mask, [p], cfg, steps, seed=5)[0] for p in PROMPTS])
    labels = [" / ".join(PROMPTS)] + [f"true CFG {cfg:g}" for cfg in SCALES]
    save_sheet(rows, labels, path)


def draw_sheets(assets: Path, weights: Path, out: Path, steps: int) -> None:
    """Write fill, text, remove, extend and cfg.png."""
    pipe = load_pipeline(weights)
    out.mkdir(parents=True, exist_ok=True)
    bank = SceneBank(assets, "cpu", 6, 384, seed=HELD_OUT + 5)
    sheets = {
        "fill": ["fill"] * 12,
        "text": ["text"] * 8,
        "remove": ["remove"] * 10,
        "extend": ["extend"] * 6 + ["extend_free"] * 4,
    }
    for name, tasks in sheets.items():
        _draw_tasks(pipe, bank, tasks, out / f"{name}.png", steps)
    _draw_scales(pipe, bank, out / "cfg.png", steps)
