"""How large functions and files are, how much is typed and explained: a checkout beside another.

    python tests/benchmarks/sizes.py [OTHER_CHECKOUT ...]

A function's size is the lines of its body, its docstring left out. Typed: every argument (self and
cls left out) and the return value. Explained: public functions and classes with a docstring.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(checkout: Path) -> list[Path]:
    rooms = (checkout / "nodes", checkout / "local_backend")
    return [file for room in rooms for file in room.rglob("*.py") if file.name != "__init__.py"]


def body_lines(function: Function) -> int:
    first = 1 if ast.get_docstring(function) and len(function.body) > 1 else 0
    end = function.end_lineno or function.lineno
    return end - function.body[first].lineno + 1


def is_typed(function: Function) -> bool:
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    named = [one for one in arguments if one.arg not in ("self", "cls")]
    return function.returns is not None and all(one.annotation for one in named)


def is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or "Exception" in ast.unparse(handler.type).split(".")


def figures(checkout: Path) -> Iterator[tuple[str, str]]:
    files = sources(checkout)
    texts = [file.read_text("utf-8") for file in files]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    functions = [node for node in nodes if isinstance(node, Function)]
    public = [
        node
        for node in nodes
        if isinstance(node, (Function, ast.ClassDef)) and not node.name.startswith("_")
    ]
    lines = sorted(len(text.splitlines()) for text in texts)
    bodies = [body_lines(function) for function in functions]
    typed = sum(map(is_typed, functions)) / len(functions)
    explained = sum(ast.get_docstring(node) is not None for node in public) / len(public)
    handlers = [node for node in nodes if isinstance(node, ast.ExceptHandler)]
    p90 = statistics.quantiles(bodies, n=10)[8]
    yield "functions: median, p90", f"{statistics.median(bodies):.0f}, {p90:.0f} lines"
    yield "files: number, median, longest", f"{len(files)}, {lines[len(lines) // 2]}, {lines[-1]}"
    yield (
        "files under 40, over 350 lines",
        (f"{sum(n < 40 for n in lines)}, {sum(n > 350 for n in lines)}"),
    )
    yield "typed functions", f"{typed:.0%}"
    yield "explained public functions and classes", f"{explained:.0%}"
    yield "broad excepts", str(sum(map(is_broad, handlers)))
    yield "lines", str(sum(lines))


def main() -> None:
    for checkout in (ROOT, *map(Path, sys.argv[1:])):
        print(f"{checkout.name}")
        for what, figure in figures(checkout):
            print(f"  {what}: {figure}")


if __name__ == "__main__":
    main()
