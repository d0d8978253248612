"""The scripts of web/js use the field's words in names and comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

JS = Path(__file__).resolve().parents[2] / "web" / "js"
MODULES = sorted(path for path in JS.rglob("*") if path.suffix in (".js", ".mjs"))
# What these replace: text, message or summary; payload; notify. Names of fields that the
# server sends are its own, such as reply.words.
OLD_WORDS = re.compile(
    r"(?<!\.)\b(?:words|said|told|tell)\b|\w(?:Words|Said|Told)\b|\btell(?=[A-Z])"
)
STRING = re.compile(r'"[^"\n]*"')


def old_words(source: str) -> list[str]:
    return OLD_WORDS.findall(STRING.sub("", source))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_script_uses_the_words_of_the_field(module: Path) -> None:
    assert old_words(module.read_text("utf-8")) == []


def test_an_old_word_is_seen_and_a_field_of_the_server_is_not() -> None:
    assert old_words("const said = 1") == ["said"]
    assert old_words("errorWords(node)") == ["rWords"]
    assert old_words("tellHandles() // in words") == ["tell", "words"]
    assert old_words('el("p", {}, reply.words, "told the page")') == []
