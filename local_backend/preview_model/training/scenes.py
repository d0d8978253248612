"""Composites batches of (picture, mask, caption): everything the model is trained on.

The conditioning picture is the target with the masked area mid grey, as FLUX.1-Fill wants it, so
target, mask and caption describe a sample in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .backgrounds import Backgrounds
from .captions import build_captions
from .draws import Draws
from .lettering import Lettering
from .masks import BOX, CAPSULE, band_mask, box_mask, shape_mask
from .sprites import Sprites

TASKS = ("fill", "text", "remove", "extend", "extend_free")
#: every caption table is this wide, its rows repeated to fill it
TABLE_WIDTH = 48


@dataclass(frozen=True)
class SceneMix:
    """Shares of the tasks in a batch, of known words among words, of plates under words."""

    tasks: Mapping[str, float]
    known_words: float
    plates: float


MAIN_MIX = SceneMix(
    {"fill": 0.46, "text": 0.25, "remove": 0.14, "extend": 0.10, "extend_free": 0.05}, 0.88, 0.4
)
#: the last stage of training, which teaches the known words to be legible
TEXT_MIX = SceneMix(
    {"fill": 0.27, "text": 0.52, "remove": 0.12, "extend": 0.06, "extend_free": 0.03}, 1.0, 0.75
)


@dataclass(frozen=True)
class Scenes:
    """A batch: `image` and `clean` [n, 3, h, w] in 0..1, `mask` [n, 1, h, w] of 0 and 1.

    `caption`, `task`, `sprite`, `word` and `background` are indices [n]; `box` is the hole's
    left, top, right, bottom in px, [n, 4].
    """

    image: Tensor
    mask: Tensor
    caption: Tensor
    task: Tensor
    sprite: Tensor
    word: Tensor
    background: Tensor
    clean: Tensor
    box: Tensor


@dataclass(frozen=True)
class _Tasks:
    """The batch's tasks as indices and as flags, all [n]."""

    index: Tensor
    fill: Tensor
    text: Tensor
    remove: Tensor
    extend: Tensor
    extended: Tensor


@dataclass(frozen=True)
class _Hole:
    """Where the change is asked for; `twofold` marks removals with a second region."""

    center: tuple[Tensor, Tensor]
    half: tuple[Tensor, Tensor]
    mask: Tensor
    kind: Tensor
    twofold: Tensor
    keep: Tensor


def _per_picture(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)


