"""Draws on a picture: a plan (what is painted, what is replaced, the crops), or a running edit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from ..contracts import MEGAPIXEL
from .crop_plan import CropPlan
from .geometry import Crop
from .image_ops import resize

SIDE, PREVIEW_SIDE = 1024, 512  # px
PAINTED, OPAQUE, EDGE, CROP = (230, 40, 50), (250, 210, 40), (255, 255, 255), (60, 130, 255)
FILLED = (255, 130, 0)


def draw_plan(pictures: Sequence[Tensor], plans: Sequence[CropPlan]) -> Tensor:
    """Every picture [H, W, C] with its plan on it, as a batch [N, h, w, 3] of at most 1024 px.

    Red: painted. Orange: pinholes of the mask that were filled. Yellow: the area replaced in full.
    White: where the blend ends, which is also what the model repaints. Blue: the crops, numbered,
    with the size the model sees.
    """
    drawn = [_draw(picture, plan) for picture, plan in zip(pictures, plans, strict=True)]
    return torch.stack([torch.from_numpy(np.array(image)) for image in drawn]).float() / 255


def _draw(picture: Tensor, plan: CropPlan) -> Image.Image:
    height, width = plan.size
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = _shrunk(picture, size)
    for number, crop in enumerate(plan.crops, 1):
        _draw_crop(image, crop, number, scale)
    return image


def _shrunk(picture: Tensor, size: tuple[int, int]) -> Image.Image:
    stride = max(1, max(picture.shape[:2]) // (2 * SIDE))
    rgb = picture[::stride, ::stride, :3].float().nan_to_num(0.0).clamp(0, 1).mul(255).byte()
    return Image.fromarray(rgb.cpu().numpy()).resize(size, Image.Resampling.LANCZOS)


def _draw_crop(image: Image.Image, crop: Crop, number: int, scale: float) -> None:
    corner = round(crop.box.left * scale), round(crop.box.top * scale)
    size = max(1, round(crop.box.height * scale)), max(1, round(crop.box.width * scale))
    painted = _small(crop.painted, size)
    image.paste(PAINTED, corner, Image.fromarray((painted * 110).astype(np.uint8)))
    if crop.filled is not None:
        image.paste(FILLED, corner, Image.fromarray(_small(crop.filled, size)))
    for mask, colour in ((crop.blend >= 1, OPAQUE), (crop.model_mask, EDGE)):
        line = _outline(_small(mask, size))
        image.paste(colour, corner, Image.fromarray((line * 255).astype(np.uint8)))
    draw = ImageDraw.Draw(image)
    right, bottom = corner[0] + size[1] - 1, corner[1] + size[0] - 1
    draw.rectangle((*corner, right, bottom), outline=CROP, width=2)
    height, width = crop.size
    text = f"{number}: {crop.box.width}x{crop.box.height}, seen at {width}x{height}"
    _label(draw, corner, f"{text}, {width * height / MEGAPIXEL:.2f} MP")


def _small(mask: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask at the drawing's scale; every painted pixel leaves a trace."""
    small = functional.adaptive_max_pool2d(mask[None, None].float(), size)
    traces: NDArray[np.bool_] = small[0, 0].bool().cpu().numpy()
    return traces


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _label(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    font = ImageFont.load_default(14)
    at = corner[0] + 5, corner[1] + 4
    draw.rectangle(draw.textbbox(at, text, font=font), fill=CROP)
    draw.text(at, text, fill=(255, 255, 255), font=font)


class PlacedPreview:
    """Pastes a crop's preview into a small copy of its picture.

    Args:
        picture: float [H, W, 3 or 4].
        crop: where the preview belongs.
    """

    def __init__(self, picture: Tensor, crop: Crop) -> None:
        height, width = picture.shape[:2]
        # Striding costs nothing on an 8K picture, and a preview may be rough.
        self._stride = max(1, -(-max(height, width) // PREVIEW_SIDE))
        stride = self._stride
        self._picture = picture[::stride, ::stride, :3].float().clamp(0, 1)
        # The first row of the small copy that lies inside the crop.
        self._top, self._left = -(-crop.box.top // stride), -(-crop.box.left // stride)
        rows = slice(self._top * stride - crop.box.top, None, stride)
        columns = slice(self._left * stride - crop.box.left, None, stride)
        self._blend = crop.blend[rows, columns].unsqueeze(-1).to(self._picture)
        self._crop = crop

    def paste(self, preview: Tensor) -> Tensor:
        """The small picture [h, w, 3] in 0..1 with `preview` [h, w, 3], any size, in its place."""
        (full_h, full_w), (seen_h, seen_w) = self._crop.size, self._crop.scaled
        rows, columns = preview.shape[:2]
        seen = preview[: -(-rows * seen_h // full_h), : -(-columns * seen_w // full_w)]
        height, width = self._blend.shape[:2]
        out = self._picture.clone()
        if height and width:
            small = resize(seen.to(out), (height, width)).clamp(0, 1)
            target = out[self._top : self._top + height, self._left : self._left + width]
            target.copy_(torch.lerp(target, small, self._blend))
        return out
