"""The files a plan reads: pictures that ComfyUI's own loaders load, as sizes and masks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..conversions import BROKEN_PICTURE, FORMATS
from ..errors import InputError
from .memory import file_masks
from .planner import MAX_PIXELS

TYPES = ("input", "output", "temp")
CHANNELS = ("alpha", "red", "green", "blue")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF: those with width and height exchanged


@dataclass(frozen=True)
class PictureSize:
    """A file's pictures, which it may hold several of, upright."""

    pictures: int
    height: int
    width: int


def find_file(filename: str, subfolder: str, kind: str) -> str:
    """The path of a file in ComfyUI's input, output or temp folder, as LoadImage finds it.

    Raises:
        InputError: it is not there, or the words lead out of the folder.
    """
    folder = folder_paths.get_directory_by_type(kind) if kind in TYPES else None
    if folder is None:
        raise InputError(f'There is no folder "{kind}". Use one of: {", ".join(TYPES)}.')
    folder = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(folder, subfolder, filename))
    inside = path.startswith(os.path.join(folder, ""))
    if not inside or not filename or "\0" in path or ".." in f"{subfolder}/{filename}":
        raise InputError(f'"{filename}" does not lie in the {kind} folder. Choose a file there.')
    if not os.path.isfile(path):
        raise InputError(
            f'There is no "{filename}" in ComfyUI\'s {kind} folder. Choose another, or press R.'
        )
    return path


def picture_size(path: str) -> PictureSize:
    """How large a file's pictures are, by its header alone; InputError if it is none."""
    with _opened(path) as picture:
        width, height = picture.size
        # The base class's: a PNG's own would read all pixels to look behind them.
        if Image.Image.getexif(picture).get(ORIENTATION) in TURNED:
            width, height = height, width
        frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
        return PictureSize(frames, height, width)


def read_mask(path: str, channel: str) -> Tensor:
    """A file's mask, uint8 [1, h, w], as ComfyUI's loaders make it: alpha turned round (nothing is
    painted without one), another channel as it is. Read once while the file stays the same.

    Raises:
        InputError: there is no such channel, or the file is no picture.
    """
    if channel not in CHANNELS:
        raise InputError(f'There is no channel "{channel}". Use one of: {", ".join(CHANNELS)}.')
    stat = os.stat(path)
    key = path, channel, stat.st_mtime_ns, stat.st_size
    mask = file_masks.get(key)
    if mask is None:
        with _opened(path) as picture:
            mask = _channel(ImageOps.exif_transpose(picture), channel)
        file_masks.put(key, mask)
    return mask


def _channel(picture: Image.Image, channel: str) -> Tensor:
    if channel == "alpha":
        if picture.mode == "P" and "transparency" in picture.info:
            picture = picture.convert("RGBA")
        if "A" not in picture.getbands():
            return torch.zeros(1, 64, 64, dtype=torch.uint8)
        return 255 - torch.from_numpy(np.array(picture.getchannel("A")))[None]
    if picture.mode.startswith("I"):  # 16 bits of grey, which PIL would cut off
        values = np.asarray(picture).astype(np.float64).clip(0, 65535) / 257
        return torch.from_numpy(np.rint(values).astype(np.uint8))[None]
    band = picture.convert("RGBA").getchannel(channel[0].upper())
    return torch.from_numpy(np.array(band))[None]


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            picture = Image.open(path, formats=FORMATS)
        with picture:
            _check_size(picture)
            yield picture
    except InputError:
        raise
    except BROKEN_PICTURE as error:
        raise InputError(
            f"{os.path.basename(path)} is not a readable picture ({error}). "
            "Use a PNG, JPEG, WebP or TIFF file."
        ) from error


def _check_size(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"The picture says it is {picture.width}x{picture.height} pixels. A plan is made for "
            f"at most {MAX_PIXELS / 1e6:.0f} million."
        )
