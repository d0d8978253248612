"""Resizing and padding pictures in float: the way into the model's size and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An [h, w, C] picture at (height, width), as float32.

    Bicubic with antialiasing, both ways; may overshoot the input's range a little. A float32
    picture that already has the size is returned as it is, the same tensor.
    """
    image = image.float()
    if tuple(image.shape[:2]) == size:
        return image
    planes = image.permute(2, 0, 1)[None]
    resized = functional.interpolate(planes, size=size, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0)


def pad_reflect(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An [h, w, C] picture, grown right and bottom to (height, width) by its own reflection.

    The edge row is not doubled. Any pad works, also one larger than the picture: the reflection
    is reflected again. `image[:h, :w]` of the result is the input.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    rows = _reflected(height, size[0], image.device)
    columns = _reflected(width, size[1], image.device)
    return image.index_select(0, rows).index_select(1, columns)


def _reflected(length: int, target: int, device: torch.device) -> Tensor:
    """Indices 0, 1, .., length-1, length-2, .., 0, 1, ..: a triangle wave of `target` steps."""
    last = length - 1
    steps = torch.arange(target, device=device)
    return last - (steps % max(1, 2 * last) - last).abs()
