"""Who may import what: the table of the design, held against every module's source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STDLIB = sys.stdlib_module_names
TENSORS = {"torch", "numpy", "PIL", "scipy"}
COMFY = {"comfy", "comfy_api", "server", "folder_paths"}
PURE = {"nodes.contracts", "nodes.errors"}
FRONT = PURE | {"nodes.canvas", "nodes.editing", "nodes.backends", "nodes.recipes"}
LIGHT = {"torch", "numpy", "safetensors", "local_backend.checkpoints"} | PURE
SERVER = {"local_backend.server"} | PURE
NODE = {"comfy_api", "nodes.sockets", "nodes.user_folder"} | FRONT

# Module or room -> what it may import besides the standard library. The first match counts.
RULES: dict[str, set[str]] = {
    "__init__": {"nodes.extension", "nodes.routes.register"},
    "nodes.contracts": set(),
    "nodes.errors": set(),
    "nodes.packages": PURE,
    "nodes.recipes": PURE,
    "nodes.canvas": TENSORS | PURE | {"nodes.canvas"},
    "nodes.conversions": TENSORS | PURE,
    "nodes.reports": PURE | {"nodes.canvas"},
    "nodes.jobs": PURE,
    "nodes.pieces": {"torch"} | PURE | {"nodes.canvas", "nodes.reports"},
    "nodes.editing": {"torch", "numpy"} | PURE
    | {"nodes.canvas", "nodes.reports", "nodes.jobs", "nodes.pieces", "nodes.pace"}
    | {"nodes.recipes"},
    "nodes.private_files": set(),
    "nodes.credentials": PURE | {"nodes.private_files"},
    "nodes.preferences": PURE | {"nodes.canvas.options", "nodes.private_files"},
    "nodes.user_folder": {"folder_paths"},
    "nodes.fal.servers": PURE,  # read for the node's menu, so it loads no HTTP library
    "nodes.fal": {"torch", "requests", "urllib3", "nodes.conversions", "nodes.canvas.resample",
                 "nodes.canvas.sizes"}
    | PURE | {"nodes.fal"},
    "nodes.backends": PURE | {"nodes.credentials", "nodes.packages", "nodes.preferences"}
    | {"local_backend.backend", "local_backend.comfy_model", "nodes.local_models"}
    | {"nodes.fal.backend", "nodes.fal.servers", "nodes.fal.caps", "nodes.fal.journal_view"}
    | {"nodes.fal.waiting"},
    # The only rooms that look into ComfyUI's model folders, and into the files there.
    "nodes.model_folders": {"folder_paths", "nodes.errors"},
    "nodes.local_models": PURE
    | {"nodes.model_folders", "local_backend.model_files", "local_backend.memory.devices"}
    | {"local_backend.checkpoints.files", "local_backend.checkpoints.families"},
    "nodes.pace": {"nodes.canvas"},
    # The plan: what it reads and is asked for, and the pure rest.
    "nodes.planning.files": TENSORS | {"folder_paths", "nodes.conversions", "nodes.planning"}
    | PURE,
    "nodes.planning.request": {"torch", "nodes.backends", "nodes.recipes", "nodes.planning"}
    | {"nodes.canvas"} | PURE,
    "nodes.planning": TENSORS | {"nodes.canvas", "nodes.editing", "nodes.pace", "nodes.pieces"}
    | {"nodes.conversions", "nodes.planning"} | PURE,
    "nodes.progress": {"comfy", "comfy_api", "server", "PIL"},
    "nodes.shown": {"folder_paths", "torch", "nodes.canvas", "nodes.conversions"},
    "nodes.running": {"torch", "nodes.backends", "nodes.local_models", "nodes.progress"}
    | {"nodes.user_folder", "nodes.preferences", "nodes.canvas.options"} | PURE,
    "nodes.sockets": {"comfy_api"} | PURE | {"nodes.recipes"},
    "nodes.routes.guards": {"aiohttp", "nodes.errors"},
    "nodes.routes.plan": {"aiohttp", "torch", "nodes.backends", "nodes.local_models"}
    | {"nodes.planning", "nodes.preferences", "nodes.routes", "nodes.user_folder"} | PURE,
    "nodes.routes.journal": {"aiohttp", "folder_paths", "torch", "nodes.backends"}
    | {"nodes.conversions", "nodes.routes", "nodes.user_folder"},
    "nodes.routes": {"aiohttp", "server", "nodes.backends", "nodes.credentials", "nodes.errors"}
    | {"nodes.local_models", "nodes.model_folders", "nodes.preferences", "nodes.routes"}
    | {"nodes.user_folder"},
    "nodes.extension": {
        "comfy_api", "nodes.backend_nodes", "nodes.canvas_nodes", "nodes.edit_nodes",
        "nodes.model_nodes", "nodes.packages",
    },
    "nodes.backend_nodes": NODE | {"nodes.progress", "nodes.reports", "nodes.running"},
    "nodes.model_nodes": NODE | {"nodes.model_folders", "nodes.local_models", "nodes.progress"},
    "nodes.canvas_nodes": NODE | {"nodes.reports", "nodes.local_models", "nodes.running"},
    "nodes.edit_nodes": NODE | {"nodes.running", "nodes.shown", "nodes.planning.memory"},
    # The command line is a front door like the nodes, and stands in this room by its name only.
    "local_backend.__main__": set(),
    "local_backend.cli": FRONT | {"nodes.conversions", "local_backend"},
    "local_backend.compare": TENSORS | FRONT | {"nodes.conversions", "local_backend"},
    "local_backend.demo": TENSORS | FRONT | {"nodes.conversions", "local_backend.sheets"},
    "local_backend.cli_job": FRONT | {"nodes.conversions", "local_backend"},
    "local_backend.picture_files": TENSORS | PURE | {"av", "nodes.conversions"},
    "local_backend.terminal": {"tqdm"},
    # Headers are read for the nodes' menus, so looking at a file loads no model library.
    "local_backend.checkpoints.files": LIGHT,
    "local_backend.checkpoints.families": LIGHT,
    "local_backend.checkpoints.tensors": LIGHT,
    "local_backend.checkpoints.safetensors_files": LIGHT,
    "local_backend.checkpoints.gguf_files": LIGHT | {"gguf"},
    "local_backend.checkpoints.sidecars": LIGHT,
    "local_backend.memory.comfy_patcher": TENSORS | {"comfy", "local_backend"},
    "local_backend.comfy_model": TENSORS | {"comfy", "local_backend"} | PURE,
    # Scripts that are run by hand to make the model again; no other room imports them.
    "local_backend.preview_model.training": TENSORS
    | {"diffusers", "transformers", "tokenizers", "safetensors", "regex"}
    | {"local_backend.preview_model.training"},
    # The server: its painter alone reaches the models, and its cluster Ray.
    "local_backend.server.app": {"ray", "local_backend.__main__"},
    "local_backend.server.cluster": {"ray", "torch"} | SERVER,
    "local_backend.server.ray_pool": {"ray"} | SERVER,
    "local_backend.server.command": {"uvicorn"} | SERVER,
    "local_backend.server.fetch": {"httpcore"} | SERVER,
    "local_backend.server.addresses": {"httpcore"} | SERVER,
    "local_backend.server.schemas": {"pydantic", "local_backend.checks"} | SERVER,
    "local_backend.server.pictures": {"PIL", "torch", "nodes.conversions"} | SERVER,
    "local_backend.server.painting": {"torch", "local_backend", "nodes.conversions"} | FRONT,
    "local_backend.server": {"fastapi", "starlette", "pydantic", "sqlalchemy"} | SERVER,
    "local_backend": TENSORS | PURE | {"local_backend"}
    | {"diffusers", "transformers", "safetensors", "accelerate", "gguf", "psutil"},
}  # fmt: skip


def modules() -> list[tuple[str, Path]]:
    files = [ROOT / "__init__.py", *ROOT.glob("nodes/**/*.py"), *ROOT.glob("local_backend/**/*.py")]
    named = []
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        room = parts[:-1] if parts[-1] == "__init__" else parts
        named.append((".".join(room) or "__init__", file))
    return named


def runtime_imports(name: str, file: Path) -> set[str]:
    """Absolute names of everything a module imports, TYPE_CHECKING blocks left out."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    if name == "__init__":
        package = []
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            if node.module and node.module not in ("canvas",):
                found.add(".".join(module))
            else:
                found.update(".".join([*module, alias.name]) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text("utf-8")))
    return {n for n in found if n and n.split(".")[0] not in STDLIB}


