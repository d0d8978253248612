"""Train the quality gate's judges, and measure them on true pictures.

    python tests/benchmarks/quality_training.py --assets assets.npz [--seconds 600] [--out FOLDER]

The assets are those of the preview model's training. Each judge gets that many seconds on one CPU
core. The judge of objects is the training room's own `classifier` stage, as it stands. Weights are
stored in fp16, as the judges load them; the figures are taken with the stored weights, on scenes of
a seed that neither the judges, nor the preview model, nor the gate knows.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import conftest  # noqa: F401  (loads the pack as onereward_pack)

import torch
from benchmarks.quality_judges import (
    FIGURES,
    FOLDER,
    READER,
    list_chances,
    object_chances,
)
from benchmarks.quality_reader import crop_word, load_reader, read_words, train_reader
from onereward_pack.local_backend.preview_model.training.classifier import (
    FILE,
    HELD_OUT,
    load_classifier,
    train_classifier,
)
from onereward_pack.local_backend.preview_model.training.scenes import SceneBank, Scenes
from safetensors.torch import save_file
from torch import Tensor

SIDE = 256
BATCH = 32
BATCHES = 10
READER_SEED = 79
#: of true backgrounds pass the judge of removals
CLEAN = 0.95


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point weights as fp16; counters as they are."""
    return {
        name: (weight.half() if weight.is_floating_point() else weight).contiguous()
        for name, weight in weights.items()
    }


def train_objects(assets: Path, seconds: float, folder: Path) -> None:
    """Write the judge of objects to the folder."""
    with TemporaryDirectory() as work:
        train_classifier(assets, Path(work), seconds, smoke=False)
        network, names = load_classifier(Path(work))
    metadata = {"names": json.dumps(names)}
    save_file(halved(network.state_dict()), folder / FILE, metadata=metadata)


def train_words(assets: Path, seconds: float, folder: Path) -> None:
    """Write the judge of words to the folder."""
    bank = SceneBank(assets, "cpu", 12, 384, seed=READER_SEED)
    reader = train_reader(bank, seconds)
    words = bank.lettering.words[: bank.lettering.known]
    metadata = {"words": json.dumps(words)}
    save_file(halved(reader.state_dict()), folder / READER, metadata=metadata)


def true_scenes(assets: Path) -> SceneBank:
    """The bank the judges are measured on."""
    bank = SceneBank(assets, "cpu", 6, 384, seed=HELD_OUT + 2)
    bank.backgrounds.drop_photos()
    return bank


@torch.no_grad()
def measure_objects(bank: SceneBank, folder: Path) -> dict[str, float]:
    """How often the judge names what is there, and from which probability on it sees an object."""
    network, _ = load_classifier(folder)

    def chances(task: str) -> tuple[Tensor, list[Scenes]]:
        scenes = [bank.batch(BATCH, SIDE, SIDE, [task] * BATCH) for _ in range(BATCHES)]
        return torch.cat([object_chances(network, s.image, s.box) for s in scenes]), scenes

    empty, _ = chances("remove")
    drawn, scenes = chances("fill")
    asked = torch.cat([s.sprite for s in scenes])
    threshold = empty.amax(1).quantile(CLEAN).item()
    return {
        "object named right": (drawn.argmax(1) == asked).float().mean().item(),
        "probability of the object": drawn.gather(1, asked[:, None]).mean().item(),
        "threshold": threshold,
        "true backgrounds that pass": (empty.amax(1) <= threshold).float().mean().item(),
        "objects that are seen": (drawn.amax(1) > threshold).float().mean().item(),
    }


@torch.no_grad()
def measure_words(bank: SceneBank, folder: Path) -> dict[str, float]:
    """How often the judge reads what is written, in words of the list and in random letters."""
    reader, words = load_reader(folder / READER)
    figures: dict[str, float] = {}
    chances: list[float] = []
    for known, name in ((1.0, "known words"), (0.0, "random letters")):
        bank.mix = replace(bank.mix, known_words=known)
        right = 0
        for _ in range(BATCHES):
            scenes = bank.batch(BATCH, SIDE, SIDE, ["text"] * BATCH)
            written = [bank.lettering.words[i] for i in scenes.word.tolist()]
            columns = reader(crop_word(scenes.image, scenes.box))
            right += sum(a == b for a, b in zip(read_words(columns), written, strict=True))
            for i, word in enumerate(written):
                if known:
                    among = list_chances(columns[:, i : i + 1], words)
                    chances.append(among[words.index(word)].item())
        figures[f"{name} read letter by letter"] = right / (BATCH * BATCHES)
    return figures | {"probability of a known word": sum(chances) / len(chances)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--assets", type=Path, required=True, help="file of the assets stage")
    parser.add_argument("--seconds", type=float, default=600, help="for each judge (600)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    train_words(options.assets, options.seconds, options.out)
    train_objects(options.assets, options.seconds, options.out)
    figures = measure_objects(true_scenes(options.assets), options.out)
    figures |= measure_words(true_scenes(options.assets), options.out)
    print(json.dumps(figures, indent=1))
    text = json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1)
    (options.out / FIGURES).write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
