"""Tensors to PNG bytes and back."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import InputError


def decode_image(data: bytes) -> Tensor:
    """An image file as float [1, H, W, 3], or 4 channels if it has alpha, in 0..1, upright."""
    picture = _open(data)
    alpha = "A" in picture.getbands() or "transparency" in picture.info
    pixels = np.asarray(picture.convert("RGBA" if alpha else "RGB"))
    return torch.from_numpy(pixels.copy()).float().div(255).unsqueeze(0)


def decode_mask(data: bytes) -> Tensor:
    """An image file as a mask, float [1, H, W] in 0..1: white = change, black = keep."""
    pixels = np.asarray(_open(data).convert("L"))
    return torch.from_numpy(pixels.copy()).float().div(255).unsqueeze(0)


def encode_png(picture: Tensor) -> bytes:
    """float [H, W, 3 or 4] as an 8-bit PNG; values from an 8-bit file come back exactly."""
    pixels = picture.float().clamp(0, 1).mul(255).round().byte().cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"The {len(data)} bytes are not a readable picture ({error}). "
            "Use a PNG, JPEG, WebP or TIFF file."
        ) from error
    return ImageOps.exif_transpose(picture)
