"""A small copy of the picture on which a running edit is shown at its place."""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import Crop
from .image_ops import resize

PREVIEW_SIDE = 512


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
            place = out[self._top : self._top + height, self._left : self._left + width]
            place.copy_(torch.lerp(place, small, self._blend))
        return out
