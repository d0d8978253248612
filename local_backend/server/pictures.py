"""A picture file of a job as a tensor; a broken or too large one as fal's refusal."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from ...nodes.conversions import BROKEN_PICTURE, FORMATS, decode_image, decode_mask
from ...nodes.errors import InputError
from . import problems
from .work import Failed

if TYPE_CHECKING:
    from torch import Tensor


def read_picture(data: bytes, name: str, max_pixels: int) -> Tensor | Failed:
    """The image_url's file as float [1, h, w, 3], the mask_url's as a mask [1, h, w], both in 0..1.
    One that says it has more than `max_pixels` is not decoded.
    """
    try:
        size = _size(data)
        if size[0] * size[1] > max_pixels:
            text = f"The picture is {size[0]}x{size[1]}; {max_pixels} pixels are allowed"
            return _refusal(name, "image_too_large", text, {"max_pixels": max_pixels})
        if name == "mask_url":
            return decode_mask(data)
        return decode_image(data, max_pixels)[..., :3]
    except Image.DecompressionBombError:  # by far more than PIL opens for anybody
        text = f"The picture is too large to be opened; {max_pixels} pixels are allowed"
        return _refusal(name, "image_too_large", text, {"max_pixels": max_pixels})
    except (InputError, *BROKEN_PICTURE):
        formats = {"supported_formats": list(FORMATS)}
        return _refusal(name, "image_load_error", "The file is not a readable picture", formats)


def _size(data: bytes) -> tuple[int, int]:
    with warnings.catch_warnings():
        # PIL warns of large pictures by a size of its own
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.width, picture.height


def _refusal(name: str, kind: str, text: str, ctx: Mapping[str, object]) -> Failed:
    return Failed(problems.refused([problems.entry(name, kind, text, None, ctx)]))
