"""ComfyUI's folder_paths in a temporary folder, and the pack's module that reads it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

NAMES = ("diffusion_models", "text_encoders", "vae", "loras", "diffusers")
READER = "onereward_pack.nodes.comfyui.model_folders"


class FolderPaths(ModuleType):
    """The part of ComfyUI's module that the pack uses, with a second folder of each kind, as
    extra_model_paths.yaml adds it. Counts how often a folder is walked.
    """

    def __init__(self, base: Path) -> None:
        super().__init__("folder_paths")
        self.base, self.walks = base, 0
        for place in ("models", "extra"):
            for name in NAMES:
                (base / place / name).mkdir(parents=True)

    def get_folder_paths(self, name: str) -> list[str]:
        return [str(self.base / place / name) for place in ("models", "extra")]

    def recursive_search(
        self, directory: str, excluded_dir_names: list[str]
    ) -> tuple[list[str], dict[str, float]]:
        self.walks += 1
        names, folders = [], {}
        for folder, below, files in os.walk(directory, followlinks=True):
            below[:] = [name for name in below if name not in excluded_dir_names]
            folders[folder] = os.path.getmtime(folder)
            names += [os.path.relpath(os.path.join(folder, file), directory) for file in files]
        return names, folders


@contextmanager
def comfy_folders(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FolderPaths, ModuleType]]:
    """The fake, and model_folders, freshly imported; forgotten afterwards."""
    fake = FolderPaths(base)
    monkeypatch.setitem(sys.modules, "folder_paths", fake)
    sys.modules.pop(READER, None)
    yield fake, importlib.import_module(READER)
    sys.modules.pop(READER, None)
