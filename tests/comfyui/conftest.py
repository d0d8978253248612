"""One real ComfyUI for all tests in this folder, whose fal is a fake one on this machine."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from comfy_server import QUEUE_URL, ComfyUI, base_directory, running
from fakes.fal_server import FalServer


@pytest.fixture(scope="session")
def fal_server() -> Iterator[FalServer]:
    with FalServer(key=f"{uuid.uuid4()}:{secrets.token_hex(16)}") as server:
        yield server


@pytest.fixture
def fal(fal_server: FalServer) -> Iterator[FalServer]:
    """The fake that ComfyUI takes for fal, with nothing asked of it yet."""
    fal_server.requests.clear()
    fal_server.jobs.clear()
    fal_server.queue_seconds, fal_server.run_seconds = 0.0, 0.05
    fal_server.cancel_stops_running = True
    yield fal_server
    fal_server.release()
    assert fal_server.leaks == []


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, fal_server: FalServer) -> Iterator[ComfyUI]:
    folder = base_directory(tmp_path_factory.mktemp("comfyui") / "base")
    variables = {"FAL_KEY": fal_server.key, QUEUE_URL: fal_server.url}
    with running(folder, variables=variables) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(comfyui: ComfyUI) -> dict[str, Any]:
    info: dict[str, Any] = comfyui.get("/object_info")
    return info
