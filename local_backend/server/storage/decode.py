"""A picture file of a job as a tensor; a broken or too large one as fal's refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ....nodes.errors import InputError
from ....nodes.image_io import PictureTooLarge, decode_image, decode_mask, formats
from .. import errors
from ..messages import Failed

if TYPE_CHECKING:
    from torch import Tensor


def read_picture(data: bytes, name: str, max_pixels: int) -> Tensor | Failed:
    """The image_url's file as float [1, h, w, 3], the mask_url's as a mask [1, h, w], both in 0..1.
    One that says it has more than `max_pixels` is not decoded.
    """
    try:
        if name == "mask_url":
            return decode_mask(data, max_pixels)
        return decode_image(data, max_pixels)[..., :3]
    except PictureTooLarge as error:
        return _refusal(name, "image_too_large", error, {"max_pixels": max_pixels})
    except InputError as error:
        return _refusal(name, "image_load_error", error, {"supported_formats": list(formats())})


def _refusal(name: str, kind: str, error: InputError, ctx: Mapping[str, object]) -> Failed:
    return Failed(errors.refused([errors.entry(name, kind, str(error), None, ctx)]))
