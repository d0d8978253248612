"""The pack as ComfyUI sees it: the list of its nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .backend_nodes import OneRewardCollect, OneRewardFalBackend, OneRewardPreviewBackend
from .canvas_nodes import OneRewardCanvas, OneRewardPlan, OneRewardProof
from .edit_nodes import OneRewardExtend, OneRewardFill, OneRewardRemove, OneRewardText
from .model_nodes import OneRewardLocalBackend, OneRewardModelBackend


class OneRewardExtension(ComfyExtension):
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