def rule_of(name: str) -> set[str]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        rule = RULES.get(".".join(parts[:length]))
        if rule is not None:
            return rule
    return set()


def allowed(imported: str, rule: set[str]) -> bool:
    return any(imported == entry or imported.startswith(entry + ".") for entry in rule)


@pytest.mark.parametrize(("name", "file"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_what_its_room_may(name: str, file: Path) -> None:
    rule = rule_of(name)
    assert [i for i in sorted(runtime_imports(name, file)) if not allowed(i, rule)] == []


def test_the_walk_sees_a_forbidden_import(tmp_path: Path) -> None:
    file = tmp_path / "fill.py"
    file.write_text("def f():\n    import requests\n    from ...local_backend import backend\n")
    found = runtime_imports("nodes.canvas.fill", file)
    assert found == {"requests", "local_backend"}
    assert not any(allowed(i, rule_of("nodes.canvas.fill")) for i in found)


def test_source_is_ascii_and_calls_nothing_dangerous() -> None:
    banned = {"eval", "exec", "compile", "__import__", "print"}
    for name, file in modules():
        text = file.read_text("utf-8")
        assert text.isascii(), name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in banned, (name, node.lineno)
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, (name, node.lineno)
                assert "Exception" not in ast.unparse(node.type).split("."), (name, node.lineno)


def test_importing_the_rooms_that_need_no_model_loads_no_model_library() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest\n"
        "import onereward_pack.nodes.editing, onereward_pack.nodes.backends\n"
        "import onereward_pack.nodes.conversions, onereward_pack.nodes.fal.servers\n"
        "print([m for m in ('diffusers', 'transformers', 'requests') if m in sys.modules],"
        "[m for m in sys.modules if 'local_backend' in m])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[] []"
