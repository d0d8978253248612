"""ComfyUI's progress bar, preview, status text and Cancel button, as a ProgressSink."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
from PIL import Image
from server import PromptServer

if TYPE_CHECKING:
    from torch import Tensor

PREVIEW_SIDE = 512


class NodeProgress:
    """Progress of one node of the running graph."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        picture = None if preview is None else ("JPEG", _to_pil(preview), PREVIEW_SIDE)
        self._bar.update_absolute(value, total, picture)

    def status(self, text: str) -> None:
        PromptServer.instance.send_progress_text(text, self._node_id)

    def check_interrupted(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()


def _to_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.mul(255).round().byte().cpu().numpy())
