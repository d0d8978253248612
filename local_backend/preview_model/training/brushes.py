"""The painters' shared brushes: seeded random numbers, noise fields, edges, skies, grass, cells."""

from __future__ import annotations

import torch
from torch import Tensor

RGB = tuple[float, float, float]


class Brushes:
    """Batches of fields `[n, c, size, size]` on one device, all drawn from one generator."""

    def __init__(self, size: int, device: torch.device | str, gen: torch.Generator) -> None:
        """`size` is the side in px; `gen` lives on `device` and fixes every picture."""
        self.size = size
        self.device = torch.device(device)
        self.generator = gen
        axis = (torch.arange(size, device=device) + 0.5) / size
        self.y = axis.view(1, 1, -1, 1)
        self.x = axis.view(1, 1, 1, -1)

    # -- random numbers
    def uniform(self, n: int, low: float = 0.0, high: float = 1.0, channels: int = 1) -> Tensor:
        """One number per picture (and channel), `[n, channels, 1, 1]`."""
        drawn = torch.rand(n, channels, 1, 1, device=self.device, generator=self.generator)
        return drawn * (high - low) + low

    def color(self, n: int, base: RGB, spread: float = 0.08) -> Tensor:
        """Colours near `base`, `[n, 3, 1, 1]`: lightness varies by `spread`, hue by half of it."""
        center = torch.tensor(base, device=self.device).view(1, 3, 1, 1)
        light = self.uniform(n, -spread, spread)
        hue = self.uniform(n, -spread / 2, spread / 2, 3)
        return (center + light + hue).clamp(0, 1)

    def any_color(self, n: int, low: float = 0.1, high: float = 0.95) -> Tensor:
        """Any colours, `[n, 3, 1, 1]`."""
        return self.uniform(n, low, high, 3)

    def noise(
        self, n: int, beta: float = 1.0, channels: int = 1, sx: float = 1.0, sy: float = 1.0
    ) -> Tensor:
        """Gaussian field, mean 0 and deviation 1, with power spectrum 1/f^(2 beta).

        `sx` < 1 gives streaks along x, `sy` < 1 along y.
        """
        side = self.size
        fy = torch.fft.fftfreq(side, device=self.device).view(-1, 1) * side * sx
        fx = torch.fft.rfftfreq(side, device=self.device).view(1, -1) * side * sy
        amplitude = 1 / (fx**2 + fy**2).sqrt().clamp(min=1) ** beta
        shape = (n, channels, side, side)
        white = torch.randn(shape, device=self.device, generator=self.generator)
        field: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(side, side))
        deviation = field.std((2, 3), keepdim=True).clamp(min=1e-6)
        return (field - field.mean((2, 3), keepdim=True)) / deviation

    def ridge(self, n: int, beta: float = 1.3) -> Tensor:
        """The same over x alone, `[n, 1, 1, size]`: a mountain's or a shore's line."""
        side = self.size
        fx = torch.fft.rfftfreq(side, device=self.device).view(1, 1, 1, -1) * side
        white = torch.randn(n, 1, 1, side, device=self.device, generator=self.generator)
        line: Tensor = torch.fft.irfft(torch.fft.rfft(white) / fx.clamp(min=1) ** beta, n=side)
        deviation = line.std(-1, keepdim=True).clamp(min=1e-6)
        return (line - line.mean(-1, keepdim=True)) / deviation

    # -- mixing
    @staticmethod
    def mix(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """`a` where t is 0, `b` where t is 1."""
        return a + (b - a) * t

    @staticmethod
    def inside(distance: Tensor, width: float = 0.004) -> Tensor:
        """1 where `distance` < 0, with a soft edge of about `width` (1 = the picture's side)."""
        return torch.sigmoid(-distance / width)

    @staticmethod
    def scatter(seed: Tensor) -> Tensor:
        """A hash of `seed` in 0..1: sin, magnified, the fraction kept."""
        magnified = torch.sin(seed) * 43758.5453
        return magnified - magnified.floor()

    # -- motifs that several pictures share
    def sky_gradient(
        self,
        n: int,
        top: RGB = (0.25, 0.5, 0.85),
        low: RGB = (0.75, 0.88, 0.97),
        clouds: float = 0.5,
    ) -> Tensor:
        """A sky from `top` to `low`, with clouds of that opacity."""
        zenith = self.color(n, top)
        horizon = self.color(n, low, 0.05)
        sky = self.mix(zenith, horizon, self.y.clamp(0, 1) / self.uniform(n, 0.5, 0.9))
        if clouds:
            field = self.noise(n, 1.6, sx=0.6)
            cover = ((field - self.uniform(n, 0.0, 1.2)) * 0.8).clamp(0, 1) * clouds
            sky = self.mix(sky, torch.ones_like(sky) * 0.97, cover)
        return sky.clamp(0, 1)

    def grass(self, n: int) -> Tensor:
        """Grass, darker towards the top."""
        green = self.color(n, (0.3, 0.55, 0.18), 0.08)
        blades = 0.05 * self.noise(n, 0.5, sy=0.35)
        patches = 0.04 * self.noise(n, 1.3)
        return green + blades + patches - 0.08 * (1 - self.y)

    def cells(self, n: int, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Voronoi cells, `count` to a side: nearest and second distance, and the cell's number."""
        y = self.y * count
        x = self.x * count
        nearest = torch.full((n, 1, self.size, self.size), 9.0, device=self.device)
        second = nearest.clone()
        number = torch.zeros_like(nearest)
        seed = self.uniform(n, 0, 50)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                cell_y = y.floor() + dy
                cell_x = x.floor() + dx
                h1 = self.scatter(cell_x * 127.1 + cell_y * 311.7 + seed)
                h2 = self.scatter(cell_x * 269.5 + cell_y * 183.3 + seed)
                off_x = cell_x + 0.15 + 0.7 * h1 - x
                off_y = cell_y + 0.15 + 0.7 * h2 - y
                distance = (off_x**2 + off_y**2).sqrt()
                closer = distance < nearest
                second = torch.where(closer, nearest, torch.minimum(second, distance))
                number = torch.where(closer, h1, number)
                nearest = torch.where(closer, distance, nearest)
        return nearest, second, number
