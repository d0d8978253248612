"""Which folder of web/js may import which, and that ComfyUI's page gets every module."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "web"
JS = WEB / "js"
ENTRY = "onereward.js"  # ComfyUI loads every .js by itself, and .mjs only where one is imported
COMFYUI = "lib/comfy.mjs"  # the one module that imports ComfyUI's own scripts
# Folder -> the folders below that it may import; "" is web/js itself.
LAYERS: dict[str, set[str]] = {
    "lib": set(),
    "compare": {"lib"},
    "plan": {"lib"},
    "panel": {"lib", "compare", "plan"},
    "settings": {"lib"},
    "": {"lib", "compare", "plan", "panel", "settings"},
}
# import a from "b", export a from "b", import "b", import("b")
IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']""")


def modules() -> dict[str, str]:
    """The source of every script, by its path below web/js."""
    files = sorted(path for path in WEB.rglob("*") if path.suffix in (".js", ".mjs"))
    return {path.relative_to(JS).as_posix(): path.read_text("utf-8") for path in files}


MODULES = modules()


def imports(module: str, source: str) -> set[str]:
    """Paths below web/js of what a module imports; a path that leaves web/ starts with ".."."""
    folder = JS / Path(module).parent
    found = ((folder / path).resolve() for path in IMPORT.findall(source))
    return {
        path.relative_to(JS).as_posix() if path.is_relative_to(JS) else f"../{path.name}"
        for path in found
    }


GRAPH = {module: imports(module, source) for module, source in MODULES.items()}


def folder(module: str) -> str:
    return module.rpartition("/")[0]


def forbidden(module: str, imported: set[str]) -> list[str]:
    """What of its imports a module may not have."""
    allowed = LAYERS[folder(module)] | {folder(module)}
    ours = {path for path in imported if not path.startswith("..")}
    scripts = imported - ours if module != COMFYUI else set()
    return sorted({path for path in ours if folder(path) not in allowed} | scripts)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_folder_and_the_folders_below(module: str) -> None:
    assert forbidden(module, GRAPH[module]) == []


def test_every_import_is_a_file() -> None:
    missing = {
        module: sorted(path for path in found if not path.startswith("..") and path not in MODULES)
        for module, found in GRAPH.items()
    }
    assert {module: paths for module, paths in missing.items() if paths} == {}


def test_no_module_imports_itself_through_others() -> None:
    assert list(TopologicalSorter(GRAPH).static_order())  # CycleError where it does
    assert list(TopologicalSorter(LAYERS).static_order())


def test_every_module_is_reached_from_the_one_that_comfyui_loads() -> None:
    assert [module for module in MODULES if module.endswith(".js")] == [ENTRY]
    reached, ahead = set(), {ENTRY}
    while ahead:
        reached |= ahead
        ahead = {path for module in ahead for path in GRAPH.get(module, ())} - reached
    assert set(MODULES) - reached == set()


def test_every_folder_has_a_layer() -> None:
    assert {folder(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("plan/view.mjs", 'import { a } from "../compare/pane.mjs"', ["compare/pane.mjs"]),
        ("plan/view.mjs", 'export * from "../panel/panel.mjs"', ["panel/panel.mjs"]),
        ("settings/key.mjs", 'await import("../panel/panel.mjs")', ["panel/panel.mjs"]),
        ("lib/dom.mjs", 'import "../onereward.js"', [ENTRY]),
        ("lib/dom.mjs", 'import { app } from "../../../../scripts/app.js"', ["../app.js"]),
        (COMFYUI, 'import { app } from "../../../../scripts/app.js"', []),
        ("panel/panel.mjs", 'import {\n  a,\n} from "../lib/dom.mjs"', []),
    ],
)
def test_the_walk_sees_a_forbidden_import(module: str, source: str, found: list[str]) -> None:
    assert forbidden(module, imports(module, source)) == found
