"""Contact sheets: many small pictures in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

LABEL_HEIGHT = 14


def to_picture(tensor: Tensor) -> Image.Image:
    """`[3, h, w]` in 0..1 (clamped) as an RGB picture."""
    pixels = (tensor.float().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def save_grid(images: Tensor, columns: int, path: Path, scale: float = 1.0) -> None:
    """Write `[n, 3, h, w]` in 0..1 as a grid, shrunk by `scale`."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    page = torch.ones(3, rows * h, columns * w)
    for i, image in enumerate(images.float().cpu().clamp(0, 1)):
        y = (i // columns) * h
        x = (i % columns) * w
        page[:, y : y + h, x : x + w] = image
    picture = to_picture(page)
    if scale != 1:
        size = (int(picture.width * scale), int(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.save(path)


def save_sheet(
    rows: Sequence[Sequence[Tensor]], labels: Sequence[str], path: Path, cell: int = 160
) -> None:
    """Write rows of `[3, h, w]` pictures with a label above each row, as a 256-colour PNG."""
    columns = max(map(len, rows))
    page = Image.new("RGB", (columns * cell, len(rows) * (cell + LABEL_HEIGHT)), "white")
    pen = ImageDraw.Draw(page)
    for r, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = r * (cell + LABEL_HEIGHT)
        pen.text((3, top + 1), label, fill="black")
        for c, tensor in enumerate(row):
            picture = to_picture(tensor)
            picture.thumbnail((cell - 2, cell - 2), Image.Resampling.LANCZOS)
            page.paste(picture, (c * cell, top + LABEL_HEIGHT - 1))
    palette = page.quantize(256)
    dithered = page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    dithered.save(path, optimize=True)
