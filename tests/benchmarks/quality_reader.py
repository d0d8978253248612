"""A small network that reads the drawn words letter by letter, so that it also reads what no list
holds and does not guess a misspelt word right.
"""

from __future__ import annotations

import json
import string
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

LETTERS = string.ascii_uppercase + string.digits  # class 0 is "no letter here"
HEIGHT, WIDTH = 40, 128
RATE = 3e-3
BATCH = 32
KNOWN = 0.3  # of the words it learns from; the rest is random letters, so that it learns to spell
_COLUMNS = (((2, 2), 32), ((2, 2), 64), ((2, 1), 96), ((2, 1), 128))


class Reader(nn.Module):
    """Pictures [n, 3, HEIGHT, WIDTH] in 0..1 to log probabilities [columns, n, 1 + letters]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stride, width in _COLUMNS:
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
            grouped = nn.Conv2d(width, width, 3, 1, 1, groups=width // 32)
            layers += [grouped, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.columns = nn.Sequential(*layers)
        self.head = nn.Conv1d(channels * 3, 1 + len(LETTERS), 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        columns = self.columns(pictures * 2 - 1).flatten(1, 2)
        return self.head(columns).log_softmax(1).permute(2, 0, 1)


def crop_word(pictures: Tensor, boxes: Tensor) -> Tensor:
    """The boxes (left, top, right, bottom px, [n, 4]) of pictures [n, 3, h, w], as the reader takes
    them.
    """
    n, _, height, width = pictures.shape
    left, top, right, bottom = (boxes / boxes.new_tensor([width, height] * 2) * 2 - 1).unbind(1)
    turn = boxes.new_zeros(n, 2, 3)
    turn[:, 0, 0], turn[:, 0, 2] = (right - left) / 2, (right + left) / 2
    turn[:, 1, 1], turn[:, 1, 2] = (bottom - top) / 2, (bottom + top) / 2
    grid = functional.affine_grid(turn, [n, 3, 2 * HEIGHT, 2 * WIDTH], align_corners=False)
    fine = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return functional.avg_pool2d(fine, 2)


def spell(word: str) -> list[int]:
    """The classes of a word's letters."""
    return [1 + LETTERS.index(letter) for letter in word]


def word_losses(columns: Tensor, words: Sequence[str]) -> Tensor:
    """-log probability [n] of a word in each picture, of all ways to spread it over the columns."""
    spelled = [spell(word) for word in words]
    return functional.ctc_loss(
        columns,
        torch.tensor([letter for word in spelled for letter in word]),
        torch.full((columns.shape[1],), len(columns)),
        torch.tensor([len(word) for word in spelled]),
        reduction="none",
    )


def read_words(columns: Tensor) -> list[str]:
    """The likeliest letters, repeated ones and gaps taken out."""
    words = []
    for classes in columns.argmax(2).T.tolist():
        changes = [c for c, before in zip(classes, [0, *classes], strict=False) if c != before]
        words.append("".join(LETTERS[c - 1] for c in changes if c))
    return words


def draw_words(bank: Any, known: float, n: int = BATCH) -> tuple[Tensor, list[str]]:
    """Crops of words of the training's lettering, as large as its holes of one size; `known` is
    the share of words from the model's list.
    """
    draws, lettering = bank.draws, bank.lettering
    wide = draws.uniform(1, 0.45, 0.95).item() * 256
    size = (round(wide / draws.uniform(1, 1.5, 3.6).item()), round(wide))
    ground, _ = bank.backgrounds.crops(draws.pick(n, len(bank.backgrounds)), *size)
    listed = draws.rand(n) < known
    index = torch.where(listed, draws.pick(n, lettering.known), draws.pick(n, len(lettering)))
    off = [side / 2 * (1 + draws.uniform(n, -0.06, 0.06)) for side in (size[1], size[0])]
    fit = draws.uniform(n, 0.85, 1.04)
    box = (size[1] * fit, size[0] * fit)
    pictures = lettering.draw(ground, index, (off[0], off[1]), box)
    whole = torch.tensor([[0.0, 0.0, size[1], size[0]]]).expand(n, 4)
    return crop_word(pictures, whole), [lettering.words[i] for i in index.tolist()]


def worn(crops: Tensor) -> Tensor:
    """The same words in wobbly letters with molten strokes, as a model draws them: some hardly
    touched, some past reading.
    """
    n = len(crops)
    wear = torch.rand(n, 1, 1, 1)
    bends = functional.interpolate(torch.randn(n, 2, 4, 10), (HEIGHT, WIDTH), mode="bicubic")
    bends = wear * bends * bends.new_tensor([5 / WIDTH, 6 / HEIGHT]).view(1, 2, 1, 1)
    straight = functional.affine_grid(torch.eye(2, 3).expand(n, 2, 3), list(crops.shape), False)
    grid = straight + bends.permute(0, 2, 3, 1)
    crops = functional.grid_sample(crops, grid, padding_mode="border", align_corners=False)
    spots = functional.interpolate(torch.rand(n, 1, 10, 32), (HEIGHT, WIDTH), mode="bilinear")
    molten = (spots < 0.42 * wear).float()
    crops = crops + molten * (_soft(crops, 7) - crops)
    crops = torch.where(torch.rand(n, 1, 1, 1) < 0.5, _soft(crops, 3), crops)
    noisy = crops + 0.05 * torch.randn_like(crops)
    return noisy * (0.85 + 0.3 * torch.rand(n, 3, 1, 1))


def _soft(crops: Tensor, size: int) -> Tensor:
    around = functional.pad(crops, (size // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(around, size, 1)


def train_reader(bank: Any, seconds: float) -> Reader:
    """A reader of the bank's words, after that long on the CPU."""
    torch.manual_seed(0)
    reader = Reader()
    optimizer = torch.optim.AdamW(reader.parameters(), RATE, weight_decay=0.01)
    start, step = time.monotonic(), 0
    while (progress := (time.monotonic() - start) / seconds) < 1:
        crops, words = draw_words(bank, KNOWN)
        lengths = torch.tensor([len(word) for word in words])
        loss = (word_losses(reader(worn(crops)), words) / lengths).mean()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - progress) + 1e-5
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(reader.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"reader: step {step}, {progress * seconds:.0f} s, loss {loss:.3f}", flush=True)
    return reader.eval()


def load_reader(path: Path) -> tuple[Reader, list[str]]:
    """The stored reader, and the words of the model's list."""
    with safe_open(path, "pt") as file:
        words: list[str] = json.loads(file.metadata()["words"])
    reader = Reader()
    reader.load_state_dict(load_file(path))
    return reader.eval(), words
