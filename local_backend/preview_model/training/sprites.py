"""Puts sprites with a soft shadow into pictures."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Draws

#: below this size (px) the prefiltered detail level is used
SMALL = 90


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `[n, c, h, w]`, zeros outside."""
    taps = int(3 * sigma) * 2 + 1
    at = torch.arange(taps, device=x.device) - taps // 2
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    weights = (weights / weights.sum()).to(x.dtype)
    channels = x.shape[1]
    row = weights.view(1, 1, 1, taps).expand(channels, 1, 1, taps)
    column = weights.view(1, 1, taps, 1).expand(channels, 1, taps, 1)
    x = F.conv2d(x, row, padding=(0, taps // 2), groups=channels)
    return F.conv2d(x, column, padding=(taps // 2, 0), groups=channels)


def sprite_grid(
    size: tuple[int, int],
    center: tuple[Tensor, Tensor],
    extent: tuple[Tensor, Tensor],
    turn: Tensor,
    flip: Tensor | None = None,
) -> Tensor:
    """Sprite coordinates in -1..1 of every pixel of a picture, `[n, height, width, 2]`.

    `size` is the picture's height and width, `center` and `extent` the sprite's x and y in px,
    `turn` radians, `flip` 1 or -1.
    """
    height, width = size
    cx, cy = center
    n = len(cx)
    y = torch.arange(height, device=cx.device).view(1, height, 1) + 0.5 - cy.view(n, 1, 1)
    x = torch.arange(width, device=cx.device).view(1, 1, width) + 0.5 - cx.view(n, 1, 1)
    cos = turn.cos().view(n, 1, 1)
    sin = turn.sin().view(n, 1, 1)
    u = x * cos + y * sin
    v = y * cos - x * sin
    if flip is not None:
        u = u * flip.view(n, 1, 1)
    ex, ey = extent
    return torch.stack([u * (2 / ex).view(n, 1, 1), v * (2 / ey).view(n, 1, 1)], -1)


class Sprites:
    """All objects and shapes on a device, in two levels of detail."""

    def __init__(self, archive: Any, draws: Draws, dtype: torch.dtype) -> None:
        """`archive` is the opened assets file; `dtype` is the one sprites are resampled in."""
        self.draws = draws
        self.dtype = dtype
        self.names = [str(name) for name in archive["names"]]
        kinds = [str(kind) for kind in archive["kinds"]]
        #: the objects come first, then the coloured shapes
        self.objects = kinds.count("emoji")
        rgba = torch.from_numpy(archive["sprites"]).to(draws.device)
        rgba = rgba.permute(0, 3, 1, 2).float() / 255
        premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
        full = torch.cat([premultiplied, blur(rgba[:, 3:], 5.0)], 1)
        self.levels = torch.stack([full, blur(full, 0.8)], 1).to(dtype)

    def __len__(self) -> int:
        return len(self.names)

    def draw(
        self,
        picture: Tensor,
        index: Tensor,
        center: tuple[Tensor, Tensor],
        size: Tensor,
        strength: Tensor | None = None,
    ) -> Tensor:
        """Put sprite `index` of `size` px at `center` (x, y) into `picture` `[n, 3, h, w]`.

        Turn, side, shadow and light are drawn by chance; strength 0 leaves a picture alone.
        """
        n, _, height, width = picture.shape
        draws = self.draws
        turn = draws.uniform(n, -0.14, 0.14)
        flip = draws.flips(n)
        sprite = self.levels[index, (size < SMALL).long()]
        grid = sprite_grid((height, width), center, (size, size), turn, flip)
        drawn = F.grid_sample(sprite[:, :4], grid.to(self.dtype), align_corners=False).float()
        aside = torch.stack([draws.uniform(n, -0.1, 0.1), -draws.uniform(n, 0.06, 0.16)], -1)
        below = (grid + aside.view(n, 1, 1, 2)).to(self.dtype)
        shadow = F.grid_sample(sprite[:, 4:], below, align_corners=False).float()
        k = torch.ones_like(size) if strength is None else strength
        k = k.view(n, 1, 1, 1)
        picture = picture * (1 - k * shadow * draws.uniform(n, 0.1, 0.45).view(n, 1, 1, 1))
        light = draws.uniform(n, 0.9, 1.06).view(n, 1, 1, 1)
        return (picture * (1 - k * drawn[:, 3:]) + k * drawn[:, :3] * light).clamp(0, 1)
