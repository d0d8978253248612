"""The UI output of a finished edit: pictures in ComfyUI's temp folder, and text for its node."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
import torch
from torch.nn import functional

from ..canvas.image_ops import resize
from ..image_io import encode_png

if TYPE_CHECKING:
    from torch import Tensor

    from ..edit.run import Edit

KEY = "onereward"  # of the node's "executed" message
SIDE = 2048  # px; a larger picture is reduced
LIGHT, DARK = 1.0, 0.0


def ui_output(image: Tensor, edit: Edit) -> dict[str, list[dict[str, object]]]:
    """A task node's `ui`: for every result its source, itself and the outline of the blend, as
    files that GET /view finds, and the edit as text.

    Args:
        image: float [B, H, W, 3 or 4], what went into the node.
    """
    befores = [_save("before", _reduced(_on_canvas(picture, edit))) for picture in image]
    pairs = [
        {
            "before": befores[source],
            "after": _save("after", _reduced(result)),
            "outline": _save("outline", _outline(mask)),
            "seed": str(seed),  # JavaScript's numbers cannot hold it
            "flagged": flagged,
        }
        for source, result, mask, seed, flagged in zip(
            edit.sources, edit.images, edit.mask, edit.seeds, edit.flagged, strict=True
        )
    ]
    height, width = edit.images.shape[1:3]
    texts = {"badge": edit.badge, "summary": edit.summary, "report": edit.report}
    return {KEY: [{"pairs": pairs, "size": [width, height], **texts}]}


def _save(what: str, picture: Tensor) -> dict[str, str]:
    """Write a PNG without metadata; what /view calls it."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{KEY}_{what}_{uuid.uuid4().hex}.png"
    (folder / name).write_bytes(encode_png(picture, fast=True))
    return {"filename": name, "subfolder": "", "type": "temp"}


def _on_canvas(picture: Tensor, edit: Edit) -> Tensor:
    """The picture where it lies in the results; what an extension added is transparent."""
    if picture.shape[:2] == edit.images.shape[1:3]:
        return picture
    height, width, _ = picture.shape
    top, left = edit.origin
    canvas = picture.new_zeros(*edit.images.shape[1:3], 4)
    source = canvas[top : top + height, left : left + width]
    source[..., :3], source[..., 3] = picture[..., :3], 1.0
    return canvas


def _reduced(picture: Tensor) -> Tensor:
    scale = SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return resize(picture.float(), (height, width)).clamp(0, 1)


def _outline(mask: Tensor) -> Tensor:
    """RGBA [h, w, 4]: a light line along the inside of the blend's edge and a dark one along its
    outside, so that it is seen on any picture.
    """
    inside = (_reduced(mask.unsqueeze(-1))[..., 0] > 0).float()[None, None]
    wider = functional.max_pool2d(inside, 3, 1, 1)
    narrower = 1 - functional.max_pool2d(1 - inside, 3, 1, 1)
    light, dark = inside - narrower, wider - inside
    shade = torch.where(light > 0, LIGHT, DARK)
    return torch.cat([shade.expand(1, 3, -1, -1), (light + dark)], 1)[0].permute(1, 2, 0)
