"""Tensors to PNG bytes and data URIs, and back."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from .errors import InputError

# PIL's names and the user's. PIL knows more, some of which start other programs. An MPO is opened
# as the JPEG that it begins with: PIL has no opener of that name, and fails if it is asked for one.
_FORMATS = {
    "PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF", "TIFF": "TIFF", "BMP": "BMP",
    "GIF": "GIF",
}  # fmt: skip
_LIBRARIES = {"JPEG": "jpg", "WEBP": "webp", "AVIF": "avif"}  # those PIL can be built without
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What PIL raises for broken files, from one format or another.
BROKEN_PICTURE = (
    OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, EOFError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class PictureTooLarge(InputError):
    """A file that says it holds more pixels than are allowed; it was not decoded."""


@cache
def formats() -> tuple[str, ...]:
    """PIL's names of the formats that are read on this machine."""
    return tuple(name for name in _FORMATS if _has_library(name))


def format_names() -> str:
    """The same for the user: "PNG, JPEG or GIF"."""
    *most, last = (_FORMATS[name] for name in formats())
    return f"{', '.join(most)} or {last}"


def decode_image(data: bytes, max_pixels: int | None = None, name: str = "") -> Tensor:
    """An image file as float [1, H, W, 3], or 4 channels if it has alpha, in 0..1, upright; of
    several pictures the first.

    Args:
        name: what the user calls the file.

    Raises:
        InputError: the file is broken, or says it is larger than `max_pixels`.
    """
    return _floats(_decoded(data, max_pixels, name, "RGB"))[None]


def decode_mask(data: bytes, max_pixels: int | None = None, name: str = "") -> Tensor:
    """An image file as a mask, float [1, H, W] in 0..1: white = change; black or transparent =
    keep. Arguments and errors are those of decode_image.
    """
    grey, alpha = mask_parts(data, max_pixels, name)
    return grey * alpha


def mask_parts(data: bytes, max_pixels: int | None = None, name: str = "") -> tuple[Tensor, Tensor]:
    """The two that a mask is the product of: how white and how opaque, float [1, H, W] each."""
    parts = _floats(_decoded(data, max_pixels, name, "L"))
    if parts.ndim == 2:
        return parts[None], torch.ones_like(parts)[None]
    return parts[None, ..., 0], parts[None, ..., 1]


@contextmanager
def opened(file: IO[bytes], name: str, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """A picture file whose header is read; what goes wrong with it inside is an InputError, too.

    It takes no path: PIL maps a TIFF that it opens by path into memory, and if it is turned, by the
    wrong size.

    Raises:
        PictureTooLarge: it says it has more than `max_pixels`, or than PIL opens for anybody.
        InputError: it is none, or is broken.
    """
    try:
        with warnings.catch_warnings():
            # PIL warns of large pictures by a size of its own; here the caller sets the limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=formats())
        with picture:
            _check_size(picture, name, max_pixels)
            yield picture
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many", max_pixels) from error
    except UnidentifiedImageError as error:  # its own text holds an address in memory
        file.seek(0)
        if file.read(4) in _TIFF_BEGINNINGS:
            raise InputError(
                f"{name} is a TIFF of a kind that is not read here. Save it as a PNG."
            ) from error
        raise _unreadable(name, "its format is not known") from error
    except BROKEN_PICTURE as error:
        raise _unreadable(name, str(error)) from error


def to_8_bit_grey(picture: Image.Image) -> Image.Image:
    """PIL cuts 16-bit grey off at 255 where it converts it, and forgets its transparent value;
    here it is scaled, and has alpha.
    """
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.float64)
    scaled = Image.fromarray(np.rint((values / 65535).clip(0, 1) * 255).astype(np.uint8))
    if "transparency" in picture.info:
        opaque = values != picture.info["transparency"]
        scaled.putalpha(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)))
    return scaled


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


def _floats(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float().div(255)


def _decoded(data: bytes, max_pixels: int | None, name: str, mode: str) -> Image.Image:
    """In 8 bits, upright, in this mode, or in the one that has alpha too if the file has."""
    name = name or f"The file of {len(data)} bytes"
    with opened(io.BytesIO(data), name, max_pixels) as picture:
        _check_values(picture, name)
        whole = to_8_bit_grey(ImageOps.exif_transpose(picture))
        if not has_alpha(whole) and "transparency" not in whole.info:
            return whole.convert(mode)
        return whole.convert("RGBA").convert(mode + "A")


def has_alpha(picture: Image.Image) -> bool:
    """Whether it has an alpha channel; the A of Lab is a colour."""
    return "A" in picture.getbands() and picture.mode != "LAB"


def _has_library(name: str) -> bool:
    library = _LIBRARIES.get(name)
    # A PIL that does not know the library warns if it is asked.
    return library is None or (
        library in (*features.modules, *features.codecs) and bool(features.check(library))
    )


def _check_size(picture: Image.Image, name: str, max_pixels: int | None) -> None:
    if max_pixels is not None and picture.width * picture.height > max_pixels:
        raise _too_large(name, f"{picture.width}x{picture.height}", max_pixels)


def _check_values(picture: Image.Image, name: str) -> None:
    """What has no fixed white would come out black or white, whatever it shows."""
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        kind = "floating-point numbers" if picture.mode == "F" else "whole numbers of 32 bits"
        raise InputError(
            f"{name} holds {kind}, which do not say what is white. "
            "Save it with 8 or 16 bits a channel."
        )
    if picture.format == "TIFF" and _is_misread(picture):
        raise InputError(
            f"{name} is a 16-bit TIFF in uncompressed planes, or with 0 for white, which is not "
            "read here. Save it as a PNG."
        )


def _is_misread(picture: Image.Image) -> bool:
    """PIL reads 16 bits in uncompressed planes as one plane, and turns no 16-bit grey round."""
    tags, names = picture.tag_v2, ExifTags.Base  # type: ignore[attr-defined]  # of a TIFF
    bits = tags.get(names.BitsPerSample, 1)
    if max(bits if isinstance(bits, tuple) else (bits,)) <= 8:
        return False
    planes = tags.get(names.PlanarConfiguration) == 2 and tags.get(names.Compression, 1) == 1
    turned: bool = tags.get(names.PhotometricInterpretation) == 0
    return planes or turned


def _too_large(name: str, pixels: str, max_pixels: int | None) -> PictureTooLarge:
    allowed = 2 * (Image.MAX_IMAGE_PIXELS or 0) if max_pixels is None else max_pixels
    return PictureTooLarge(
        f"{name} says it has {pixels} pixels; {allowed} are allowed here. It was not opened. "
        "Use a smaller picture."
    )


def _unreadable(name: str, why: str) -> InputError:
    return InputError(
        f"{name} is not a readable picture ({why}). Use a whole {format_names()} file."
    )
