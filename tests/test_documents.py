"""What the documents name is there: files, headings, and the errors that they explain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "local_backend").rglob("README.md")),
]
README_LINES = 180

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_ROOMS = "nodes|local_backend|web|docs|tests|findings|locales|subgraphs|example_workflows|\\.ci"
_PATH = re.compile(rf"(?<![\w./-])(?:{_ROOMS})/[\w./-]*\w")


def prose(page: Path) -> str:
    """The page without its code blocks, where a # is a comment."""
    return _FENCE.sub("", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings; a second one of the same text ends on -1."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        copies = (f"{anchor}-{number}" for number in range(1, 100))
        found.add(anchor if anchor not in found else next(c for c in copies if c not in found))
    return found


def broken_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not (target.exists() and target.is_relative_to(ROOT)):
            yield f"{link}: there is no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: there is no such heading"


def messages() -> str:
    """Every text of the sources, a line each, with ... for what is filled in."""
    files = [*(ROOT / "nodes").rglob("*.py"), *(ROOT / "local_backend").rglob("*.py")]
    trees = [ast.parse(file.read_text("utf-8")) for file in [*files, ROOT / "install.py"]]
    return "\n".join(
        _text(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.Constant))
    )


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return str(node.value) if isinstance(node, ast.Constant) else "..."


def undefined(answer: str) -> Iterator[str]:
    """The quoted names that none of the quoted files defines as a function, class or constant."""
    quoted = re.findall(r"`([^`]+)`", answer)
    files = [ROOT / path for path in quoted if path.endswith(".py")]
    source = "\n".join(file.read_text("utf-8") for file in files)
    for name in (part for path in quoted if "/" not in path for part in path.split(".")):
        if not re.search(rf"^ *(?:def {name}\(|class {name}\b|{name}(?::.+)? = )", source, re.M):
            yield name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_of_the_pack_that_a_page_names_is_there(page: Path) -> None:
    paths = set(_PATH.findall(page.read_text("utf-8")))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_name_of_the_table_of_questions_is_defined_in_a_file_beside_it() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    answers = re.findall(r"^\| [^|]+\? \| (.+) \|$", text, re.MULTILINE)
    assert len(answers) > 20
    assert [name for answer in answers for name in undefined(answer)] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, found = set(), {ROOT / "README.md"}
    while found:
        page = found.pop()
        reached.add(page)
        paths = (link.partition("#")[0] for link in _LINK.findall(prose(page)))
        found |= {
            (page.parent / path).resolve() for path in paths if path.endswith(".md")
        } - reached
    assert [page.name for page in PAGES if page not in reached] == []


def test_every_error_that_is_explained_is_one_of_the_packs() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    explained = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    known = messages()
    assert len(explained) > 60
    assert [message for message in explained if message not in known] == []
