"""What a browser may ask of the journal of paid jobs: look, fetch a result, make room."""

from __future__ import annotations

import threading
from pathlib import Path

import folder_paths
from aiohttp import web
from torch import Tensor

from ...backends import clear_kept, collect_job, view_journal
from ...image_io import encode_png
from ..user_folder import user_folder
from .security import answer, json_body, text_of

PREFIX = "onereward/collected"

_NUMBERING = threading.Lock()


async def jobs(_: web.Request) -> web.Response:
    """The newest jobs and the totals."""
    return await answer(lambda: view_journal(user_folder()))


async def collect(request: web.Request) -> web.Response:
    """Fetches a job's images into ComfyUI's output folder; where they are."""
    body = await json_body(request, this_machine_only=True)

    def fetch() -> list[dict[str, str]]:
        return _save(collect_job(text_of(body, "request_id").strip(), user_folder()).images)

    return await answer(fetch)


async def clear(request: web.Request) -> web.Response:
    """Drops the images that the journal keeps; the freed bytes."""
    await json_body(request, this_machine_only=True)
    return await answer(lambda: {"freed": clear_kept(user_folder())})


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
