"""Which room may import which: the layers of docs/architecture.md, held against every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TENSORS = {"torch", "numpy", "PIL"}
MODELS = TENSORS | {"diffusers", "transformers", "safetensors", "accelerate", "gguf", "psutil"}
MODELS |= {"cachetools", "typing_extensions"}  # torch brings the latter along
SERVER = {"fastapi", "starlette", "pydantic", "sqlalchemy"}

# Room -> the rooms below that it may import. A name is a package, or one of its modules; a module
# belongs to the longest name that it starts with.
LAYERS: dict[str, set[str]] = {
    "nodes": set(),  # the kernel: contracts, errors, image_io, packages
    "nodes.canvas": {"nodes"},
    "nodes.edit": {"nodes", "nodes.canvas"},
    "nodes.estimate": {"nodes", "nodes.canvas", "nodes.edit"},
    "nodes.config": {"nodes", "nodes.canvas"},
    "nodes.fal": {"nodes", "nodes.canvas", "nodes.config"},
    "nodes.backends": {"nodes", "nodes.canvas", "nodes.config", "nodes.fal"}
    | {"local_backend.checkpoints", "local_backend.offload", "local_backend.backends"},
    "nodes.comfyui": {"nodes", "nodes.canvas", "nodes.edit", "nodes.estimate", "nodes.config"}
    | {"nodes.backends"},
    "local_backend.quantization": {"nodes"},
    "local_backend.checkpoints": {"nodes", "local_backend.quantization"},
    "local_backend.acceleration": {"nodes", "local_backend.quantization"}
    | {"local_backend.checkpoints"},
    "local_backend.offload": {"nodes", "local_backend.quantization", "local_backend.checkpoints"}
    | {"local_backend.acceleration"},
    "local_backend.pipeline": {"nodes", "local_backend.quantization", "local_backend.checkpoints"}
    | {"local_backend.acceleration", "local_backend.offload"},
    "local_backend.backends": {"nodes", "local_backend.quantization", "local_backend.checkpoints"}
    | {"local_backend.acceleration", "local_backend.offload", "local_backend.pipeline"},
    "local_backend.bench": {"nodes", "nodes.canvas", "nodes.edit", "local_backend.quantization"}
    | {"local_backend.checkpoints", "local_backend.acceleration", "local_backend.offload"}
    | {"local_backend.pipeline", "local_backend.backends"},
    "local_backend.server": {"nodes", "local_backend.pipeline"},  # settings, tables, keys, schemas
    "local_backend.server.storage": {"nodes", "local_backend.server"},
    "local_backend.server.queue": {"nodes", "local_backend.server", "local_backend.server.storage"},
    "local_backend.server.http": {"nodes", "local_backend.server", "local_backend.server.storage"}
    | {"local_backend.server.queue"},
    "local_backend.server.workers": {"nodes", "nodes.canvas", "nodes.edit", "local_backend.server"}
    | {"local_backend.server.storage", "local_backend.backends", "local_backend.checkpoints"}
    | {"local_backend.pipeline"},
    "local_backend.server.cli": {"nodes", "local_backend.server", "local_backend.server.http"}
    | {"local_backend.server.workers"},
    "local_backend.cli": {"nodes", "nodes.canvas", "nodes.edit", "nodes.backends"}
    | {"local_backend.checkpoints", "local_backend.backends", "local_backend.pipeline"}
    | {"local_backend.bench", "local_backend.server.cli"},
    "local_backend.__main__": set(),  # it imports the command line by name
    "local_backend.server.app": {"local_backend.__main__"},  # so does what Ray imports
    "local_backend.preview_model": set(),  # its training: scripts that no other room imports
    "__init__": {"nodes.comfyui"},
}

# Room or module -> what it may import from elsewhere, besides the standard library. The longest
# name counts.
OUTSIDE: dict[str, set[str]] = {
    "nodes": set(),
    "nodes.image_io": TENSORS,
    "nodes.canvas": TENSORS | {"scipy"},
    "nodes.edit": {"torch", "numpy"},
    "nodes.estimate": TENSORS | {"pydantic"},
    "nodes.config": {"pydantic"},
    "nodes.fal": {"torch", "requests", "urllib3"},
    "nodes.fal.endpoints": set(),  # read for a node's menu, so it loads no HTTP library
    "nodes.comfyui": TENSORS | {"pydantic", "aiohttp"}
    | {"comfy", "comfy_api", "server", "folder_paths"},
    "local_backend": MODELS,
    # Headers are read for the nodes' menus, so looking at a file loads no model library.
    "local_backend.checkpoints.readers": {"torch", "numpy", "safetensors", "gguf"},
    "local_backend.checkpoints.detect": set(),
    "local_backend.checkpoints.select": set(),
    "local_backend.checkpoints.local_spec": set(),
    "local_backend.checkpoints.quant_metadata": {"torch", "numpy", "safetensors"},
    "local_backend.offload.comfy_memory": MODELS | {"comfy"},
    "local_backend.backends.comfy_model": MODELS | {"comfy"},
    "local_backend.cli": MODELS | {"tqdm", "av"},
    "local_backend.server": SERVER,
    "local_backend.server.cli": {"uvicorn"},
    "local_backend.server.app": {"ray"},
    "local_backend.server.storage": SERVER | TENSORS | {"httpcore"},
    "local_backend.server.workers": SERVER | {"torch", "ray"},
    "local_backend.preview_model": MODELS | {"tokenizers", "regex"},
}  # fmt: skip


def modules() -> list[tuple[str, Path]]:
    files = [ROOT / "__init__.py", *ROOT.glob("nodes/**/*.py"), *ROOT.glob("local_backend/**/*.py")]
    named = []
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        room = parts[:-1] if parts[-1] == "__init__" else parts
        named.append((".".join(room) or "__init__", file))
    return named


NAMES = {name for name, _ in modules()}


def runtime_imports(name: str, file: Path) -> set[str]:
    """Absolute names of every module that a module imports, TYPE_CHECKING blocks left out."""
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
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found.update(inner & NAMES if inner & NAMES else {module})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text("utf-8")))
    return {n for n in found if n and n.split(".")[0] not in sys.stdlib_module_names}


def longest(name: str, table: dict[str, set[str]]) -> str:
    """The table's entry for a module: its own, or that of the nearest package around it."""
    parts = name.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((known for known in names if known in table), "")


