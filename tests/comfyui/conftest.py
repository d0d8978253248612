"""One real ComfyUI for all tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from comfy_server import ComfyUI, base_directory, running


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    folder = base_directory(tmp_path_factory.mktemp("comfyui") / "base")
    with running(folder) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(comfyui: ComfyUI) -> dict[str, Any]:
    info: dict[str, Any] = comfyui.get("/object_info")
    return info
