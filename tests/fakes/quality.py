"""How good a filled hole is, and what a blur would have made of it. Pictures are [1, 3, h, w]."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor


def psnr_in(answer: Tensor, truth: Tensor, mask: Tensor) -> float:
    """dB over the pixels where the mask [1, 1, h, w] is 1."""
    error = ((answer - truth).square() * mask).sum() / (3 * mask.sum())
    return -10 * torch.log10(error).item()


def texture_share(answer: Tensor, truth: Tensor, mask: Tensor) -> float:
    """The answer's gradient energy in the mask over the truth's: about 0 for a blur."""

    def energy(picture: Tensor) -> Tensor:
        inside = mask[..., 1:, 1:]
        down = (picture[..., 1:, 1:] - picture[..., :-1, 1:]) * inside
        right = (picture[..., 1:, 1:] - picture[..., 1:, :-1]) * inside
        return down.square().sum() + right.square().sum()

    return (energy(answer) / energy(truth)).sqrt().item()


def blur_fill(picture: Tensor, mask: Tensor) -> Tensor:
    """The hole filled, from fine to coarse, with the average of what is known nearby."""
    kept = 1 - mask
    filled, known = picture * kept, kept.clone()
    for level in range(1, 9):
        colour, weight = (_spread(t, 2**level) for t in (picture * kept, kept))
        new = (weight > 0.05).float() * (1 - known)
        filled = filled * (1 - new) + colour / weight.clamp(min=1e-6) * new
        known = (known + new).clamp(max=1)
    for _ in range(24):
        smooth = functional.avg_pool2d(functional.pad(filled, (2,) * 4, mode="replicate"), 5, 1)
        filled = filled * kept + smooth * mask
    return filled


def _spread(picture: Tensor, factor: int) -> Tensor:
    small = functional.avg_pool2d(picture, factor)
    return functional.interpolate(small, picture.shape[-2:], mode="bilinear", align_corners=False)
