"""Pieces of the sheets of pictures that the command line writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

CELL, GAP, LINE = 384, 16, 26
INK, PAPER, MASK = (30, 30, 34), (255, 255, 255), (230, 40, 50)


def marked(picture: Tensor, mask: Tensor) -> Tensor:
    """The picture [H, W, 3 or 4] with the mask [H, W] laid over it in red, as a mask editor shows
    it; [H, W, 3].
    """
    red = torch.tensor(MASK).float() / 255
    return torch.lerp(picture[..., :3], red.expand_as(picture[..., :3]), 0.55 * mask[..., None])


def place(sheet: Image.Image, picture: Tensor, left: int, top: int) -> None:
    """Pastes a picture [H, W, 3 or 4] into the cell that begins there, made smaller to fit."""
    pixels = picture[..., :3].clamp(0, 1).mul(255).round().byte().numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    sheet.paste(image, (left, top + (CELL - image.height) // 2))


def as_picture(sheet: Image.Image) -> Tensor:
    """Float [H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(sheet).copy()).float() / 255
