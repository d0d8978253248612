"""Where a key comes from, and that a key that cannot be used is refused without showing it."""

from __future__ import annotations

import os
import stat
import traceback
from pathlib import Path

import pytest
from onereward_pack.nodes.config.credentials import (
    ApiKey,
    find_key,
    key_from,
    need_key,
    set_variables,
    store_key,
)
from onereward_pack.nodes.errors import CredentialsError

NAMES = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def key_file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    file = folder / "fal_key"
    file.write_bytes(data)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("text", ["id:secret", "id:secret\n", " id:secret\r\n", "\tid:secret "])
def test_fal_key_is_taken_without_the_blanks_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FAL_KEY", text)
    assert find_key(tmp_path) == ApiKey("id:secret", "FAL_KEY") == need_key(tmp_path)


def test_id_and_secret_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY_ID", "id\n")
    assert find_key(tmp_path) is None
    monkeypatch.setenv("FAL_KEY_SECRET", " secret\n")
    found = find_key(tmp_path)
    assert found == ApiKey("id:secret", "FAL_KEY_ID and FAL_KEY_SECRET")


@pytest.mark.parametrize("data", [b"id:secret", b"id:secret\n", b"\n id:secret \r\n\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_file_is_read_if_it_is_its_owners_alone(tmp_path: Path, data: bytes, mode: int) -> None:
    file = key_file(tmp_path, data, mode)
    assert find_key(tmp_path) == ApiKey("id:secret", str(file))


def test_the_environment_wins_over_the_file_and_one_word_over_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file(tmp_path, b"of:file", 0o644)  # not even looked at
    monkeypatch.setenv("FAL_KEY_ID", "of")
    monkeypatch.setenv("FAL_KEY_SECRET", "two")
    assert need_key(tmp_path).value == "of:two"
    monkeypatch.setenv("FAL_KEY", "of:one")
    assert need_key(tmp_path).value == "of:one"
    monkeypatch.setenv("FAL_KEY", " \n")
    assert need_key(tmp_path).value == "of:two"


@pytest.mark.skipif(os.name != "posix", reason="the rights of a file are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o777])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_helps(
    tmp_path: Path, mode: int
) -> None:
    file = key_file(tmp_path, b"id:secret", mode)
    with pytest.raises(CredentialsError) as failure:
        find_key(tmp_path)
    assert f'chmod 600 "{file}"' in str(failure.value) and "secret" not in str(failure.value)


@pytest.mark.parametrize("data", [b"", b"\n", b"  \r\n\t"])
def test_an_empty_file_is_no_key(tmp_path: Path, data: bytes) -> None:
    key_file(tmp_path, data)
    assert find_key(tmp_path) is None


BAD = {
    "two words": "id: secret",
    "a line break": "id:\nsecret",
    "a tab": "id:\tsecret",
    "an accent": "id:s\u00e9cret-secret",
    "a byte order mark": "\ufeffid:secret",
    "a control sign": "id:\x07secret",
    "a name before it": "FAL_KEY = id:secret",
    "a blank that does not break": "id:\u00a0secret",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("place", ["FAL_KEY", "STUDIO_KEY", "the file"])
def test_what_is_no_key_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str
) -> None:
    if place == "the file":
        place = str(key_file(tmp_path, text.encode()))
    else:
        monkeypatch.setenv(place, text)
    with pytest.raises(CredentialsError, match="Copy it again, as one word") as failure:
        key_from(place) if place == "STUDIO_KEY" else find_key(tmp_path)
    shown = str(failure.value) + repr(failure.value)
    assert place in shown and "secret" not in shown
    assert failure.value.__cause__ is None


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"secret\xff\xfe")
    with pytest.raises(CredentialsError, match="UnicodeDecodeError.*one line of text") as failure:
        find_key(tmp_path)
    assert str(file) in str(failure.value) and "secret" not in str(failure.value)
    # The cause holds the bytes; it must not be shown in a traceback.
    assert failure.value.__suppress_context__


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fal_key").mkdir(mode=0o700)
    with pytest.raises(CredentialsError, match="cannot be read"):
        find_key(tmp_path)


def test_no_key_at_all_is_told_where_to_get_one(tmp_path: Path) -> None:
    assert find_key(tmp_path / "not there") is None
    with pytest.raises(CredentialsError, match="https://fal.ai/dashboard/keys.*FAL_KEY") as failure:
        need_key(tmp_path)
    assert str(tmp_path / "fal_key") in str(failure.value)


def test_a_named_servers_key_is_in_its_variable_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAL_KEY", "id:secret")
    monkeypatch.setenv("STUDIO_KEY", " ")
    with pytest.raises(CredentialsError, match="STUDIO_KEY, which is not set"):
        key_from("STUDIO_KEY")
    monkeypatch.setenv("STUDIO_KEY", "other\n")
    assert key_from("STUDIO_KEY") == ApiKey("other", "STUDIO_KEY")


def test_printing_a_key_shows_its_place_only() -> None:
    key = ApiKey("id:secret", "FAL_KEY")
    for shown in (repr(key), str(key), f"{key}", f"{[key]}", f"{ {'key': key} }"):
        assert "FAL_KEY" in shown and "secret" not in shown


def test_a_stored_key_is_found_and_is_for_this_user_alone(tmp_path: Path) -> None:
    folder, mask = tmp_path / "user" / "__onereward", os.umask(0)
    try:
        for key in ("id:older", " id:secret \n"):
            store_key(folder, key)
    finally:
        os.umask(mask)
    assert need_key(folder).value == "id:secret"
    assert [file.name for file in folder.iterdir()] == ["fal_key"]
    if os.name == "posix":
        assert stat.S_IMODE((folder / "fal_key").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="the rights of a file are POSIX's")
def test_storing_a_key_mends_a_file_that_others_could_read(tmp_path: Path) -> None:
    key_file(tmp_path, b"id:older", 0o644)
    store_key(tmp_path, "id:secret")
    assert need_key(tmp_path).value == "id:secret"


@pytest.mark.parametrize("nothing", ["", " ", "\n"])
def test_storing_nothing_removes_the_file(tmp_path: Path, nothing: str) -> None:
    store_key(tmp_path, nothing)  # there is none: nothing to do
    store_key(tmp_path, "id:secret")
    store_key(tmp_path, nothing)
    assert find_key(tmp_path) is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_key_is_not_stored(tmp_path: Path, text: str) -> None:
    store_key(tmp_path, "of:before")
    with pytest.raises(CredentialsError, match="this form is no key.*as one word") as failure:
        store_key(tmp_path, text)
    assert "secret" not in str(failure.value)
    assert need_key(tmp_path).value == "of:before"
    assert [file.name for file in tmp_path.iterdir()] == ["fal_key"]


@pytest.mark.parametrize("names", [("FAL_KEY",), ("FAL_KEY_ID", "FAL_KEY_SECRET")])
@pytest.mark.parametrize("text", ["", "id:secret", "two words"])
def test_no_key_is_stored_or_removed_where_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], text: str
) -> None:
    file = key_file(tmp_path, b"of:before")
    for name in names:
        monkeypatch.setenv(name, "env-value")
    with pytest.raises(CredentialsError, match=f"is in {' and '.join(names)}, which") as failure:
        store_key(tmp_path, text)
    assert "secret" not in str(failure.value) and "env-value" not in str(failure.value)
    assert file.read_bytes() == b"of:before"


def test_half_a_key_in_the_environment_does_not_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", " \n")
    monkeypatch.setenv("FAL_KEY_ID", "half")
    assert set_variables() == ()
    store_key(tmp_path, "id:secret")
    assert need_key(tmp_path).value == "id:secret"


def test_a_folder_that_cannot_be_written_is_named_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CredentialsError, match="fal_key cannot be written") as failure:
        store_key(tmp_path / "file", "id:secret")
    shown = "".join(traceback.format_exception(failure.value))
    assert "secret" not in shown.replace('"id:secret")', "")  # the line above, in the traceback
