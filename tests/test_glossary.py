"""Names in the sources use the field's words: the old house words of the glossary do not return.

The glossary gives text, message or summary for "words", payload or value for "said", notified or
added for "told", and cached or retained for "kept".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
OLD_WORDS = {"words", "said", "told", "kept"}
# Fields of a dataclass whose names are keys of JSON, which a released page reads.
JSON_FIELDS = {("nodes/fal/job_history.py", "kept"), ("nodes/fal/job_history.py", "kept_bytes")}
FILES = [
    file
    for room in ("nodes", "local_backend")
    for file in sorted((ROOT / room).rglob("*.py"))
    if "training" not in file.parts  # there, words are words: its pictures have some
]

_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def identifiers(source: str) -> Iterator[str]:
    """Every name that the source gives or uses: variables, attributes, arguments, definitions."""
    for node in ast.walk(ast.parse(source)):
        for field in ("id", "attr", "arg", "name", "asname", "rest"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name
        yield from getattr(node, "names", ()) if isinstance(node, ast.Nonlocal | ast.Global) else ()


def old_names(source: str) -> set[str]:
    """The identifiers with a part that is one of OLD_WORDS, in snake_case or CamelCase."""
    return {
        name
        for name in identifiers(source)
        if OLD_WORDS & {part.lower() for part in _PART.findall(name)}
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_identifier_has_an_old_word(file: Path) -> None:
    path = file.relative_to(ROOT).as_posix()
    allowed = {name for owner, name in JSON_FIELDS if owner == path}
    assert old_names(file.read_text("utf-8")) - allowed == set()


@pytest.mark.parametrize(
    "source",
    [
        "words = 1", "x.kept", "f(said=1)", "def _told(): pass", "class KeptTensor: pass",
        "import a as told", "lambda kept: 0", "_OOM_WORDS = ()", "def f(**words): pass",
    ],
)  # fmt: skip
def test_each_kind_of_name_is_found(source: str) -> None:
    assert len(old_names(source)) == 1


def test_strings_and_longer_words_pass() -> None:
    assert old_names('{"words": 1, "kept": keywords, "a": f.passwords}  # told, said') == set()
