"""The texts of the pack: help pages, their pictures and the errors they quote, and the locales."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DOCS, LOCALES = ROOT / "web" / "docs", ROOT / "locales"
SOURCES = "".join(path.read_text("utf-8") for path in sorted(ROOT.glob("nodes/comfyui/*_nodes.py")))
NODES = sorted(re.findall(r'node_id="(\w+)"', SOURCES))
PARTS = {
    "en": ("Inputs worth knowing", "Cost and privacy", "VRAM", "When it fails"),
    # "inputs worth knowing", "cost and privacy", "VRAM", "when it fails"
    "zh": (
        "\u503c\u5f97\u4e86\u89e3\u7684\u8f93\u5165",
        "\u8d39\u7528\u4e0e\u9690\u79c1",
        "\u663e\u5b58",
        "\u51fa\u9519\u65f6",
    ),
}
TASKS = ("OneRewardFill", "OneRewardRemove", "OneRewardExtend", "OneRewardText")
FILES = ("nodeDefs.json", "main.json", "commands.json")
LARGEST = 45_000  # bytes of a picture
# What vue-i18n would take for its own signs.
SIGNS = re.compile(r"[{}@|]")
GAP = "\0"

each_node = pytest.mark.parametrize("node", NODES)
each_language = pytest.mark.parametrize("language", PARTS)


def page(node: str, language: str) -> str:
    path = DOCS / (f"{node}.md" if language == "en" else f"{node}/{language}.md")
    return path.read_text("utf-8")


def quoted(text: str) -> list[str]:
    """The messages in the first column of the last table."""
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if "|" in line]
    last = max(number for number, row in enumerate(rows) if set(row) <= set("|- "))
    return rows[last + 1 :]


def texts() -> Iterator[str]:
    """Every text in the pack's code, with GAP for what is filled in."""
    for room in ("nodes", "local_backend"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else GAP
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


TEXTS = tuple(texts())


def is_message(message: str) -> bool:
    """Whether the code has a message with this text; "..." stands for anything."""
    pieces = [re.escape(piece) for piece in re.split(r"\s*\.\.\.\s*", message) if piece]
    return any(re.search(".*".join(pieces), text, re.DOTALL) for text in TEXTS)


def shape(tree: Any) -> Any:
    """Keys only."""
    return {key: shape(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def locale(language: str, name: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((LOCALES / language / name).read_text("utf-8"))
    return tree


def leaves(tree: Any) -> Iterator[str]:
    for value in tree.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


@each_language
@each_node
def test_a_help_page_has_all_its_parts(node: str, language: str) -> None:
    text = page(node, language)
    assert re.match(r"# OneReward .+\n\n\S.*\n\S.*\n\n!\[.+\]\(" + node + r"\.jpg\)\n", text)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [part for part in PARTS[language] if part not in headings] == []
    if node in TASKS:
        first = "**Frame**" if node == "OneRewardExtend" else "**Plan**"
        assert first in text and "**Result**" in text


@each_language
@each_node
def test_a_help_page_quotes_three_errors_of_the_pack(node: str, language: str) -> None:
    messages = quoted(page(node, language))
    assert len(messages) >= 3
    assert [message for message in messages if not is_message(message)] == []


@each_node
def test_both_languages_quote_the_same_errors(node: str) -> None:
    assert quoted(page(node, "zh")) == quoted(page(node, "en"))


def test_a_quote_that_is_no_error_of_the_pack_is_noticed() -> None:
    assert is_message("Mask is ..., but the picture is ...")
    assert not is_message("Mask is ..., but the picture was ...")


@each_node
def test_the_picture_of_a_help_page_is_there_and_small(node: str) -> None:
    path = DOCS / f"{node}.jpg"
    assert path.stat().st_size <= LARGEST
    with Image.open(path) as picture:
        assert 500 <= picture.width <= 800
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height) or []) > 100


def test_no_help_page_or_picture_is_left_over() -> None:
    assert sorted(path.parent.name for path in DOCS.glob("*/*.md")) == NODES
    assert sorted(path.stem for path in DOCS.glob("OneReward*.jpg")) == NODES


@pytest.mark.parametrize("name", FILES)
def test_the_chinese_locale_has_what_the_english_one_has(name: str) -> None:
    english, chinese = locale("en", name), locale("zh", name)
    assert shape(chinese) == shape(english)
    assert all(leaves(chinese)), "an empty text"


@each_language
def test_a_locale_has_every_node_and_nothing_that_vue_i18n_reads_as_its_own_sign(
    language: str,
) -> None:
    assert sorted(locale(language, "nodeDefs.json")) == NODES
    for name in FILES:
        assert [text for text in leaves(locale(language, name)) if SIGNS.search(text)] == []


@each_node
def test_the_chinese_texts_of_a_node_are_chinese(node: str) -> None:
    entry = locale("zh", "nodeDefs.json")[node]
    inputs = entry.get("inputs", {}).values()
    tooltips = [
        part["tooltip"] for part in (*inputs, *entry["outputs"].values()) if "tooltip" in part
    ]
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for text in (entry["display_name"], entry["description"], *tooltips):
        assert chinese.search(text), text
    assert page(node, "zh").startswith(f"# {entry['display_name']}\n")


@pytest.mark.parametrize("path", sorted(ROOT.glob("subgraphs/*.json")), ids=lambda path: path.stem)
def test_a_blueprint_is_one_subgraph_node_of_its_own_name(path: Path) -> None:
    # ASCII: ComfyUI 0.3.75 reads it with the system's own encoding. Windows allows no colon.
    graph = json.loads(path.read_text("ascii"))
    assert not re.search(r'[:<>"/\\|?*]', path.name)
    [node], [subgraph] = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    assert node["title"] == subgraph["name"] == path.stem
    assert {inner["type"] for inner in subgraph["nodes"]} <= set(NODES)
    assert [slot["name"] for slot in node["inputs"]] == [s["name"] for s in subgraph["inputs"]]


def test_there_are_two_blueprints() -> None:
    assert len(list(ROOT.glob("subgraphs/*.json"))) == 2
