"""Copying, resizing and padding pictures in float: the way into the model's size and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def copy_pictures(pictures: Tensor, order: list[int]) -> Tensor:
    """`pictures[order]` in memory of its own: float [len(order), H, W, C], the same dtype.

    Picture by picture, which is a plain memory copy; indexing by a list gathers value by value
    and takes nine times as long on an 8K picture.
    """
    copies = pictures.new_empty((len(order), *pictures.shape[1:]))
    for copy, index in zip(copies, order, strict=True):
        copy.copy_(pictures[index])
    return copies


def empty_mask(count: int, height: int, width: int) -> Tensor:
    """float32 [count, height, width] of zeros; pages nobody writes to are never handed out."""
    return torch.from_numpy(np.zeros((count, height, width), np.float32))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An [h, w, C] picture at (height, width), as float32.

    Bicubic with antialiasing, both ways; may overshoot the input's range a little. A float32
    picture that already has the size is returned as it is, the same tensor.
    """
    image = image.float()
    if tuple(image.shape[:2]) == size:
        return image
    return filtered(image.permute(2, 0, 1), size, "bicubic").permute(1, 2, 0)


def filtered(planes: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Float planes [N, h, w] at (height, width), by "bilinear" or "bicubic", with antialiasing."""
    height, width = size
    if width == 1 and planes.shape[1] != height:
        # torch (2.14) reads the first row alone where the filter down a column meets a width of 1.
        column = filtered(planes, (planes.shape[1], 1), mode)
        return filtered(column.expand(-1, -1, 2), (height, 2), mode)[..., :1]
    return functional.interpolate(planes[None], size, mode=mode, antialias=True)[0]


def resize_known(image: Tensor, known: Tensor, size: tuple[int, int]) -> Tensor:
    """An [h, w, C] picture at (height, width) made of its known pixels alone, as float32.

    Normalised convolution (Knutsson and Westin, 1993): the same bicubic filter as `resize`, whose
    weights on pixels that are not known are shared out among the others. So no value depends on a
    pixel that is not known, which a plain filter lets in from two pixels away.

    Args:
        known: bool [h, w].

    Returns values that mean something where the filter's middle is known: there the weights of what
    is known sum to 0.05 at least (0.5 where the picture shrinks). Elsewhere they may be anything,
    NaN too.
    """
    weight = known[..., None].float()
    return resize(image.float() * weight, size) / resize(weight, size)


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