def is_ours(imported: str) -> bool:
    return imported.split(".")[0] in ("nodes", "local_backend")


def forbidden(name: str, imports: set[str]) -> list[str]:
    """What of its imports a module may not have."""
    room = longest(name, LAYERS)
    rooms, packages = LAYERS[room] | {room}, OUTSIDE.get(longest(name, OUTSIDE), set())
    ours = {i for i in imports if is_ours(i) and longest(i, LAYERS) not in rooms}
    others = {i for i in imports if not is_ours(i) and i.split(".")[0] not in packages}
    return sorted(ours | others)


@pytest.mark.parametrize("room", LAYERS)
def test_a_room_imports_only_from_the_rooms_below(room: str) -> None:
    wrong = {
        name: strays
        for name, file in modules()
        if longest(name, LAYERS) == room
        and (strays := forbidden(name, runtime_imports(name, file)))
    }
    assert wrong == {}


def test_every_module_has_a_room() -> None:
    assert {longest(name, LAYERS) for name in NAMES} - {"local_backend", ""} == set(LAYERS)
    assert [name for name in NAMES if longest(name, LAYERS) == "" and name != "local_backend"] == []


def test_no_room_imports_itself_through_others() -> None:
    assert list(TopologicalSorter(LAYERS).static_order())  # CycleError where it does


def test_the_walk_sees_a_forbidden_import(tmp_path: Path) -> None:
    file = tmp_path / "fill.py"
    file.write_text("def f():\n    import requests\n    from ..edit import run\n")
    found = runtime_imports("nodes.canvas.fill", file)
    assert forbidden("nodes.canvas.fill", found) == ["nodes.edit.run", "requests"]


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
        "import onereward_pack.nodes.edit.run, onereward_pack.nodes.backends\n"
        "import onereward_pack.nodes.image_io, onereward_pack.nodes.fal.endpoints\n"
        "print([m for m in ('diffusers', 'transformers', 'requests') if m in sys.modules],"
        "[m for m in sys.modules if 'local_backend' in m])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[] []"
