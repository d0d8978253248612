"""Says whether an edit did as asked: is the object there, is it gone, can the word be read.

The judges are two small networks in tests/data/judges, trained by quality_training.py on the
preview model's own kind of scenes; figures.json beside them says how good they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.quality_reader import Reader, crop_word, load_reader, read_words, word_losses
from fakes.quality import HeldOutScene
from onereward_pack.local_backend.preview_model.training.classifier import crop_box, load_classifier
from onereward_pack.nodes.contracts import EditTask
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent.parent / "data" / "judges"
READER = "reader.safetensors"
FIGURES = "figures.json"
#: what the reader says counts a fourth, as of a word of four letters: where strokes have molten it
#: is too sure, and a hair would turn the score from 0 to 1. True pictures still score 0.99
CAUTION = 4.0


@dataclass(frozen=True)
class Finding:
    """What a judge says of one picture.

    Attributes:
        score: 0..1. Fill: the probability of the object asked for, among all classes. Text: that
            of the word, among the model's list; of a word that is not on it, the share of letters
            that are right. Removal: 1 if no object is seen. Extension: None, nothing is asked for.
        hit: the object or the word is the likeliest, or none is seen.
        seen: what the judge sees.
    """

    score: float | None
    hit: bool | None
    seen: str = ""


@dataclass(frozen=True, eq=False)
class Judges:
    """Both networks; `threshold` is the probability from which on an object is seen."""

    objects: nn.Module
    names: Sequence[str]
    reader: Reader
    words: Sequence[str]
    threshold: float

    @torch.no_grad()
    def judge(self, scene: HeldOutScene, picture: Tensor) -> Finding:
        """`picture`: [1, 3, h, w] in 0..1, an answer to the scene's request."""
        box = torch.tensor([scene.box])
        if scene.task is EditTask.TEXT:
            return self._word(self.reader(crop_word(picture, box)), scene.label)
        if scene.task is EditTask.EXTEND:
            return Finding(None, None)
        chances = object_chances(self.objects, picture, box)[0]
        likeliest = int(chances.argmax())
        seen = self.names[likeliest]
        if scene.task is EditTask.FILL:
            return Finding(chances[self.names.index(scene.label)].item(), seen == scene.label, seen)
        clear = chances[likeliest].item() <= self.threshold
        return Finding(float(clear), clear, "" if clear else seen)

    def _word(self, columns: Tensor, word: str) -> Finding:
        [read] = read_words(columns)
        if word not in self.words:
            return Finding(letters_right(read, word), read == word, read)
        chances = list_chances(columns, self.words)
        return Finding(
            chances[self.words.index(word)].item(),
            self.words[int(chances.argmax())] == word,
            read,
        )


def load_judges(folder: Path = FOLDER) -> Judges:
    """The stored judges."""
    objects, names = load_classifier(folder)
    reader, words = load_reader(folder / READER)
    figures = json.loads((folder / FIGURES).read_text("utf-8"))
    return Judges(objects, names, reader, words, figures["threshold"])


def object_chances(objects: nn.Module, pictures: Tensor, boxes: Tensor) -> Tensor:
    """Probabilities [n, classes] of what is in the boxes of pictures [n, 3, h, w]."""
    chances: Tensor = objects(crop_box(pictures, boxes) * 2 - 1).softmax(1)
    return chances


def list_chances(columns: Tensor, words: Sequence[str]) -> Tensor:
    """Probabilities [words] of what one picture reads, if it is one of the words."""
    every = columns.expand(-1, len(words), -1)
    return (-word_losses(every, words) / CAUTION).softmax(0)


def letters_right(read: str, word: str) -> float:
    """1 for the word, less for each letter to be added, taken away or exchanged; never below 0."""
    before = list(range(len(word) + 1))
    for i, letter in enumerate(read, 1):
        row = [i]
        for j, wanted in enumerate(word, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != wanted)))
        before = row
    return max(0.0, 1 - before[-1] / len(word))
