"""ComfyUI-OneReward: paint a mask, say what you want, keep every other pixel."""

from __future__ import annotations

from .nodes.comfyui.extension import OneRewardExtension
from .nodes.comfyui.routes.router import add_routes

# Help pages; ComfyUI serves this folder.
WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> OneRewardExtension:
    """ComfyUI asks this for the pack's nodes."""
    add_routes()
    return OneRewardExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
