"""ComfyUI's progress bar, preview, status text and Cancel button, as a ProgressSink."""

from __future__ import annotations

import base64
import io
import threading
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
from comfy_api import feature_flags
from PIL import Image
from server import PromptServer

if TYPE_CHECKING:
    from torch import Tensor

PREVIEW_SIDE = 512
PREVIEW_EVENT = "onereward.preview"


class NodeProgress:
    """Progress of one node of the running graph."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Another node was interrupted, and this one's thread must end too."""
        self._stopped.set()

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        self.check_interrupted()
        picture = None if preview is None else _to_pil(preview)
        if picture is not None and _has_our_page():
            self._send(picture)
            picture = None
        preview_image = None if picture is None else ("JPEG", picture, PREVIEW_SIDE)
        self._bar.update_absolute(value, total, preview_image)

    def _send(self, picture: Image.Image) -> None:
        """To the node's own view, which shows it beside the source."""
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=85)
        url = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
        server = PromptServer.instance
        server.send_sync(PREVIEW_EVENT, {"node": self._node_id, "picture": url}, server.client_id)

    def status(self, text: str) -> None:
        PromptServer.instance.send_progress_text(text, self._node_id)

    def check_interrupted(self) -> None:
        # A look only: ComfyUI's own call would clear the flag, and of several nodes at work side by
        # side one would hear of it. ComfyUI clears it when the next run starts.
        if self._stopped.is_set() or comfy.model_management.processing_interrupted():
            raise comfy.model_management.InterruptProcessingException


def _has_our_page() -> bool:
    """Whether who started the run is ComfyUI's front end, which loads the pack's page script, and
    not a program that knows ComfyUI's own previews alone.
    """
    server = PromptServer.instance
    supported: bool = feature_flags.supports_feature(
        server.sockets_metadata, server.client_id, "supports_preview_metadata"
    )
    return supported


def _to_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.mul(255).round().byte().cpu().numpy())
