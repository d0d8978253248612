"""How much colour step the seam correction leaves, against a global Lab mean/std match.

Run from the repository root: python tests/benchmarks/seam.py [side]; --help says more.
The model's answer is simulated: truth * (1 + a gradient of +-2 %) + a colour shift, so the truth
is what a perfect correction would give back. Numbers are mean CIE76 delta E; residuals are against
the truth, just inside the opaque edge, and over the whole hole.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import conftest  # noqa: F401  (loads the pack as onereward_pack)

from onereward_pack.nodes.canvas.seam import correct_seam, seam_step

Picture = Callable[[int], Tensor]  # side -> float [side, side, 3]
Shape = Callable[[int], Tensor]  # side -> bool [side, side], the opaque area

GRADIENT = 0.02
SHIFT = (0.012, -0.010, 0.008)
BLEND = 16
EDGE = 4
TO_XYZ = np.array(
    [
        [0.412456, 0.357576, 0.180438],
        [0.212673, 0.715152, 0.072175],
        [0.019334, 0.119192, 0.950304],
    ]
)
WHITE = TO_XYZ.sum(axis=1)


def _axes(side: int) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1.0, 1.0, side)
    return line[:, None].expand(side, side), line[None, :].expand(side, side)


def _noise(side: int, sigma: float, seed: int) -> Tensor:
    """Noise [side, side, 3] of unit deviation, blurred by sigma px."""
    raw = np.random.default_rng(seed).standard_normal((side, side, 3))
    soft = ndimage.gaussian_filter(raw, (sigma, sigma, 0), mode="wrap")
    return torch.from_numpy(soft / soft.std()).float()


def smooth(side: int) -> Tensor:
    """A sky: slow changes of colour only."""
    y, x = _axes(side)
    planes = [0.55 + 0.2 * torch.sin(1.7 * y + p) * torch.cos(1.3 * x - p) for p in (0, 0.4, 0.9)]
    return torch.stack(planes, dim=-1)


def textured(side: int) -> Tensor:
    """Foliage: detail of all sizes, grain on top."""
    detail = sum(_noise(side, sigma, int(sigma)) * 0.04 for sigma in (0, 1, 3, 8, 24))
    return (0.45 + detail).clamp(0.05, 0.95)


def edges(side: int) -> Tensor:
    """Buildings: hard edges of high contrast, running through the hole."""
    y, x = _axes(side)
    tone = torch.where(x + 0.3 * y > 0.1, 0.75, 0.25)
    tone = torch.where(((x - 0.1).abs() < 0.12) & (y < 0.2), 0.5, tone)
    tone = torch.where(torch.sin(9 * y + 2 * x) > 0.9, 0.15, tone)
    tint = torch.tensor([1.0, 0.9, 0.8])
    return tone[..., None] * tint + 0.01 * _noise(side, 0.7, 7)


def photo(side: int) -> Tensor:
    """A landscape: sky, hills, a textured ground, a dark tree across the hole."""
    y, x = _axes(side)
    picture = torch.stack((0.5 + 0.2 * y, 0.65 + 0.15 * y, 0.85 + 0.05 * y), dim=-1)
    hill = y > 0.1 + 0.15 * torch.sin(3 * x + 1)
    ground = (
        torch.tensor([0.38, 0.42, 0.22]) + 0.06 * _noise(side, 2, 3) + 0.03 * _noise(side, 9, 4)
    )
    picture = torch.where(hill[..., None], ground, picture)
    trunk = ((x - 0.25 + 0.05 * y).abs() < 0.05) & (y > -0.7) & (y < 0.5)
    picture = torch.where(trunk[..., None], torch.tensor([0.22, 0.15, 0.1]), picture)
    return (picture + 0.008 * _noise(side, 0.7, 5)).clamp(0.0, 0.97)


def disc(side: int) -> Tensor:
    y, x = _axes(side)
    return x**2 + y**2 < 0.4**2


def rectangle(side: int) -> Tensor:
    y, x = _axes(side)
    return (x.abs() < 0.5) & ((y - 0.1).abs() < 0.25)


def stroke(side: int) -> Tensor:
    """A brush stroke: long, thin and curved."""
    y, x = _axes(side)
    return ((y - 0.4 * torch.sin(3 * x)).abs() < 0.07) & (x.abs() < 0.65)


def border(side: int) -> Tensor:
    """A hole that touches the picture's edge."""
    y, x = _axes(side)
    return (x > 0.35) & (y.abs() < 0.5)


PICTURES: tuple[Picture, ...] = (smooth, textured, edges, photo)
SHAPES: tuple[Shape, ...] = (disc, rectangle, stroke, border)


def drifted(truth: Tensor) -> Tensor:
    """The truth under a diagonal brightness gradient of +-2 % and a colour shift."""
    y, x = _axes(truth.shape[0])
    gain = 1 + GRADIENT * (x + y)[..., None] / 2
    return (truth * gain + torch.tensor(SHIFT)).clamp(0.0, 1.0)


def redrawn(truth: Tensor) -> Tensor:
    """The truth as a model gives it back without any drift: a little soft, with its own grain, and
    with a red spot painted where nobody asked for it, close to most of the holes.
    """
    side = truth.shape[0]
    soft = torch.from_numpy(ndimage.gaussian_filter(truth.numpy(), (0.7, 0.7, 0)))
    y, x = _axes(side)
    spot = (y + 0.5) ** 2 + (x - 0.1) ** 2 < 0.05**2
    painted = torch.where(spot[..., None], torch.tensor([0.9, 0.1, 0.1]), soft)
    return (painted + 0.01 * _noise(side, 0.0, 11)).clamp(0.02, 0.98)


