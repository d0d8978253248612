"""The holes of the training scenes: boxes, ellipses, blobs, brush strokes, borders."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws

#: shares of box, ellipse, wobbly blob and brush-like capsule
KIND_SHARES = [0.45, 0.2, 0.2, 0.15]
BOX, ELLIPSE, BLOB, CAPSULE = range(4)


def _pixel_centers(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows `[1, h, 1]` and columns `[1, 1, w]` of the pixels' centres."""
    height, width = size
    y = torch.arange(height, device=device).view(1, height, 1) + 0.5
    x = torch.arange(width, device=device).view(1, 1, width) + 0.5
    return y, x


def shape_mask(
    draws: Draws, size: tuple[int, int], center: tuple[Tensor, Tensor], half: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Masks `[n, 1, h, w]` of half extents `half` (x, y) px at `center`, and their kinds."""
    n = len(center[0])
    rows, columns = _pixel_centers(size, draws.device)
    y = (rows - center[1].view(n, 1, 1)) / half[1].view(n, 1, 1)
    x = (columns - center[0].view(n, 1, 1)) / half[0].view(n, 1, 1)
    angle = torch.atan2(y, x)
    radius = (x**2 + y**2).sqrt()
    wobble = torch.zeros_like(radius)
    for k in (2, 3, 5):
        height = draws.uniform(n, 0, 0.10).view(n, 1, 1)
        phase = draws.uniform(n, 0, 6.3).view(n, 1, 1)
        wobble = wobble + height * torch.cos(k * angle + phase)
    box = torch.maximum(x.abs(), y.abs())
    capsule = (x.abs() ** 4 + y.abs() ** 4) ** 0.25
    kind = draws.weighted(n, KIND_SHARES)
    distances = torch.stack([box, radius, radius + wobble - 0.06, capsule], 1)
    chosen = kind.view(n, 1, 1, 1).expand(n, 1, *size)
    return (distances.gather(1, chosen) < 1).float(), kind


def box_mask(
    size: tuple[int, int], center: tuple[Tensor, Tensor], half: tuple[Tensor, Tensor]
) -> Tensor:
    """Plain boxes, `[n, 1, h, w]`."""
    n = len(center[0])
    rows, columns = _pixel_centers(size, center[0].device)
    in_x = (columns - center[0].view(n, 1, 1)).abs() < half[0].view(n, 1, 1)
    in_y = (rows - center[1].view(n, 1, 1)).abs() < half[1].view(n, 1, 1)
    return (in_x.float() * in_y.float())[:, None]


def _borders(draws: Draws, n: int) -> Tensor:
    """Widths of the left, top, right and bottom band as shares of the picture, `[n, 4]`."""
    width = draws.rand(n, 4) * 0.3 + 0.14
    mode = draws.pick(n, 5)
    side = draws.pick(n, 4)
    on = torch.zeros(n, 4, device=draws.device)
    every = torch.arange(n, device=draws.device)
    on[every, side] = 1  # modes 0 and 1: one side
    opposite = (side + 2) % 4
    on[every, opposite] = torch.maximum(on[every, opposite], (mode == 2).float())
    corner = (side + 1) % 4
    on[every, corner] = torch.maximum(on[every, corner], (mode == 3).float())
    on = torch.maximum(on, (mode == 4).float().view(n, 1))  # all round
    return width * on * torch.where(mode >= 2, 0.75, 1.0).view(n, 1)


def band_mask(draws: Draws, n: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Outpainting masks `[n, 1, h, w]`: one border to all; and the kept box in px, `[n, 4]`."""
    height, width = size
    borders = _borders(draws, n)
    rows, columns = _pixel_centers(size, draws.device)
    y = rows / height
    x = columns / width
    left, top, right, bottom = (borders[:, i].view(n, 1, 1) for i in range(4))
    keep = (x > left) & (x < 1 - right) & (y > top) & (y < 1 - bottom)
    corners = [
        borders[:, 0] * width,
        borders[:, 1] * height,
        (1 - borders[:, 2]) * width,
        (1 - borders[:, 3]) * height,
    ]
    return (~keep).float()[:, None], torch.stack(corners, 1)
