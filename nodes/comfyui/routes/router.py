"""The list of routes, and the short ones among them. None ever answers with a key."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from ...backends import ask_server
from ...config import preferences
from ...config.credentials import store_key
from ..user_folder import user_folder
from . import estimate, history
from .security import answer, is_here, json_body, text_of
from .status import status


def add_routes() -> None:
    """Registers all routes of the pack with ComfyUI's server."""
    routes = PromptServer.instance.routes
    routes.get("/onereward/status")(_status)
    routes.post("/onereward/plan")(estimate.answer)
    routes.post("/onereward/test")(_test)
    routes.post("/onereward/key")(_key)
    routes.post("/onereward/preferences")(_preferences)
    routes.get("/onereward/journal")(history.jobs)
    routes.post("/onereward/journal/collect")(history.collect)
    routes.post("/onereward/journal/clear")(history.clear)


async def _status(request: web.Request) -> web.Response:
    """What runs when no backend is connected, and all that the settings panel shows."""
    here = is_here(request)
    return await answer(lambda: {**status(user_folder()), "here": here})


async def _test(request: web.Request) -> web.Response:
    """Whether a server answers and knows the key, free of charge."""
    body = await json_body(request, this_machine_only=False)
    return await answer(lambda: {"words": ask_server(text_of(body, "server"), user_folder())})


async def _key(request: web.Request) -> web.Response:
    """Puts fal's key into the key file, or removes the file."""
    body = await json_body(request, this_machine_only=True)

    def store() -> dict[str, str]:
        key = text_of(body, "key")
        store_key(user_folder(), key)
        return {"key": "from the key file" if key.strip() else "none"}

    return await answer(store)


async def _preferences(request: web.Request) -> web.Response:
    """Stores what the body holds in place of what was stored; what is stored then."""
    body = await json_body(request, this_machine_only=True)
    return await answer(lambda: preferences.plain(preferences.change(user_folder(), body)))