def wandering(picture: Tensor) -> Tensor:
    """The picture under drift that no plane describes: blotches of about a quarter of its side."""
    side = picture.shape[0]
    blotches = 0.012 * _noise(side, side / 12, 12)
    return (drifted(picture) + blotches).clamp(0.0, 1.0)


def faded(opaque: Tensor) -> Tensor:
    """The blend mask of this opaque area: 1 on it, smoothstep to 0 over BLEND px outside."""
    distance = ndimage.distance_transform_edt(~opaque.numpy())
    t = (1 - torch.from_numpy(distance).float() / BLEND).clamp(0.0, 1.0)
    return t * t * (3 - 2 * t)


def to_lab(picture: Tensor) -> Tensor:
    rgb = picture.double().numpy().clip(0.0, 1.0)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ TO_XYZ.T / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lab = np.stack(
        (116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])), -1
    )
    return torch.from_numpy(lab)


def from_lab(lab: Tensor) -> Tensor:
    light, a, b = lab.numpy().transpose(2, 0, 1)
    y = (light + 16) / 116
    f = np.stack((y + a / 500, y, y - b / 200), axis=-1)
    ratio = np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24389)
    linear = (ratio * WHITE) @ np.linalg.inv(TO_XYZ).T
    linear = linear.clip(0.0, 1.0)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return torch.from_numpy(rgb).float()


def lab_match(original: Tensor, generated: Tensor, kept: Tensor) -> Tensor:
    """What other tools do, done right: one mean and deviation per Lab channel, kept pixels only."""
    target, source = to_lab(original), to_lab(generated)
    centre, spread = source[kept].mean(dim=0), source[kept].std(dim=0)
    matched = (source - centre) / spread * target[kept].std(dim=0) + target[kept].mean(dim=0)
    return from_lab(matched)


@dataclass(frozen=True)
class Scores:
    """Delta E: at the opaque edge, in the whole hole, and the seam step less the truth's own."""

    edge: float
    hole: float
    step: float


def scores(truth: Tensor, result: Tensor, blend: Tensor) -> Scores:
    opaque = blend >= 1
    inner = opaque & torch.from_numpy(ndimage.binary_dilation(~opaque.numpy(), iterations=EDGE))
    error = (to_lab(result) - to_lab(truth)).norm(dim=-1)
    composite = torch.where(blend[..., None] > 0, result, truth)
    step = seam_step(composite, blend) - seam_step(truth, blend)
    return Scores(float(error[inner].mean()), float(error[opaque].mean()), step)


def case(picture: Picture, shape: Shape, side: int, real: bool) -> dict[str, Scores]:
    """The scores of one picture and mask: uncorrected, globally matched, and ours.

    With `real` the drift wanders and the answer is redrawn; the redrawn picture without drift is
    then the truth.
    """
    original, blend = picture(side), faded(shape(side))
    kept = blend <= 0
    ideal = redrawn(original) if real else original
    generated = wandering(ideal) if real else drifted(ideal)
    results = {
        "none": generated,
        "lab": lab_match(original, generated, kept),
        "ours": correct_seam(original, generated, kept, 1.0),
    }
    return {name: scores(ideal, result, blend) for name, result in results.items()}


def _timing(side: int) -> float:
    truth, kept = photo(side), faded(disc(side)) <= 0
    generated = drifted(truth)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        correct_seam(truth, generated, kept, 1.0)
        seconds.append(time.perf_counter() - start)
    return 1000 * sorted(seconds)[len(seconds) // 2]


def _table(side: int, real: bool) -> None:
    kind = "blotches, redrawn detail, a stray spot" if real else "nothing else"
    print(f"\n{side}x{side}, gradient +-{GRADIENT:.0%}, shift {SHIFT}, {kind}; delta E")
    print(f"{'':21}{'edge residual':^32}{'hole residual':^24}{'seam step - truth':^24}")
    names = "none   lab   ours"
    print(f"{'picture':10}{'mask':11}{names:>20} {'ours/lab':>11}{names:>24}{names:>24}")
    worst = 0.0
    for picture in PICTURES:
        for shape in SHAPES:
            got = case(picture, shape, side, real)
            ratio = got["ours"].edge / got["lab"].edge
            worst = max(worst, ratio)
            row = f"{picture.__name__:10}{shape.__name__:11}"
            row += "".join(f"{got[name].edge:7.2f}" for name in got) + f"{ratio:11.2f}"
            row += "".join(f"{got[name].hole:8.2f}" for name in got)
            print(row + "".join(f"{got[name].step:8.2f}" for name in got))
    print(f"worst ours/lab at the edge: {worst:.3f}")


def main(side: int) -> None:
    _table(side, real=False)
    _table(side, real=True)
    print(f"correct_seam: {_timing(side):.0f} ms (median of 7, {torch.get_num_threads()} threads)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="colour step left by the seam correction and by a global Lab match"
    )
    parser.add_argument(
        "side", type=int, nargs="?", default=1024, help="of the square pictures, px; default 1024"
    )
    main(parser.parse_args().side)
