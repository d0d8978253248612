"""Write the held-out scenes to tests/data/held_out: pictures, masks, prompts, what to look for.

    python tests/benchmarks/held_out_scenes.py --assets assets.npz

The assets are those of the training's first stage, drawn with the fonts and the photos. Removals,
extensions and fills are those its `metrics` stage measures on, in the same order (of the fills, the
first half); the words come after them. Of a removal, the picture shows the true background in the
hole: no model sees the pixels under a mask.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

TESTS = Path(__file__).resolve().parent.parent
FOLDER = TESTS / "data" / "held_out"
SIDE = 256
#: the scenes of the VAE's round trip, which are not kept
ROUND_TRIPS = 24
#: task of the training, scenes drawn, of which are kept, share of words the model knows
DRAWS = (
    ("remove", 24, 24, None),
    ("extend", 12, 12, None),
    ("extend_free", 12, 0, None),
    ("fill", 48, 24, None),
    ("text", 12, 12, 1.0),
    ("text", 5, 5, 0.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, help="file of the assets stage")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    import_module("conftest")
    metrics = import_module("onereward_pack.local_backend.preview_model.training.metrics")
    bank = metrics.SceneBank(options.assets, "cpu", 6, 384, seed=metrics.HELD_OUT)
    bank.backgrounds.drop_photos()
    bank.batch(ROUND_TRIPS, SIDE, SIDE)
    FOLDER.mkdir(parents=True, exist_ok=True)
    prompts: dict[str, list[str]] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    for task, drawn, kept, known in DRAWS:
        if known is not None:
            bank.mix = replace(bank.mix, known_words=known)
        scenes = bank.batch(drawn, SIDE, SIDE, [task] * drawn)
        texts = bank.texts(scenes)
        for i in range(kept):
            number = len(prompts.setdefault(task, []))
            prompts[task].append(texts[i])
            answers.setdefault(task, []).append(answer(bank, scenes, task, i))
            save(f"{task}-{number:02}", scenes.image[i], scenes.mask[i])
    for name, content in (("prompts", prompts), ("answers", answers)):
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def answer(bank: Any, scenes: Any, task: str, i: int) -> dict[str, Any]:
    """Where the change is, in px (left, top, right, bottom), and the object or word asked for."""
    box = [round(side, 2) for side in scenes.box[i].tolist()]
    if task == "extend":
        at = scenes.mask[i, 0].nonzero()
        (top, left), (bottom, right) = at.amin(0).tolist(), at.amax(0).tolist()
        box = [left, top, right + 1, bottom + 1]
    label = ""
    if task == "fill":
        label = bank.sprites.names[scenes.sprite[i]]
    elif task == "text":
        label = bank.lettering.words[scenes.word[i]]
    return {"box": box, "label": label}


def save(name: str, image: Tensor, mask: Tensor) -> None:
    """Write a picture [3, h, w] as JPEG and its mask [1, h, w] as PNG."""
    picture = image.permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(picture).save(FOLDER / f"{name}.jpg", quality=92, subsampling=0)
    hole = mask[0].round().mul(255).byte().numpy()
    Image.fromarray(hole).convert("1").save(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
