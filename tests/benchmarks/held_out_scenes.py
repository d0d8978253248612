"""Write the held-out scenes of the preview model's README to tests/data/held_out.

    python tests/benchmarks/held_out_scenes.py --assets assets.npz

The assets are those of the training's first stage, drawn with the fonts and the photos; the scenes
are the ones its `metrics` stage measures on, in the same order.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from PIL import Image

TESTS = Path(__file__).resolve().parent.parent
FOLDER = TESTS / "data" / "held_out"
COUNTS = {"remove": 24, "extend": 12}
SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, help="file of the assets stage")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    import_module("conftest")
    metrics = import_module("onereward_pack.local_backend.preview_model.training.metrics")
    bank = metrics.SceneBank(options.assets, "cpu", 6, 384, seed=metrics.HELD_OUT)
    bank.backgrounds.drop_photos()
    bank.batch(24, SIDE, SIDE)  # the scenes of the VAE's round trip come first
    FOLDER.mkdir(parents=True, exist_ok=True)
    prompts = {}
    for task, count in COUNTS.items():
        scenes = bank.batch(count, SIDE, SIDE, [task] * count)
        prompts[task] = bank.texts(scenes)
        for i in range(count):
            picture = scenes.image[i].permute(1, 2, 0).mul(255).round().byte().numpy()
            Image.fromarray(picture).save(FOLDER / f"{task}-{i:02}.jpg", quality=92, subsampling=0)
            mask = scenes.mask[i, 0].round().mul(255).byte().numpy()
            Image.fromarray(mask).convert("1").save(FOLDER / f"{task}-{i:02}.png")
    (FOLDER / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
