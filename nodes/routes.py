"""What a browser may ask of the pack: whether a key is there and works. Never the key itself."""

from __future__ import annotations

import asyncio

from aiohttp import web
from server import PromptServer

from .backends import describe_backend
from .local_models import auto_spec
from .user_folder import user_folder


def add_routes() -> None:
    """Registers GET /onereward/status with ComfyUI's server."""
    PromptServer.instance.routes.get("/onereward/status")(_status)


async def _status(_: web.Request) -> web.Response:
    """What runs when no backend is connected, and the free test of fal's key."""
    return web.json_response(await asyncio.to_thread(_describe))


def _describe() -> dict[str, str]:
    return describe_backend(user_folder(), *auto_spec())
