"""Loads the pack as a package, the way ComfyUI does, but without running its __init__.

The pack root never goes on sys.path: its `nodes` would shadow ComfyUI's own nodes.py.
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "onereward_pack"

# Waiting threads sleep instead of spinning: beside a server and a browser on two cores, spinning
# makes torch ten times slower. It must stand in the environment before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load_package() -> None:
    """Put the pack root into sys.modules as a package, once; its rooms import from there."""
    if PACKAGE in sys.modules:
        return
    spec = spec_from_file_location(
        PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    sys.modules[PACKAGE] = module_from_spec(spec)


load_package()
