"""What an estimate knows of its inputs: the sizes and masks of files, as ComfyUI's own loaders load
them, and what each task node was last run with.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, ImageSequence
from torch import Tensor

from ..edit.plan import BatchSize
from ..errors import InputError
from ..image_io import has_alpha, opened, to_8_bit_grey

MAX_PIXELS = 128 << 20  # of a file; a larger one is not opened for an estimate
CHANNELS = ("alpha", "red", "green", "blue")
TURNED = (5, 6, 7, 8)  # the orientations of EXIF with width and height exchanged
NODES = 16
FILES = 16
BYTES = 64 << 20

T = TypeVar("T")


class BoundedCache(Generic[T]):
    """A least-recently-used cache, bounded by count and by bytes. Safe to use from several threads.

    Args:
        count: the most values.
        nbytes: the most bytes of all together; a value that alone has more is not cached.
        size: how many bytes a value has.
    """

    def __init__(self, count: int, nbytes: int, size: Callable[[T], int]) -> None:
        self._count, self._nbytes, self._size = count, nbytes, size
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, value: T) -> None:
        """Cache it in place of what was there, and drop what was not used for the longest time."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self._count or self._total() > self._nbytes:
                self._values.popitem(last=False)

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def _total(self) -> int:
        return sum(map(self._size, self._values.values()))


@dataclass(frozen=True, eq=False)
class LastRun:
    """What a node was last run with.

    Attributes:
        source: the batch that went in.
        mask: uint8 [N, h, w]; None if there was none, or if it was too large to keep.
    """

    source: BatchSize
    mask: Tensor | None

    @property
    def nbytes(self) -> int:
        return 0 if self.mask is None else self.mask.nbytes


_LAST_RUNS: BoundedCache[LastRun] = BoundedCache(NODES, BYTES, lambda run: run.nbytes)
_FILE_MASKS: BoundedCache[Tensor] = BoundedCache(FILES, BYTES, lambda mask: mask.nbytes)


def remember_run(node_id: str, image: Tensor, mask: Tensor | None) -> None:
    """Notes what a node is run with: image [B, H, W, C], mask float [N, h, w] or [h, w]."""
    small = None if mask is None or mask.numel() > BYTES else to_uint8(mask)
    _LAST_RUNS.put(node_id, LastRun(BatchSize.of(image), small))


def last_run(node_id: str) -> LastRun | None:
    """What a node was last run with; None if it was not, or too many others were since."""
    return _LAST_RUNS.get(node_id)


def to_uint8(mask: Tensor) -> Tensor:
    """A mask's values 0..1 as 0..255; what is no number counts as not painted."""
    values = mask.detach().float().mul(255).nan_to_num_(0.0).round_().clamp_(0, 255)
    return values.to(torch.uint8).cpu()


def picture_size(path: str) -> BatchSize:
    """How large a file's pictures are, by its header alone; InputError if it is none."""
    with _opened(path) as picture:
        width, height = _stored_size(picture)
        # The base class's: a PNG's own would read all pixels to look behind them.
        if Image.Image.getexif(picture).get(ExifTags.Base.Orientation) in TURNED:
            width, height = height, width
        return BatchSize(_count(picture), height, width)


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
    mask = _FILE_MASKS.get(key)
    if mask is None:
        with _opened(path) as picture:
            mask = _channel(picture, channel)
        _FILE_MASKS.put(key, mask)
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
