"""Seam correction by a Poisson/Laplace membrane: the model's colour drift is taken out smoothly.

Poisson image editing (Perez, Gangnet and Blake, 2003), in the form of Farbman et al. (2009), who
add a membrane of the differences at the boundary. Here the membrane is fitted to the known pixels
around the hole, free at the crop's edge, beside a factor on the colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn import functional

from .geometry import Box

LEAST_RING = 64  # known pixels; fewer say too little about the drift
RING = 16  # px of known picture around the hole that count, at least
SAMPLES = 8192  # known pixels that the statistics look at
OUTLIER = 4.0  # robust standard deviations
MOST_DRIFT = 0.12  # a larger difference is new content: no model shifts known pixels that far
LEAST_BOUND = 0.02  # differences this close to the middle are never outliers
LEAST_NOISE = 1 / 255  # of a difference; no ring is taken to be cleaner than this
LIKELY_GAIN = 0.02  # how far from 1 a model's brightness factor usually is
MOST_GAIN = 0.05
PATCH = 300.0  # neighbouring pixels that together count as one independent observation
CELLS = 72  # of the membrane's grid, along the longer side
REACH = 6.0  # px; known differences are averaged over about this radius
BAND = 4  # px on either side of the seam that seam_step compares
LEAST_TILE = 16  # px; it averages over three of them
# sRGB to XYZ, each row over the D65 white.
XYZ_OVER_WHITE = (
    (0.412456 / 0.95047, 0.357576 / 0.95047, 0.180438 / 0.95047),
    (0.212673, 0.715152, 0.072175),
    (0.019334 / 1.08883, 0.119192 / 1.08883, 0.950304 / 1.08883),
)


@dataclass(frozen=True)
class SeamCorrection:
    """The colour step across the seam (see seam_step), without the correction and corrected."""

    without: float
    corrected: float


def correct_seam(original: Tensor, generated: Tensor, known: Tensor, strength: float) -> Tensor:
    """Take the model's slow colour drift out of its result.

    Drift is a smooth factor times the colour, plus a smooth field. Both are read off the known ring
    around the hole: the factor as a plane (its part of the drift differs from light to dark
    pixels), the rest as a membrane, continued into the hole by Laplace's equation and free at the
    crop's edge. Differences far from the others (the model repainted a spot there) are ignored.

    Args:
        original, generated: float32 [h, w, 3], in 0..1, finite.
        known: bool [h, w], False in the hole that the model repainted.
        strength: 0 returns `generated` itself, 1 takes off the whole drift.

    Returns `generated` with the hole and the ring around it corrected, not clamped; `generated`
    itself where there is no hole, or too little ring to tell the drift.
    """
    box = _hole_box(known) if strength else None
    if box is None:
        return generated
    known = known[box.slices]
    if int(known.sum()) < LEAST_RING:
        return generated
    answer, truth = generated[box.slices], original[box.slices]
    difference = answer - truth
    trusted = known & _inliers(difference, known)
    if int(trusted.sum()) < LEAST_RING:
        return generated
    proportional = answer * _gain(difference, truth, trusted)
    drift = proportional + _membrane(difference - proportional, trusted)
    corrected = generated.clone()
    corrected[box.slices] -= strength * drift
    return corrected


def _hole_box(known: Tensor) -> Box | None:
    """The hole's bounding box and the ring around it."""
    rows = (~known.all(dim=1)).nonzero()
    columns = (~known.all(dim=0)).nonzero()
    if not len(rows):
        return None
    hole = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    ring = max(RING, max(hole.height, hole.width) // 8)
    return hole.padded(ring, *known.shape)


def _sampled(area: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of at most about SAMPLES pixels, spread evenly over the area."""
    places = area.flatten().nonzero()[:, 0]
    step = len(places) // SAMPLES | 1  # odd, so that it does not fall into step with the rows
    places = places[::step]
    return places // area.shape[1], places % area.shape[1]


def _inliers(difference: Tensor, known: Tensor) -> Tensor:
    """bool [h, w]: differences that look like drift, not like something the model repainted."""
    small: Tensor = (difference.abs() <= MOST_DRIFT).all(dim=-1)
    # Where the model painted over the whole ring, as it may in the soft edge, drift has no sample.
    sample = difference[_sampled(known & small)]
    if not len(sample):
        return small
    middle = sample.median(dim=0).values
    deviation = 1.4826 * (sample - middle).abs().median(dim=0).values
    bound = (OUTLIER * deviation).clamp(min=LEAST_BOUND)
    near: Tensor = ((difference - middle).abs() <= bound).all(dim=-1)
    return near & small


def _gain(difference: Tensor, original: Tensor, trusted: Tensor) -> Tensor:
    """The factor on the model's colours that explains the differences best: [h, w, 3]."""
    y, x = _ramp(trusted.any(dim=1)), _ramp(trusted.any(dim=0))
    row, column = _sampled(trusted)
    plane = torch.stack((torch.ones_like(y[row]), y[row], x[column]), dim=-1)
    delta = difference[row, column]
    # Against the mean of both pictures: on detail that the model drew anew, the two cancel out.
    middle = original[row, column] + delta / 2
    fits = [_fit(plane, middle[:, i], delta[:, i]) for i in range(3)]
    base, down, right = torch.stack(fits, dim=-1).to(difference)
    factor = (base + y[:, None, None] * down) + x[None, :, None] * right
    factor = factor.clamp(-MOST_GAIN, MOST_GAIN)
    of_answer: Tensor = factor / (1 + factor / 2)  # no longer of the mean
    return of_answer


def _ramp(present: Tensor) -> Tensor:
    """-1 to 1 from the first True to the last; constant beyond, for nothing is known there."""
    places = present.nonzero()
    first, last = int(places[0]), int(places[-1])
    px = torch.arange(len(present), device=present.device)
    return ((px - first) / max(1, last - first) * 2 - 1).clamp(-1.0, 1.0)


def _fit(plane: Tensor, colour: Tensor, delta: Tensor) -> Tensor:
    """Least squares of delta [n] by plane [n, 3] + colour [n] * plane: the second three factors.

    The factors have a normal prior of deviation LIKELY_GAIN, so that noise does not invent them.
    """
    terms = torch.cat((plane, plane * colour[:, None]), dim=1).cpu().double()
    target = delta.cpu().double()
    normal = terms.T @ terms
    noise = max(float(target.var()), LEAST_NOISE**2)
    normal.diagonal()[3:] += PATCH * noise / LIKELY_GAIN**2
    normal.diagonal().add_(1e-6 * len(target))  # solvable, also for a ring of one row
    solution: Tensor = torch.linalg.solve(normal, terms.T @ target)
    return solution[3:]


def _membrane(difference: Tensor, trusted: Tensor) -> Tensor:
    """The drift [h, w, 3] everywhere, from the differences on the trusted pixels."""
    height, width = trusted.shape
    cell = math.ceil(max(height, width) / CELLS)
    weights = _cell_sums(trusted[..., None].float(), cell)
    sums = _cell_sums(difference.masked_fill(~trusted[..., None], 0.0), cell)
    cells = _solve(weights.cpu().double().numpy(), sums.cpu().double().numpy())
    field = torch.from_numpy(cells).to(difference).permute(2, 0, 1)[None]
    fine = functional.interpolate(field, scale_factor=cell, mode="bilinear")
    return fine[0].permute(1, 2, 0)[:height, :width]


def _cell_sums(values: Tensor, cell: int) -> Tensor:
    """[h, w, C] summed over square cells; the last ones may be partly empty."""
    height, width, channels = values.shape
    down, right = -height % cell, -width % cell
    padded = functional.pad(values, (0, 0, 0, right, 0, down))
    rows, columns = (height + down) // cell, (width + right) // cell
    return padded.reshape(rows, cell, columns, cell, channels).sum(dim=(1, 3))


def _solve(weights: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise sum |known - u|^2 / reach^2 + sum |gradient u|^2 over the grid [h, w, C].

    This is the screened Poisson equation. Where nothing is known it is Laplace's equation; where
    something is, a low pass.
    """
    height, width = weights.shape[:2]
    down, right = _second_differences(height), _second_differences(width)
    stiffness = sparse.kron(down, sparse.eye(width)) + sparse.kron(sparse.eye(height), right)
    system = stiffness + sparse.diags(weights.ravel() / REACH**2)
    # Symmetric and positive: no pivoting, and the ordering that keeps such factors small.
    factors = splu(
        system.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    cells: NDArray[np.float64] = factors.solve(sums.reshape(height * width, -1) / REACH**2)
    return cells.reshape(sums.shape)


def _second_differences(length: int) -> sparse.spmatrix:
    """The 1-D Laplacian with free ends."""
    steps = sparse.eye(length - 1, length) - sparse.eye(length - 1, length, k=1)
    return steps.T @ steps


def seam_step(picture: Tensor, blend: Tensor) -> float:
    """The colour step across the seam: mean CIE76 delta E, 0 where there is no seam.

    Compares two bands of BAND px: the opaque pixels (blend 1) next to the edge of the opaque
    area, and the known pixels (blend 0) next to the edge of the blend. The feather between them
    is not looked at. Both bands are averaged over windows of three tiles a side, wide enough to
    reach across the feather. The distances of the averages in CIE Lab (D65) are averaged over the
    tiles, weighted by the length of seam in each. The picture's own slope across the feather counts
    too.

    Args:
        picture: float [h, w, 3|4], sRGB in 0..1; alpha is not looked at.
        blend: float [h, w] as in Crop.
    """
    opaque, known = blend >= 1, blend <= 0
    inner = opaque & _near(~opaque)
    outer = known & _near(~known)
    length = int(inner.sum()) / BAND  # of the seam, in px
    if not length or not outer.any():
        return 0.0
    feather = blend.numel() - int(opaque.sum()) - int(known.sum())
    tile = max(LEAST_TILE, math.ceil(feather / length) + 2 * BAND)
    inside, outside = _tile_sums(picture, inner, tile), _tile_sums(picture, outer, tile)
    wide_in, wide_out = _three_wide(inside), _three_wide(outside)
    seen = (inside[..., 3] > 0) & (wide_out[..., 3] > 0)
    if not seen.any():
        return 0.0
    step = (_lab(wide_in[seen]) - _lab(wide_out[seen])).norm(dim=-1)
    share = inside[..., 3][seen]
    return float((step * share).sum() / share.sum())


def _near(area: Tensor) -> Tensor:
    """bool [h, w] grown by BAND px, as a square."""
    for axis in (0, 1):
        grown = area.clone()
        length = area.shape[axis]
        for px in range(1, min(BAND, length - 1) + 1):
            grown.narrow(axis, px, length - px).logical_or_(area.narrow(axis, 0, length - px))
            grown.narrow(axis, 0, length - px).logical_or_(area.narrow(axis, px, length - px))
        area = grown
    return area


def _tile_sums(picture: Tensor, band: Tensor, tile: int) -> Tensor:
    """[rows, columns, 4]: the band's red, green, blue and pixel count in each square tile."""
    height, width = (math.ceil(side / tile) for side in band.shape)
    row, column = band.nonzero(as_tuple=True)
    colours = picture[row, column, :3].float().nan_to_num(nan=0.0)
    values = functional.pad(colours, (0, 1), value=1.0)
    sums = values.new_zeros(height * width, 4)
    sums.index_add_(0, row // tile * width + column // tile, values)
    return sums.reshape(height, width, 4)


def _three_wide(tiles: Tensor) -> Tensor:
    """Each tile with its eight neighbours."""
    padded = functional.pad(tiles, (0, 0, 1, 1, 1, 1))
    return padded.unfold(0, 3, 1).unfold(1, 3, 1).sum(dim=(-1, -2))


def _lab(sums: Tensor) -> Tensor:
    """CIE Lab (D65) [n, 3] of mean sRGB colours, given as sums and a count [n, 4]."""
    rgb = (sums[:, :3] / sums[:, 3:]).clamp(0.0, 1.0)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ linear.new_tensor(XYZ_OVER_WHITE).T
    curve = torch.where(xyz > 216 / 24389, xyz ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    x, y, z = curve.unbind(dim=-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-1)
