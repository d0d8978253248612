"""The pack as ComfyUI sees it: the list of its nodes."""

from __future__ import annotations

import logging

from comfy_api.latest import ComfyExtension, io

from ..packages import CANVAS, too_old
from .backend_nodes import (
    OneRewardLocalBackend,
    OneRewardModelBackend,
    OneRewardPreviewBackend,
)
from .canvas_nodes import OneRewardCanvas, OneRewardPlan, OneRewardProof
from .edit_nodes import OneRewardExtend, OneRewardFill, OneRewardRemove, OneRewardText
from .fal_nodes import OneRewardCollect, OneRewardFalBackend

log = logging.getLogger("onereward")


class OneRewardExtension(ComfyExtension):
    async def on_load(self) -> None:
        """Once, at the start: what is loaded already and too old, so this costs nothing."""
        for sentence in too_old(("torch", *CANVAS)):
            log.warning(sentence)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            OneRewardFill,
            OneRewardRemove,
            OneRewardExtend,
            OneRewardText,
            OneRewardCanvas,
            OneRewardPlan,
            OneRewardProof,
            OneRewardPreviewBackend,
            OneRewardFalBackend,
            OneRewardCollect,
            OneRewardLocalBackend,
            OneRewardModelBackend,
        ]
