"""The one copy of the pictures that an edit writes into."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def copy_pictures(pictures: Tensor, order: list[int]) -> Tensor:
    """`pictures[order]` as new memory: float [len(order), H, W, C], the same dtype.

    numpy asks the system for large pages and torch does not: for an 8K picture that halves the
    time of the copy, most of which is page faults.
    """
    copies = _empty((len(order), *pictures.shape[1:]), pictures)
    for copy, index in zip(copies, order, strict=True):
        copy.copy_(pictures[index])
    return copies


def empty_mask(count: int, height: int, width: int) -> Tensor:
    """float32 [count, height, width] of zeros; pages nobody writes to are never handed out."""
    return torch.from_numpy(np.zeros((count, height, width), np.float32))


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    if like.device.type != "cpu" or like.dtype == torch.bfloat16:  # numpy has neither
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.empty(shape, like[:0].numpy().dtype))
