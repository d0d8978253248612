"""What the user sets for a machine is kept whole, checked, and named where it breaks a rule."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.config import atomic_file
from onereward_pack.nodes.config.preferences import (
    FILE_NAME,
    ORDER,
    Preferences,
    change,
    load,
    save,
)
from onereward_pack.nodes.errors import InputError

OTHER = Preferences(
    auto_order=("preview", "fal", "local"),
    run_ceiling=1.5,
    session_ceiling=10_000.0,
    canvas=CanvasOptions(grow=-3, blend=0, context=2.0, target="1024x768", clean=False),
)


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / FILE_NAME
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_with_no_file_the_defaults_hold_and_none_is_made(tmp_path: Path) -> None:
    assert load(tmp_path) == Preferences(ORDER, 0, 0, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preferences", [Preferences(), OTHER])
def test_what_is_saved_is_loaded(tmp_path: Path, preferences: Preferences) -> None:
    save(tmp_path, preferences)
    assert load(tmp_path) == preferences


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    save(tmp_path, OTHER)
    [file] = [file for file in tmp_path.rglob("*") if file.is_file()]
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(tmp_path) == OTHER


def test_the_file_is_for_this_user_alone_and_the_only_one(tmp_path: Path) -> None:
    folder, mask = tmp_path / "user" / "__onereward", os.umask(0)
    try:
        for _ in range(2):
            save(folder, OTHER)
    finally:
        os.umask(mask)
    assert [file.name for file in folder.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, OTHER)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file.os, "fsync", full)
    with pytest.raises(InputError, match=f"{FILE_NAME} cannot be written .No space left"):
        save(tmp_path, Preferences())
    assert load(tmp_path) == OTHER
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


# Byte for byte what the pack wrote at commit 30f877f, before its canvas had alpha.
OF_30F877F = """{
  "auto_order": [
    "fal",
    "local",
    "preview"
  ],
  "run_ceiling": 2.5,
  "session_ceiling": 12.0,
  "canvas": {
    "grow": -4,
    "blend": 32,
    "context": 2.0,
    "target": "1.5 MP",
    "regions": "one crop",
    "seam": 0.5,
    "clean": false,
    "invert": true
  }
}
"""
DEFAULTS_OF_30F877F = """{
  "auto_order": [
    "local",
    "fal",
    "preview"
  ],
  "run_ceiling": 0.0,
  "session_ceiling": 0.0,
  "canvas": null
}
"""


def test_files_of_an_earlier_version_still_load_and_are_written_the_same(tmp_path: Path) -> None:
    write(tmp_path, OF_30F877F)
    canvas = CanvasOptions(
        grow=-4, blend=32, context=2.0, target="1.5 MP", regions="one crop", seam=0.5,
        clean=False, invert=True,
    )  # fmt: skip
    loaded = load(tmp_path)
    assert loaded == Preferences(("fal", "local", "preview"), 2.5, 12.0, canvas)
    save(tmp_path, loaded)
    written = (tmp_path / FILE_NAME).read_text()
    assert written == OF_30F877F.replace('"invert": true', '"invert": true,\n    "alpha": "keep"')
    write(tmp_path, DEFAULTS_OF_30F877F)
    assert load(tmp_path) == Preferences()
    save(tmp_path, load(tmp_path))
    assert (tmp_path / FILE_NAME).read_text() == DEFAULTS_OF_30F877F


def test_a_change_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    save(tmp_path, OTHER)
    changed = change(tmp_path, {"run_ceiling": 3})
    assert changed == load(tmp_path) and changed.run_ceiling == 3.0
    assert (changed.canvas, changed.auto_order) == (OTHER.canvas, OTHER.auto_order)
    assert change(tmp_path, {"canvas": None}).canvas is None
    assert change(tmp_path, {"canvas": {"grow": 4}}).canvas == CanvasOptions(grow=4)
    assert change(tmp_path, {"canvas": {"context": 2}}).canvas == CanvasOptions(context=2.0)


def test_changes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for name in ("run_ceiling", "session_ceiling") * 8:
            pool.submit(change, tmp_path, {name: 7.0})
    stored = load(tmp_path)
    assert (stored.run_ceiling, stored.session_ceiling) == (7.0, 7.0)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a backend twice": ({"auto_order": ["fal", "fal", "preview"]}, "auto_order is fal, fal"),
    "a backend left out": ({"auto_order": ["fal"]}, "Name each of local, fal, preview once"),
    "no backend": ({"auto_order": []}, "auto_order is empty"),
    "an unknown one": ({"auto_order": ["fal", "local", "gpu"]}, "auto_order is fal, local, gpu"),
    "an order that is text": ({"auto_order": "local"}, "auto_order is no list of words"),
    "an order of numbers": ({"auto_order": [1, 2, 3]}, "auto_order is no list of words"),
    "a ceiling below 0": ({"run_ceiling": -1}, "run_ceiling is -1. Use 0 to 10000 US dollars"),
    "too high a ceiling": ({"session_ceiling": 10_001}, "session_ceiling is 10001"),
    "a ceiling that is text": ({"run_ceiling": "5"}, 'run_ceiling is "5". Use a number'),
    "a ceiling that is true": ({"run_ceiling": True}, "run_ceiling is true. Use a number"),
    "a ceiling that is null": ({"run_ceiling": None}, "run_ceiling is null. Use a number"),
    "a canvas that is text": ({"canvas": "mine"}, "canvas is no JSON object"),
    "a field of the canvas": ({"canvas": {"size": 1}}, 'canvas has a field "size". Use grow'),
    "half a pixel": ({"canvas": {"grow": 1.5}}, "canvas.grow is 1.5. Use a whole number"),
    "true pixels": ({"canvas": {"grow": True}}, "canvas.grow is true. Use a whole number"),
    "a word for a switch": ({"canvas": {"clean": "no"}}, "canvas.clean is .no.. Use true or"),
    "a number for a word": ({"canvas": {"regions": 1}}, "canvas.regions is 1. Use text"),
    "too much grow": ({"canvas": {"grow": 513}}, "Grow 513 is out of range"),
    "no target": ({"canvas": {"target": "huge"}}, "huge"),
    "an unknown field": ({"fal_key": "x"}, 'a field "fal_key". Use auto_order'),
}


@pytest.mark.parametrize(("said", "words"), BAD.values(), ids=BAD.keys())
def test_what_breaks_a_rule_is_refused_in_words_and_changes_nothing(
    tmp_path: Path, said: dict[str, Any], words: str
) -> None:
    save(tmp_path, OTHER)
    with pytest.raises(InputError, match=words):
        change(tmp_path, said)
    assert load(tmp_path) == OTHER
    file = write(tmp_path, json.dumps(said))
    with pytest.raises(InputError, match=words) as failure:
        load(tmp_path)
    assert str(file) in str(failure.value) and "delete it" in str(failure.value)


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", "NaN", b"\xff\xfe", "[" * 100_000, '{"run_ceiling": NaN}',
    '{"run_ceiling": Infinity}', '{"run_ceiling": 1e999}',
])  # fmt: skip
def test_a_broken_file_is_named_and_not_written_over(tmp_path: Path, text: str | bytes) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InputError, match="cannot be used") as failure:
        load(tmp_path)
    assert str(file) in str(failure.value)
    with pytest.raises(InputError, match="cannot be used"):
        change(tmp_path, {"run_ceiling": 1})
    assert file.read_bytes() == (text.encode() if isinstance(text, str) else text)


def test_a_file_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(InputError, match=FILE_NAME):
        load(tmp_path)
    with pytest.raises(InputError, match=f"{FILE_NAME} cannot be written"):
        save(tmp_path, Preferences())
