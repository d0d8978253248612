"""Contact sheets: pictures beside each other with captions, as the command line writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

CELL, GAP, LINE = 384, 16, 26
INK, PAPER, MASK = (30, 30, 34), (255, 255, 255), (230, 40, 50)


def with_mask(picture: Tensor, mask: Tensor) -> Tensor:
    """The picture [H, W, 3 or 4] with the mask [H, W] laid over it in red, as a mask editor shows
    it; [H, W, 3].
    """
    red = torch.tensor(MASK).float() / 255
    return torch.lerp(picture[..., :3], red.expand_as(picture[..., :3]), 0.55 * mask[..., None])


def paste(sheet: Image.Image, picture: Tensor, left: int, top: int) -> None:
    """Pastes a picture [H, W, 3 or 4] into the cell that begins there, made smaller to fit."""
    pixels = picture[..., :3].clamp(0, 1).mul(255).round().byte().numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    sheet.paste(image, (left, top + (CELL - image.height) // 2))


def contact_sheet(title: str, rows: list[tuple[str, Tensor, Tensor]]) -> Tensor:
    """Two edits a line, each a caption, the picture before and the picture after, as [H, W, 3 or
    4]; the sheet is float [H, W, 3] in 0..1.
    """
    width = 4 * CELL + 5 * GAP
    height = LINE + GAP + -(-len(rows) // 2) * (CELL + LINE + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    draw.text((GAP, GAP // 2), title, fill=INK, font=font)
    for index, (caption, *pictures) in enumerate(rows):
        left = GAP + (index % 2) * 2 * (CELL + GAP)
        top = LINE + GAP + (index // 2) * (CELL + LINE + GAP)
        draw.text((left, top), caption, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            paste(sheet, picture, left + column * (CELL + GAP), top + LINE)
    return as_picture(sheet)


def as_picture(sheet: Image.Image) -> Tensor:
    """Float [H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(sheet).copy()).float() / 255
