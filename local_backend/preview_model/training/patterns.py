"""Backgrounds that repeat: bricks, planks, checkers, stripes, dots, and the plain gradient."""

from __future__ import annotations

import math

from torch import Tensor

from .brushes import RGB, Brushes


class Patterns(Brushes):
    """One method per class; each returns `[n, 1 or 3, size, size]`, not yet clamped."""

    def brick(self, n: int) -> Tensor:
        """Bricks of varying shade with mortar between them; red more often than not."""
        rows = self.uniform(n, 8, 18).round()
        columns = rows * self.uniform(n, 0.4, 0.55)
        y = self.y * rows
        row = y.floor()
        x = self.x * columns + 0.5 * (row % 2)
        shade = self.scatter(row * 127.1 + x.floor() * 311.7 + self.uniform(n, 0, 50))
        in_y = y - row
        in_x = x - x.floor()
        joint = (self.inside(in_y - 0.1, 0.02) + self.inside(in_x - 0.05, 0.01)).clamp(0, 1)
        is_red = (self.uniform(n) > 0.3).float()
        red = self.color(n, (0.64, 0.29, 0.2), 0.08) * is_red
        base = red + self.any_color(n, 0.35, 0.8) * (1 - is_red)
        wall = base + (shade - 0.5) * 0.16 + 0.03 * self.noise(n, 0.6)
        return self.mix(wall, self.color(n, (0.75, 0.72, 0.68), 0.08), joint)

    def wood(self, n: int, base: RGB = (0.6, 0.4, 0.22)) -> Tensor:
        """Planks with grain along x."""
        planks = self.uniform(n, 4, 9).round()
        y = self.y * planks
        row = y.floor()
        shade = self.scatter(row * 91.7 + self.uniform(n, 0, 50))
        grain = self.noise(n, 0.9, sx=0.08)
        plank = self.color(n, base, 0.1) + (shade - 0.5) * 0.12 + 0.05 * grain
        plank = plank + 0.02 * self.noise(n, 0.5, sx=0.1)
        return self.mix(plank, plank * 0.45, self.inside((y - row) - 0.03, 0.01))

    def checker(self, n: int) -> Tensor:
        """Two-coloured squares."""
        count = self.uniform(n, 4, 10).round()
        odd = ((self.x * count).floor() + (self.y * count).floor()) % 2
        dark = self.any_color(n, 0.0, 0.6)
        return self.mix(dark, self.any_color(n, 0.5, 1.0), odd) + 0.01 * self.noise(n, 1.0)

    def stripes(self, n: int) -> Tensor:
        """Stripes in one of four directions."""
        turn = (self.uniform(n, 0, 4).floor()) * math.pi / 4
        along = self.x * turn.cos() + self.y * turn.sin()
        t = along * self.uniform(n, 5, 12).round()
        first = self.any_color(n)
        second = self.any_color(n)
        return self.mix(first, second, self.inside(((t * 2 * math.pi).sin()), 0.12))

    def dots(self, n: int) -> Tensor:
        """Polka dots in staggered rows."""
        count = self.uniform(n, 5, 11).round()
        y = self.y * count
        x = self.x * count + 0.5 * (y.floor() % 2)
        radius = ((x - x.floor() - 0.5) ** 2 + (y - y.floor() - 0.5) ** 2).sqrt()
        ground = self.any_color(n)
        ink = self.any_color(n)
        return self.mix(ground, ink, self.inside(radius - self.uniform(n, 0.2, 0.36), 0.03))

    def plain(self, n: int) -> Tensor:
        """One colour, or a smooth gradient from it."""
        turn = self.uniform(n, 0, 2 * math.pi)
        along = (self.x - 0.5) * turn.cos() + (self.y - 0.5) * turn.sin()
        t = (along + 0.5).clamp(0, 1)
        color = self.any_color(n)
        drift = self.uniform(n, -0.35, 0.35, 3)
        end = (color + drift * (self.uniform(n) > 0.35)).clamp(0, 1)
        return self.mix(color, end, t) + 0.006 * self.noise(n, 0.3)