class SceneBank:
    """Holds sprites, words and backgrounds on a device and composites batches from a seed."""

    def __init__(
        self,
        assets: Path | str,
        device: torch.device | str = "cpu",
        bg_per_class: int = 64,
        bg_size: int = 384,
        seed: int = 0,
        mix: SceneMix = MAIN_MIX,
    ) -> None:
        """`assets` is the file of the assets stage; `bg_size` is in px."""
        self.mix = mix
        self.draws = Draws(device, seed)
        dtype = torch.float32 if self.draws.device.type == "cpu" else torch.float16
        with np.load(assets, allow_pickle=False) as archive:
            self.sprites = Sprites(archive, self.draws, dtype)
            self.lettering = Lettering(archive, self.draws, dtype, mix.plates)
            self.backgrounds = Backgrounds(archive, self.draws, dtype, bg_per_class, bg_size)
        self.captions = build_captions(self.sprites.names, self.lettering.words)
        self.sprite_captions = self._table(self.captions.sprite)
        self.word_captions = self._table(self.captions.word)
        self.ground_captions = self._table(self.captions.background + [[self.captions.extend]])
        self.remove_captions = self._table([self.captions.remove])

    def _table(self, rows: list[list[int]]) -> Tensor:
        filled = [(row * (TABLE_WIDTH // len(row) + 1))[:TABLE_WIDTH] for row in rows]
        return torch.tensor(filled, device=self.draws.device)

    def texts(self, scenes: Scenes) -> list[str]:
        """The captions of a batch."""
        return [self.captions.texts[i] for i in scenes.caption.tolist()]

    @torch.no_grad()
    def batch(self, n: int, height: int, width: int, tasks: Sequence[str] | None = None) -> Scenes:
        """`n` scenes of that size in px; `tasks` names one of TASKS each, else the mix decides."""
        kinds = self._tasks(n, tasks)
        clean, ground = self._ground(kinds, height, width)
        hole = self._hole(kinds, height, width)
        for _ in range(2):
            clean = self._bystander(clean, kinds, hole)
        sprite = self._choose_sprite(n)
        asked = self._asked_object(clean, kinds, hole, sprite)
        word = self._choose_word(n)
        asked = self._asked_word(asked, kinds, hole, word)
        image = clean * (1 - hole.mask) + asked * hole.mask
        caption = self._caption(kinds, sprite, word, ground)
        (cx, cy), (ax, ay) = hole.center, hole.half
        box = torch.stack([cx - ax, cy - ay, cx + ax, cy + ay], 1)
        return Scenes(image, hole.mask, caption, kinds.index, sprite, word, ground, clean, box)

    def _tasks(self, n: int, names: Sequence[str] | None) -> _Tasks:
        if names is None:
            counts = [max(1, int(n * share)) for share in self.mix.tasks.values()]
            counts[0] += n - sum(counts)
            pairs = zip(TASKS, counts, strict=True)
            names = [task for task, count in pairs for _ in range(count)]
        index = torch.tensor([TASKS.index(name) for name in names], device=self.draws.device)
        fill, text, remove, extend, free = (index == i for i in range(5))
        return _Tasks(index, fill, text, remove, extend, extend | free)

    def _ground(self, kinds: _Tasks, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Backgrounds; prompted extension only knows captions for the painted ones."""
        n = len(kinds.index)
        any_ground = self.draws.pick(n, len(self.backgrounds))
        painted = self.draws.pick(n, self.backgrounds.painted)
        index = torch.where(kinds.extend, painted, any_ground)
        return self.backgrounds.crops(index, height, width)

    def _half_extents(self, kinds: _Tasks, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Half width and height of the holes in px; words get wide ones."""
        n = len(kinds.index)
        short = self.draws.uniform(n, 0.26, 0.72) * float(min(height, width))
        ratio = torch.exp(self.draws.uniform(n, -0.35, 0.35))
        ax = 0.5 * short * ratio.clamp(min=1)
        ay = 0.5 * short / ratio.clamp(max=1)
        word_width = self.draws.uniform(n, 0.45, 0.95) * width
        word_half = word_width / self.draws.uniform(n, 1.5, 3.6) / 2
        ax = torch.where(kinds.text, word_width / 2, ax)
        ay = torch.where(kinds.text, word_half.clamp(max=0.45 * height), ay)
        return ax.clamp(max=0.48 * width), ay.clamp(max=0.48 * height)

    def _hole(self, kinds: _Tasks, height: int, width: int) -> _Hole:
        draws = self.draws
        n = len(kinds.index)
        size = (height, width)
        ax, ay = self._half_extents(kinds, height, width)
        cx = ax + draws.rand(n) * (width - 2 * ax)
        cy = ay + draws.rand(n) * (height - 2 * ay)
        mask, kind = shape_mask(draws, size, (cx, cy), (ax, ay))
        boxes = box_mask(size, (cx, cy), (ax, ay))
        mask = torch.where(_per_picture(kinds.text), boxes, mask)
        elsewhere = (draws.rand(n) * width, draws.rand(n) * height)
        second, _ = shape_mask(draws, size, elsewhere, (ax * 0.5, ay * 0.5))
        twofold = kinds.remove & (draws.rand(n) < 0.25)
        mask = torch.where(_per_picture(twofold), torch.maximum(mask, second), mask)
        band, keep = band_mask(draws, n, size)
        mask = torch.where(_per_picture(kinds.extended), band, mask)
        return _Hole((cx, cy), (ax, ay), mask, kind, twofold, keep)

    def _bystander(self, clean: Tensor, kinds: _Tasks, hole: _Hole) -> Tensor:
        """Perhaps one more object, never centred in the hole."""
        draws = self.draws
        n, _, height, width = clean.shape
        size = draws.uniform(n, 0.18, 0.42) * float(min(height, width))
        x = draws.rand(n) * width
        y = draws.rand(n) * height
        clear_x = (x - hole.center[0]).abs() > hole.half[0] + size * 0.62
        clear_y = (y - hole.center[1]).abs() > hole.half[1] + size * 0.62
        outside = (clear_x | clear_y) & ~hole.twofold
        left, top, right, bottom = hole.keep.unbind(1)
        x = torch.where(kinds.extended, left + (right - left) * draws.rand(n), x)
        y = torch.where(kinds.extended, top + (bottom - top) * draws.rand(n), y)
        shown = ((outside | kinds.extended) & (draws.rand(n) < 0.45)).float()
        index = draws.pick(n, len(self.sprites))
        return self.sprites.draw(clean, index, (x, y), size, shown)

    def _choose_sprite(self, n: int) -> Tensor:
        any_sprite = self.draws.pick(n, len(self.sprites))
        is_object = self.draws.rand(n) < 0.6
        return torch.where(is_object, self.draws.pick(n, self.sprites.objects), any_sprite)

    def _choose_word(self, n: int) -> Tensor:
        is_known = self.draws.rand(n) < self.mix.known_words
        known = self.draws.pick(n, self.lettering.known)
        return torch.where(is_known, known, self.draws.pick(n, len(self.lettering)))

    def _asked_object(self, clean: Tensor, kinds: _Tasks, hole: _Hole, sprite: Tensor) -> Tensor:
        """The asked-for object, fitted into the hole."""
        draws = self.draws
        n = len(clean)
        (cx, cy), (ax, ay) = hole.center, hole.half
        fit = torch.where(hole.kind == CAPSULE, 0.94, 0.84)
        fit = torch.where(hole.kind == BOX, 1.0, fit)
        size = 2 * torch.minimum(ax, ay) * fit * draws.uniform(n, 0.78, 0.98)
        slack_x = (ax * 0.95 - size / 2).clamp(min=0)
        slack_y = (ay * 0.95 - size / 2).clamp(min=0)
        x = cx + (draws.rand(n) * 2 - 1) * slack_x * 0.5
        y = cy + (draws.rand(n) * 2 - 1) * slack_y * 0.5
        return self.sprites.draw(clean, sprite, (x, y), size, kinds.fill.float())

    def _asked_word(self, picture: Tensor, kinds: _Tasks, hole: _Hole, word: Tensor) -> Tensor:
        """The asked-for word, written into the holes of the text samples."""
        if not bool(kinds.text.any()):
            return picture
        at = kinds.text.nonzero()[:, 0]
        center = (hole.center[0][at], hole.center[1][at])
        box = (2 * hole.half[0][at], 2 * hole.half[1][at])
        picture[at] = self.lettering.draw(picture[at], word[at], center, box)
        return picture

    def _caption(self, kinds: _Tasks, sprite: Tensor, word: Tensor, ground: Tensor) -> Tensor:
        k = self.draws.pick(len(sprite), TABLE_WIDTH)
        caption = self.sprite_captions[sprite, k]
        caption = torch.where(kinds.text, self.word_captions[word, k], caption)
        caption = torch.where(kinds.remove, self.remove_captions[0, k], caption)
        caption = torch.where(kinds.extend, self.ground_captions[ground, k], caption)
        free = kinds.extended & ~kinds.extend
        return torch.where(free, torch.full_like(caption, self.captions.extend), caption)
