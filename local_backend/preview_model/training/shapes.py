"""The ten plain shapes as antialiased alpha, drawn from their formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .vocabulary import SHAPES

Grid = NDArray[np.float64]
Inside = NDArray[np.bool_]


def _triangle(x: Grid, y: Grid) -> Inside:
    return (y < 0.82) & (y > -0.88 + 1.85 * abs(x))


def _star(x: Grid, y: Grid) -> Inside:
    """Five tips: every point is folded into one half tip and compared with that tip's edge."""
    half = np.pi / 5
    radius = np.hypot(x, y)
    folded = (np.arctan2(y, x) + np.pi / 2) % (2 * half) - half
    angle = half - abs(folded)  # 0 at a tip, pi/5 at an inner corner
    tip = np.array([0.98, 0.0])
    corner = 0.98 * 0.40 * np.array([np.cos(half), np.sin(half)])
    normal = np.array([corner[1] - tip[1], -(corner[0] - tip[0])])
    reach = radius * (np.cos(angle) * normal[0] + np.sin(angle) * normal[1])
    return np.asarray(reach < tip @ normal)


def _heart(x: Grid, y: Grid) -> Inside:
    u = x * 1.22
    v = -y * 1.22 + 0.12
    return np.asarray((u**2 + v**2 - 0.9) ** 3 - 1.6 * u**2 * v**3 < 0)


def _hexagon(x: Grid, y: Grid) -> Inside:
    return np.maximum(abs(y) * 0.866 + abs(x) * 0.5, abs(x)) < 0.86


def _ring(x: Grid, y: Grid) -> Inside:
    radius = np.hypot(x, y)
    return (radius < 0.94) & (radius > 0.52)


def _cross(x: Grid, y: Grid) -> Inside:
    bars = (abs(x) < 0.3) | (abs(y) < 0.3)
    return bars & (np.maximum(abs(x), abs(y)) < 0.92)


_FORMULAS: dict[str, Callable[[Grid, Grid], Inside]] = {
    "circle": lambda x, y: np.hypot(x, y) < 0.94,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.84,
    "triangle": _triangle,
    "rectangle": lambda x, y: (abs(x) < 0.95) & (abs(y) < 0.55),
    "star": _star,
    "heart": _heart,
    "diamond": lambda x, y: abs(x) * 1.25 + abs(y) < 0.96,
    "hexagon": _hexagon,
    "ring": _ring,
    "cross": _cross,
}


def shape_alpha(kind: str, size: int) -> Grid:
    """Alpha 0..1 of a shape of SHAPES, `[size, size]`, four samples to a pixel's side."""
    if kind not in _FORMULAS:
        raise ValueError(f"no shape {kind!r}. Use one of {', '.join(SHAPES)}.")
    fine = size * 4
    y, x = np.mgrid[0:fine, 0:fine]
    inside = _FORMULAS[kind]((x + 0.5) / fine * 2 - 1, (y + 0.5) / fine * 2 - 1)
    return np.asarray(inside.reshape(size, 4, size, 4).mean((1, 3)))
