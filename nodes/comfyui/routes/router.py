"""The list of routes, and those of settings, key and journal. None ever answers with a key."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from server import PromptServer
from torch import Tensor

from ...backends import (
    ask_server,
    auto_spec,
    clear_pictures,
    collect_job,
    describe_backend,
    no_onereward,
    server_choices,
    view_journal,
)
from ...config import preferences
from ...config.credentials import set_variables, store_key
from ...errors import InputError
from ...image_io import encode_png
from .. import model_folders
from ..execution import user_folder
from . import estimate
from .security import answer, is_here, json_body, one_text

PREFIX = "onereward/collected"
KEY_FORM = "A key that you save here goes into a file that you alone can read, on this machine."

_NUMBERING = threading.Lock()


@dataclass(frozen=True)
class ServerBody:
    """Which server to test."""

    server: str


@dataclass(frozen=True)
class KeyBody:
    """fal's key; "" to remove it."""

    key: str


@dataclass(frozen=True)
class CollectBody:
    """Which job's images to fetch."""

    request_id: str


def add_routes() -> None:
    """Registers all routes of the pack with ComfyUI's server."""
    routes = PromptServer.instance.routes
    routes.get("/onereward/status")(_status)
    routes.post("/onereward/plan")(estimate.answer)
    routes.post("/onereward/test")(_test)
    routes.post("/onereward/key")(_key)
    routes.post("/onereward/preferences")(_preferences)
    routes.get("/onereward/journal")(_journal)
    routes.post("/onereward/journal/collect")(_collect)
    routes.post("/onereward/journal/clear")(_clear)


async def _status(request: web.Request) -> web.Response:
    """What runs when no backend is connected, and all that the settings panel shows."""
    here = is_here(request)
    return await answer(lambda: {**_describe(user_folder()), "here": here})


async def _test(request: web.Request) -> web.Response:
    """Whether a server answers and knows the key, free of charge."""
    body = await json_body(request, this_machine_only=False)
    return await answer(
        lambda: {"words": ask_server(one_text(ServerBody, body).server, user_folder())}
    )


async def _key(request: web.Request) -> web.Response:
    """Puts fal's key into the key file, or removes the file."""
    body = await json_body(request, this_machine_only=True)

    def store() -> dict[str, str]:
        key = one_text(KeyBody, body).key
        store_key(user_folder(), key)
        return {"key": "from the key file" if key.strip() else "none"}

    return await answer(store)


async def _preferences(request: web.Request) -> web.Response:
    """Stores what the body holds in place of what was stored; what is stored then."""
    body = await json_body(request, this_machine_only=True)
    return await answer(lambda: preferences.plain(preferences.change(user_folder(), body)))


async def _journal(_: web.Request) -> web.Response:
    """The newest paid jobs and the totals."""
    return await answer(lambda: view_journal(user_folder()))


async def _collect(request: web.Request) -> web.Response:
    """Fetches a job's images into ComfyUI's output folder; where they are."""
    body = await json_body(request, this_machine_only=True)

    def fetch() -> list[dict[str, str]]:
        request_id = one_text(CollectBody, body).request_id.strip()
        return _save(collect_job(request_id, user_folder()).images)

    return await answer(fetch)


async def _clear(request: web.Request) -> web.Response:
    """Drops the images that the journal keeps; the freed bytes."""
    await json_body(request, this_machine_only=True)
    return await answer(lambda: {"freed": clear_pictures(user_folder())})


def _save(images: Tensor) -> list[dict[str, str]]:
    """float [n, h, w, 3] as PNG files, numbered on from those that are there."""
    height, width = images.shape[1:3]
    saved = []
    with _NUMBERING:
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
            PREFIX, folder_paths.get_output_directory(), width, height
        )
        for image in images:
            file = f"{name}_{number:05}_.png"
            (Path(folder) / file).write_bytes(encode_png(image))
            saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
            number += 1
    return saved


def _describe(folder: Path) -> dict[str, Any]:
    """What runs when nothing is connected and why, for the user; nothing is sent, no key is in it.

    backend, note, key, test: see describe_backend. local: {"ready", "words"}. key_form: {"usable",
    "words"}. servers: names. preferences: as stored, or null. trouble: what cannot be read.
    """
    local, why_not = auto_spec(model_folders)
    found: dict[str, Any] = dict(describe_backend(folder, local, why_not))
    text = local.transformer if local else why_not or no_onereward(model_folders)
    found["local"] = {"ready": local is not None, "words": text}
    found["key_form"] = _key_form()
    trouble = []
    try:
        found["servers"] = server_choices(folder)
    except InputError as error:
        found["servers"] = ["fal"]
        trouble.append(str(error))
    try:
        found["preferences"] = preferences.plain(preferences.load(folder))
    except InputError as error:
        found["preferences"] = None
        trouble.append(str(error))
    return {**found, "trouble": trouble}


def _key_form() -> dict[str, Any]:
    variables = " and ".join(set_variables())
    if not variables:
        return {"usable": True, "words": KEY_FORM}
    text = f"The key is in {variables}, which is used before the key file. Change it there."
    return {"usable": False, "words": text}
