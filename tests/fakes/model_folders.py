"""ComfyUI's folder_paths in a temporary folder, and the pack's modules that read it."""

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
READERS = ("model_folders", "local_models")


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
def model_modules(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FolderPaths, dict[str, ModuleType]]]:
    """The fake, and the modules that read it, freshly imported; forgotten afterwards."""
    fake = FolderPaths(base)
    monkeypatch.setitem(sys.modules, "folder_paths", fake)
    full = {name: f"onereward_pack.nodes.comfyui.{name}" for name in READERS}
    for module in full.values():
        sys.modules.pop(module, None)
    yield fake, {name: importlib.import_module(module) for name, module in full.items()}
    for module in full.values():
        sys.modules.pop(module, None)
