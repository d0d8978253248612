"""What a node needs to run: the user's folder, canvas and backend, and the thread it works on:
ComfyUI's own, which has the GPU, or one that waits for a service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import folder_paths
import torch

from ..backends import auto_backend, auto_spec, resolve_backend
from ..canvas.options import CanvasOptions
from ..config.preferences import load
from ..contracts import Backend, BackendSpec, ProgressSink
from . import model_folders
from .progress import NodeProgress

NAME = "onereward"

T = TypeVar("T")


def user_folder() -> Path:
    """ComfyUI's system user folder for the pack, user/__onereward: no page can read it over HTTP.

    It need not exist yet.
    """
    # ComfyUI has the function since 0.3.76; before, the same path is put together here.
    get = getattr(folder_paths, "get_system_user_directory", None)
    if get is not None:
        return Path(get(NAME))
    return Path(folder_paths.get_user_directory()) / f"__{NAME}"


async def run_node(
    node_id: str, spec: BackendSpec | None, work: Callable[[Backend, ProgressSink], T]
) -> T:
    """What `work` makes on the backend a node asks for.

    Local work stays on ComfyUI's thread, which owns the GPU. Remote work waits on a thread of its
    own, so that other nodes of the graph run meanwhile.
    """
    folder, progress = user_folder(), NodeProgress(node_id)
    if spec is None:
        spec, note = auto_backend(folder, *auto_spec(model_folders))
        progress.status(note)
    backend = resolve_backend(spec, folder, model_folders)
    if not backend.capabilities.remote:
        return work(backend, progress)
    return await in_thread(progress, lambda: work(backend, progress))


def chosen_canvas(connected: CanvasOptions | None) -> CanvasOptions | None:
    """The connected canvas, else the user's for this machine; None for the task's defaults."""
    return connected or load(user_folder()).canvas


async def in_thread(progress: NodeProgress, work: Callable[[], T]) -> T:
    """What `work` makes, on another thread. If another node fails or is interrupted, ComfyUI drops
    this one; the thread hears of it, cancels its jobs and ends.
    """

    def without_gradients() -> T:  # ComfyUI's own mode, which each thread has to enter
        with torch.inference_mode():
            return work()

    try:
        return await asyncio.to_thread(without_gradients)
    except asyncio.CancelledError:
        progress.stop()
        raise
