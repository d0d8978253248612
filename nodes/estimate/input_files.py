"""The files a plan reads: pictures that ComfyUI's own loaders load, as sizes and masks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import folder_paths
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, ImageSequence
from torch import Tensor

from ..errors import InputError
from ..image_io import has_alpha, opened, to_8_bit_grey
from .estimator import MAX_PIXELS
from .last_run import file_masks

TYPES = ("input", "output", "temp")
CHANNELS = ("alpha", "red", "green", "blue")
TURNED = (5, 6, 7, 8)  # the orientations of EXIF with width and height exchanged


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
        width, height = _stored_size(picture)
        # The base class's: a PNG's own would read all pixels to look behind them.
        if Image.Image.getexif(picture).get(ExifTags.Base.Orientation) in TURNED:
            width, height = height, width
        return PictureSize(_count(picture), height, width)


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
            mask = _channel(picture, channel)
        file_masks.put(key, mask)
    return mask


def loads_by_av() -> bool:
    """Whether the LoadImage of the ComfyUI that runs here reads by PyAV, as it does since 0.21, or
    by PIL. The code is asked and not the version, which says nothing of a fork or a way back.
    """
    loader = getattr(sys.modules.get("nodes"), "LoadImage", None)
    code = getattr(getattr(loader, "load_image", None), "__code__", None)
    return code is not None and "VideoFromFile" in code.co_names


def _stored_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height before any turning, which newer PILs have done at once for a TIFF."""
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        return tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
    return picture.size


def _count(picture: Image.Image) -> int:
    """How many pictures LoadImage makes of a file."""
    if picture.format == "MPO" or (loads_by_av() and picture.format in ("TIFF", "AVIF")):
        return 1
    if picture.format != "TIFF":
        return int(getattr(picture, "n_frames", 1))
    # Pages of another size, such as thumbnails, are left out.
    first = picture.size
    return sum(page.size == first for page in ImageSequence.Iterator(picture))


def _channel(picture: Image.Image, channel: str) -> Tensor:
    if channel == "alpha" and not _has_alpha(picture):
        return torch.zeros(1, 64, 64, dtype=torch.uint8)
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "I" or loads_by_av():  # else PIL cuts 16-bit grey off, and the run has that
        upright = to_8_bit_grey(upright)
    band = torch.from_numpy(np.array(upright.convert("RGBA").getchannel(channel[0].upper())))
    return 255 - band[None] if channel == "alpha" else band[None]


def _has_alpha(picture: Image.Image) -> bool:
    """Whether LoadImage makes a mask of the file: PyAV takes a transparent colour for alpha, too,
    and an AVIF's alpha for a picture of its own.
    """
    alpha, colour = has_alpha(picture), "transparency" in picture.info
    if loads_by_av():
        return (alpha or colour) and picture.format != "AVIF"
    return alpha or (colour and picture.mode == "P")


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    with open(path, "rb") as file, opened(file, os.path.basename(path), MAX_PIXELS) as picture:
        yield picture
