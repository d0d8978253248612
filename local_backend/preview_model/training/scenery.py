"""Backgrounds built of many parts: rooms, cities, forests, stone walls, lights, shapes, marble."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .patterns import Patterns


class Scenery(Patterns):
    """One method per class; each returns `[n, 1 or 3, size, size]`, not yet clamped."""

    def bokeh(self, n: int) -> Tensor:
        """Blurred lights in the dark."""
        top = self.any_color(n, 0, 0.3)
        picture = self.mix(top, self.any_color(n, 0.05, 0.45), self.y) * torch.ones_like(self.x)
        for _ in range(14):
            dx = self.x - self.uniform(n, -0.05, 1.05)
            dy = self.y - self.uniform(n, -0.05, 1.05)
            radius = (dx**2 + dy**2).sqrt()
            light = self.any_color(n, 0.1, 0.9) * self.uniform(n, 0.2, 0.6)
            picture = picture + light * self.inside(radius - self.uniform(n, 0.03, 0.12), 0.008)
        return picture

    def room(self, n: int) -> Tensor:
        """A plain or striped wall, a skirting board, a wooden floor."""
        edge = self.uniform(n, 0.55, 0.75)
        wall = self.any_color(n, 0.5, 0.95) * (0.9 + 0.15 * self.x)
        wall = wall + 0.006 * self.noise(n, 0.5)
        striped = (self.uniform(n) > 0.6).float() * 0.05
        phase = (self.x * self.uniform(n, 8, 16).round()) * 2 * math.pi
        stripes = striped * torch.sign(phase.sin())
        floor = self.wood(n) * (0.8 + 0.3 * self.y)
        picture = self.mix(wall + stripes, floor, self.inside(edge - self.y, 0.002))
        board = self.color(n, (0.93, 0.92, 0.9), 0.05)
        return self.mix(picture, board, self.inside((self.y - edge + 0.015).abs() - 0.015, 0.002))

    def _towers(self, n: int, k: int, base: float) -> tuple[Tensor, Tensor]:
        """One row of houses with lit windows, and where it stands."""
        count = self.uniform(n, 7, 12).round()
        house = (self.x * count + self.uniform(n)).floor()
        height = self.scatter(house * (57.3 + k) + self.uniform(n, 0, 99))
        top = 0.28 + 0.15 * k + 0.4 * height
        tone = self.color(n, (base, base, base + 0.05), 0.1)
        wy = self.y * 44
        wx = self.x * count * 5
        windows = ((wy % 1 > 0.45) & (wx % 1 > 0.45)).float()
        lit = self.scatter(wy.floor() * 12.99 + wx.floor() * 78.2)
        windows = windows * (lit > 0.5).float() * (self.y > top + 0.03)
        wall = tone * torch.ones_like(self.x + self.y)
        row = self.mix(wall, self.color(n, (0.95, 0.85, 0.5), 0.05), windows * 0.8)
        return row, (self.y > top).float()

    def city(self, n: int) -> Tensor:
        """Two rows of houses."""
        top = self.any_color(n, 0.15, 0.7)
        picture = self.mix(top, self.any_color(n, 0.5, 0.95), self.y) * torch.ones_like(self.x)
        for k, base in enumerate((0.5, 0.25)):
            row, where = self._towers(n, k, base)
            picture = self.mix(picture, row, where)
        return picture

    def _firs(self, n: int, k: int) -> tuple[Tensor, Tensor]:
        """One row of firs, the k-th from the back, and where it stands."""
        count = self.uniform(n, 9, 14) / (1 + 0.25 * k)
        along = self.x * count + self.uniform(n)
        tree = along.floor()
        height = self.scatter(tree * 33.1 + self.uniform(n, 0, 99))
        top = 0.12 + 0.14 * k + 0.12 * height
        width = (self.y - top) * count * 0.9
        saw = 0.12 * ((self.y * 30) % 1)
        half = (width * 0.35 + saw * (width > 0)).clamp(0, 0.62)
        where = ((along - tree - 0.5).abs() < half).float() * (self.y > top)
        tone = (0.28 - 0.06 * k, 0.42 - 0.05 * k, 0.26 - 0.05 * k)
        green = self.color(n, tone, 0.03) + 0.03 * self.noise(n, 0.6)
        return green, where

    def forest(self, n: int) -> Tensor:
        """Four rows of firs in haze, grass in front."""
        haze = self.color(n, (0.6, 0.75, 0.8))
        low = self.color(n, (0.8, 0.88, 0.8))
        picture = self.mix(haze, low, self.y) * torch.ones_like(self.x)
        for k in range(4):
            green, where = self._firs(n, k)
            picture = self.mix(picture, green, where)
        grass = self.grass(n) * 0.7
        return self.mix(picture, grass, self.inside(self.uniform(n, 0.78, 0.92) - self.y, 0.01))

    def stones(self, n: int) -> Tensor:
        """A wall of rounded stones."""
        nearest, second, number = self.cells(n, self.uniform(n, 6, 13))
        stone = self.color(n, (0.55, 0.53, 0.5), 0.1) + (number - 0.5) * 0.25
        stone = stone + 0.04 * self.noise(n, 0.8) - 0.1 * nearest
        gap = self.color(n, (0.28, 0.26, 0.24), 0.06)
        return self.mix(stone, gap, self.inside(second - nearest - 0.1, 0.03))

    def abstract(self, n: int) -> Tensor:
        """Dead leaves: overlapping random discs and boxes, close to natural image statistics."""
        picture = self.any_color(n) * torch.ones_like(self.x + self.y)
        for _ in range(40):
            reach = self.uniform(n, 0, 1) ** 2 * 0.3 + 0.03
            dx = self.x - self.uniform(n, -0.1, 1.1)
            dy = self.y - self.uniform(n, -0.1, 1.1)
            turn = self.uniform(n, 0, math.pi)
            along = dx * turn.cos() + dy * turn.sin()
            across = (dy * turn.cos() - dx * turn.sin()) * self.uniform(n, 0.6, 1.8)
            boxy = (self.uniform(n) > 0.5).float()
            box = torch.maximum(along.abs(), across.abs())
            disc = (along**2 + across**2).sqrt()
            radius = boxy * box + (1 - boxy) * disc
            shade = self.any_color(n, 0, 1) + self.uniform(n, -1, 1) * along
            picture = self.mix(picture, shade, self.inside(radius - reach, 0.003))
        return picture + self.uniform(n, 0, 0.05) * self.noise(n, 0.6)

    def texture(self, n: int) -> Tensor:
        """Marble: two colours mixed by a noise field."""
        field = self.noise(n, 1.5)
        t = torch.sigmoid(field * self.uniform(n, 0.7, 2.5))
        first = self.any_color(n)
        second = self.any_color(n)
        return self.mix(first, second, t) + self.uniform(n, 0.0, 0.08) * self.noise(n, 1.0, 3)
