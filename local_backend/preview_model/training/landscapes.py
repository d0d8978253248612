"""Backgrounds with a horizon: beaches, fields, deserts, mountains, seas, skies, hills, roads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .brushes import Brushes


class Landscapes(Brushes):
    """One method per class; each returns `[n, 1 or 3, size, size]`, not yet clamped."""

    def beach(self, n: int) -> Tensor:
        """Sky, a sea that grows shallow, a line of foam, sand."""
        horizon = self.uniform(n, 0.25, 0.5)
        waterline = self.uniform(n, 0.58, 0.78)
        picture = self.sky_gradient(n)
        deep = self.color(n, (0.05, 0.38, 0.6))
        shallow = self.color(n, (0.25, 0.72, 0.78))
        depth = ((self.y - horizon) / (waterline - horizon)).clamp(0, 1)
        sea = self.mix(deep, shallow, depth)
        sea = sea + 0.03 * self.noise(n, 0.8, sx=0.15)
        sand = self.color(n, (0.88, 0.77, 0.55), 0.06)
        sand = sand + 0.022 * self.noise(n, 0.35) + 0.02 * self.noise(n, 1.4)
        shore = waterline + 0.02 * self.ridge(n, 1.6) - self.y
        foam = torch.ones_like(picture) * 0.95
        picture = self.mix(picture, sea, self.inside(horizon - self.y, 0.002))
        picture = self.mix(picture, foam, self.inside(shore - 0.014))
        return self.mix(picture, sand, self.inside(shore))

    def field(self, n: int) -> Tensor:
        """Grass under a sky."""
        horizon = self.uniform(n, 0.2, 0.6) + 0.015 * self.ridge(n, 2)
        sky = self.sky_gradient(n)
        return self.mix(sky, self.grass(n), self.inside(horizon - self.y))

    def desert(self, n: int) -> Tensor:
        """Three ridges of dunes."""
        picture = self.sky_gradient(n, (0.35, 0.6, 0.85), (0.95, 0.88, 0.75), 0.2)
        horizon = self.uniform(n, 0.3, 0.5)
        sand = self.color(n, (0.86, 0.62, 0.36), 0.06)
        for k in range(3):
            ridge = horizon + 0.16 * k + 0.05 * self.ridge(n, 2.0)
            grain = 0.015 * self.noise(n, 0.6, sy=2)
            dune = sand * (1 - 0.1 * k) + grain + 0.1 * (ridge - self.y)
            picture = self.mix(picture, dune, self.inside(ridge - self.y))
        return picture

    def mountains(self, n: int) -> Tensor:
        """Snowy rock behind a green ridge."""
        picture = self.sky_gradient(n)
        horizon = self.uniform(n, 0.3, 0.5)
        far = horizon + 0.09 * self.ridge(n, 1.25)
        rock = self.color(n, (0.42, 0.44, 0.5)) + 0.05 * self.noise(n, 1.0)
        snow = self.inside(self.y - far - 0.1 + 0.03 * self.noise(n, 1.0), 0.01)
        white = torch.full_like(rock, 0.95)
        picture = self.mix(picture, self.mix(rock, white, snow), self.inside(far - self.y))
        near = horizon + self.uniform(n, 0.22, 0.35) + 0.04 * self.ridge(n, 1.6)
        slope = self.color(n, (0.2, 0.38, 0.22)) + 0.04 * self.noise(n, 0.7)
        return self.mix(picture, slope, self.inside(near - self.y))

    def ocean(self, n: int) -> Tensor:
        """Open water under a sky."""
        horizon = self.uniform(n, 0.15, 0.6)
        far = self.color(n, (0.2, 0.5, 0.7))
        near = self.color(n, (0.03, 0.22, 0.42))
        sea = self.mix(far, near, self.y) + 0.05 * self.noise(n, 0.8, sx=0.2)
        return self.mix(self.sky_gradient(n), sea, self.inside(horizon - self.y, 0.002))

    def night(self, n: int) -> Tensor:
        """Stars above a dark ground."""
        zenith = self.color(n, (0.02, 0.03, 0.12), 0.02)
        low = self.color(n, (0.12, 0.12, 0.32), 0.05)
        picture = self.mix(zenith, low, self.y)
        shape = (n, 1, self.size, self.size)
        points = torch.rand(shape, device=self.device, generator=self.generator) > 0.9985
        stars = F.max_pool2d(points.float(), 3, 1, 1) * self.uniform(n, 0.6, 1)
        picture = torch.maximum(picture + 0.03 * self.noise(n, 1.6), stars * 0.95)
        ground = self.uniform(n, 0.75, 1.2) + 0.04 * self.ridge(n, 1.5)
        soil = self.color(n, (0.03, 0.05, 0.05), 0.02)
        return self.mix(picture, soil, self.inside(ground - self.y))

    def sunset(self, n: int) -> Tensor:
        """A low sun over dark water."""
        zenith = self.color(n, (0.45, 0.22, 0.5))
        glow = self.color(n, (0.98, 0.6, 0.25))
        picture = self.mix(zenith, glow, (self.y * 1.4).clamp(0, 1))
        horizon = self.uniform(n, 0.55, 0.75)
        dx = self.x - self.uniform(n, 0.2, 0.8)
        dy = self.y - horizon + self.uniform(n, 0.0, 0.15)
        radius = (dx**2 + dy**2).sqrt()
        picture = picture + 0.3 * torch.exp(-radius * 5)
        disc = torch.tensor([1, 0.93, 0.7], device=self.device).view(1, 3, 1, 1)
        edge = self.inside(radius - self.uniform(n, 0.06, 0.1))
        picture = self.mix(picture, disc.expand_as(picture), edge)
        far = self.color(n, (0.7, 0.35, 0.25))
        near = self.color(n, (0.15, 0.08, 0.2))
        sea = self.mix(far, near, ((self.y - horizon) / (1 - horizon)).clamp(0, 1))
        sea = sea + 0.06 * self.noise(n, 0.8, sx=0.15)
        return self.mix(picture, sea, self.inside(horizon - self.y, 0.002))

    def sky(self, n: int) -> Tensor:
        """Nothing but sky and clouds."""
        return self.sky_gradient(n, (0.15, 0.4, 0.8), (0.65, 0.82, 0.95), 0.95)

    def hills(self, n: int) -> Tensor:
        """Four green ridges, the nearer the darker."""
        picture = self.sky_gradient(n)
        horizon = self.uniform(n, 0.3, 0.5)
        for k in range(4):
            ridge = horizon + 0.13 * k + 0.05 * self.ridge(n, 2.2)
            tone = (0.42 - 0.06 * k, 0.62 - 0.05 * k, 0.35 - 0.06 * k)
            green = self.color(n, tone, 0.04)
            hill = green + 0.02 * self.noise(n, 0.7) + 0.12 * (self.y - ridge)
            picture = self.mix(picture, hill, self.inside(ridge - self.y, 0.002))
        return picture

    def road(self, n: int) -> Tensor:
        """A road with a dashed middle line, running to the horizon."""
        horizon = self.uniform(n, 0.3, 0.5)
        sky = self.sky_gradient(n)
        picture = self.mix(sky, self.grass(n), self.inside(horizon - self.y, 0.002))
        depth = (self.y - horizon).clamp(min=0)
        middle = 0.5 + self.uniform(n, -0.12, 0.12)
        aside = (self.x - middle - self.uniform(n, -0.25, 0.25) * depth).abs()
        below = (self.y > horizon).float()
        asphalt = self.color(n, (0.35, 0.35, 0.37), 0.05) + 0.02 * self.noise(n, 0.4)
        lane = self.inside(aside - 0.02 - 0.6 * depth) * below
        picture = self.mix(picture, asphalt, lane)
        dash = (torch.sin(6 / (depth + 0.06)) > 0).float()
        paint = self.inside(aside - 0.02 * depth - 0.001, 0.002) * below * dash
        return self.mix(picture, torch.full_like(picture, 0.93), paint)
