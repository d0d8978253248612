"""Tensors to PNG bytes and data URIs, and back."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InputError

# PIL knows more, some of which start other programs.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF")
# What PIL raises for broken files, from one format or another.
BROKEN_PICTURE = (
    OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, EOFError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def decode_image(data: bytes, max_pixels: int | None = None) -> Tensor:
    """An image file as float [1, H, W, 3], or 4 channels if it has alpha, in 0..1, upright.

    Raises:
        InputError: the file is broken, or says it is larger than `max_pixels`.
    """
    picture = _open(data, max_pixels)
    alpha = "A" in picture.getbands() or "transparency" in picture.info
    pixels = np.asarray(picture.convert("RGBA" if alpha else "RGB"))
    return torch.from_numpy(pixels.copy()).float().div(255).unsqueeze(0)


def decode_mask(data: bytes) -> Tensor:
    """An image file as a mask, float [1, H, W] in 0..1: white = change, black = keep."""
    pixels = np.asarray(_open(data).convert("L"))
    return torch.from_numpy(pixels.copy()).float().div(255).unsqueeze(0)


def encode_png(picture: Tensor, *, fast: bool = False) -> bytes:
    """float [H, W, 3 or 4], or a mask [H, W], as an 8-bit PNG; values from an 8-bit file come back
    exactly. `fast` takes about a third of the time, and a photo's file is no larger.
    """
    # Run lengths only: in a photo, longer matches are rare and looking for them is what takes long.
    speed = {"compress_level": 1, "compress_type": zlib.Z_RLE} if fast else {}
    buffer = io.BytesIO()
    Image.fromarray(_to_8_bit(picture)).save(buffer, "PNG", **speed)
    return buffer.getvalue()


def encode_jpeg(picture: Tensor) -> bytes:
    """float [H, W, 3] as a JPEG of quality 95, colours at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(_to_8_bit(picture)).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def to_bytes(pixels: Tensor) -> bytes:
    """The 8-bit values that a PNG of these pixels would hold, of any shape, in order."""
    return _to_8_bit(pixels).tobytes()


def data_uri(data: bytes, content_type: str) -> str:
    """A file as a data URI."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def from_data_uri(uri: str) -> bytes:
    """The file in a data URI.

    Raises:
        InputError: it is none, or is not base64.
    """
    head, _, text = uri.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise InputError(f'"{uri[:40]}" is no data URI in base64.')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"The data URI is broken ({error}).") from error


def _to_8_bit(pixels: Tensor) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = pixels.float().clamp(0, 1).mul(255).round().byte().cpu().numpy()
    return values


def _open(data: bytes, max_pixels: int | None = None) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # PIL warns of large pictures by a size of its own; here the caller sets the limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(picture, max_pixels)
        picture.load()
        return _8_bit_grey(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except BROKEN_PICTURE as error:
        raise InputError(
            f"The {len(data)} bytes are not a readable picture ({error}). "
            "Use a PNG, JPEG, WebP or TIFF file."
        ) from error


def _check_size(picture: Image.Image, max_pixels: int | None) -> None:
    if max_pixels is not None and picture.width * picture.height > max_pixels:
        raise InputError(
            f"The picture says it is {picture.width}x{picture.height} pixels, more than the "
            f"{max_pixels / 1e6:.1f} million allowed here. It was not opened."
        )


def _8_bit_grey(picture: Image.Image) -> Image.Image:
    """PIL cuts 16-bit grey off at 255 where it converts it; here it is scaled."""
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.float64) / 65535
    return Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8))
