"""Loads the pack as a package, the way ComfyUI does, but without running its __init__; and says
which tests are slow, and how pytest-xdist shares them out.

The pack root never goes on sys.path: its `nodes` would shadow ComfyUI's own nodes.py.
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

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

# What starts servers, browsers or other processes, or computes for long; the longest first, so that
# workers of xdist end together. Each is a `share`.
SLOW = (
    "comfyui/test_comfy_",
    "comfyui/test_front_",
    "newest front end",
    "clients/",
    "comfyui/test_comfy_model_backend.py",
    "comfyui/test_comfy_local.py",
    "comfyui/test_comfy_memory.py",
    "comfyui/test_comfy_own_server.py",
    "local_backend/server/test_cluster.py",
    "local_backend/test_preview_model.py",
    "local_backend/test_preview_floor.py",
    "local_backend/acceleration/test_block_compile.py",
    "local_backend/test_quality_of_levels.py",
    "local_backend/offload/test_runtime_options.py",
    "local_backend/backends/test_flux.py",
    "local_backend/test_bench.py",
    "local_backend/server/test_postgres.py",
    "nodes/fal/test_job_migration.py",
    "local_backend/test_local_memory_benchmark.py",
    "test_install.py",
)


def share(test: str) -> str:
    """What one worker does in one go: a file's tests, or those of all files that use a server."""
    file, _, name = test.partition("::")
    if file in SLOW:
        return file
    if file.startswith("comfyui/") and "newest" in name:
        return "newest front end"
    return next((slow for slow in SLOW if file.startswith(slow)), file)


def rank(item: pytest.Item) -> int:
    """The place of a test's share in SLOW, or one behind all."""
    name = share(item.nodeid)
    return SLOW.index(name) if name in SLOW else len(SLOW)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if rank(item) < len(SLOW):
            item.add_marker("slow")
    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Shares go to the workers whole, in the order that they are in."""
    from xdist.scheduler import LoadScopeScheduling

    class ByShare(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid)

    config.option.loadscopereorder = False
    return ByShare(config, log)
