"""The server's keys: what is kept of them, who is let in, and how soon a revoked one is not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from onereward_pack.local_backend.server import keys as keys_module
from onereward_pack.local_backend.server.database import open_database
from onereward_pack.local_backend.server.keys import Keys
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.nodes.errors import InputError
from sqlalchemy import Engine, event


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(Settings(data=tmp_path / "data"))
    yield engine
    engine.dispose()


@pytest.fixture
def keys(engine: Engine) -> Keys:
    return Keys(engine)


def count_questions(engine: Engine) -> list[str]:
    asked: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    return asked


def test_a_new_key_is_let_in_by_its_id(keys: Keys) -> None:
    key = keys.make("laptop")
    key_id, secret = key.split(":")
    assert re.fullmatch("[0-9a-f]{16}", key_id) and len(secret) >= 43
    assert keys.check(f"Key {key}") == key_id
    assert keys.make("laptop") != key


def test_neither_the_database_nor_the_listing_holds_the_secret(
    keys: Keys, engine: Engine, tmp_path: Path
) -> None:
    key_id, secret = keys.make("laptop").split(":")
    row = keys.rows()[0]
    assert (row.id, row.name, row.revoked) == (key_id, "laptop", None)
    assert abs(row.created - time.time()) < 60
    engine.dispose()
    held = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir() if file.is_file())
    assert key_id.encode() in held and secret.encode() not in held
    assert not any("digest" in name for name in dir(row))


@pytest.mark.parametrize("form", ["key {}", "KEY {}", "Key  {}", "  Key {}\r\n", "Key {}\n"])
def test_the_scheme_is_read_as_http_says_and_white_space_is_stripped(keys: Keys, form: str) -> None:
    key = keys.make("laptop")
    assert keys.check(form.format(key)) == key.split(":")[0]


@pytest.mark.parametrize("form", [
    "{}", "Bearer {}", "Basic {}", "Key", "Key ", "", "Key {}x", "Key {} x", "Key:{}", "Keys {}",
    "Key {}:", "Key :", "Key x:y", "Key " + "0" * 16 + ":x", "Key \u00b2{}", "Key " + "a" * 100_000,
])  # fmt: skip
def test_everything_else_is_refused(keys: Keys, form: str) -> None:
    assert keys.check(form.format(keys.make("laptop"))) is None


def test_no_header_and_a_wrong_or_foreign_secret_are_refused(keys: Keys) -> None:
    mine, other = keys.make("mine"), keys.make("other")
    assert keys.check(None) is None
    assert keys.check(f"Key {mine[:-1]}") is None
    assert keys.check(f"Key {mine.split(':')[0]}:{other.split(':')[1]}") is None
    keys.check(f"Key {mine}")  # remembered by now
    assert keys.check(f"Key {mine[:-1]}") is None


def test_a_thousand_calls_ask_the_database_once(keys: Keys, engine: Engine) -> None:
    key = keys.make("laptop")
    asked = count_questions(engine)
    assert not keys.remembers(f"Key {key}")
    for _ in range(1000):
        assert keys.check(f"Key {key}")
    assert len(asked) == 1 and keys.remembers(f"Key {key}")
    for n in range(1000):  # a wrong secret of a known key costs no question either
        assert keys.check(f"Key {key}{n}") is None
    assert len(asked) == 1


def test_a_revoked_key_is_refused_at_once_here_and_soon_elsewhere(
    keys: Keys, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys_module.REMEMBERED <= 5
    monkeypatch.setattr(keys_module, "REMEMBERED", 0.2)
    key = keys.make("laptop")
    elsewhere = Keys(engine)
    assert keys.check(f"Key {key}") and elsewhere.check(f"Key {key}")
    assert keys.revoke(key.split(":")[0])
    assert keys.check(f"Key {key}") is None
    until = time.monotonic() + 0.4
    while elsewhere.check(f"Key {key}") and time.monotonic() < until:
        time.sleep(0.01)
    assert elsewhere.check(f"Key {key}") is None
    assert keys.rows()[0].revoked is not None


def test_only_a_living_key_can_be_revoked(keys: Keys) -> None:
    key_id = keys.make("laptop").split(":")[0]
    assert not keys.revoke("0" * 16)
    assert keys.revoke(key_id) and not keys.revoke(key_id)


def test_what_is_remembered_is_bounded_and_bad_keys_are_not_remembered(
    keys: Keys, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_MOST_REMEMBERED", 3)
    for n in range(50):
        assert keys.check(f"Key {n:016x}:secret") is None
    assert len(keys._digests) == 0
    made = [keys.make(str(n)) for n in range(5)]
    assert all(keys.check(f"Key {key}") for key in made)
    assert len(keys._digests) == 3
    assert all(keys.check(f"Key {key}") for key in made)


def test_any_is_true_once_a_key_was_made_even_if_it_is_revoked(keys: Keys) -> None:
    assert not keys.any()
    keys.revoke(keys.make("laptop").split(":")[0])
    assert keys.any()


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\x1b[2J", "a\x00", "\udc80"])
def test_a_name_that_cannot_be_shown_in_a_list_is_refused(keys: Keys, name: str) -> None:
    with pytest.raises(InputError, match="64 printable"):
        keys.make(name)
    assert not keys.any()


def test_names_of_any_script_and_of_full_length_are_taken(keys: Keys) -> None:
    for name in ("x" * 64, "Zo\u00eb's laptop", "\u6c34"):
        keys.make(name)
    assert {row.name for row in keys.rows()} == {"x" * 64, "Zo\u00eb's laptop", "\u6c34"}


# Tokens


def test_a_token_stands_for_its_key_at_every_head(keys: Keys, engine: Engine) -> None:
    key_id = keys.make("laptop").split(":")[0]
    token = keys.token(key_id)
    assert token is not None and token.expires - time.time() > 3000
    assert Keys(engine).check_token(f"Bearer {token.text}") == key_id
    assert keys.check(f"Key {token.text}") is None
    assert keys.check_token(f"Key {token.text}") is None


def test_a_token_ends_with_its_hour_and_with_its_key(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = keys.make("laptop").split(":")[0]
    monkeypatch.setattr(keys_module, "TOKEN_SECONDS", -1)
    old = keys.token(key_id)
    monkeypatch.undo()
    token = keys.token(key_id)
    assert old is not None and keys.check_token(f"Bearer {old.text}") is None
    assert token is not None and keys.check_token(f"bearer {token.text}") == key_id
    keys.revoke(key_id)
    assert keys.check_token(f"Bearer {token.text}") is None
    assert keys.token(key_id) is None


def test_a_token_cannot_be_made_longer_or_another_keys(keys: Keys) -> None:
    key_id, other = (keys.make(name).split(":")[0] for name in ("mine", "other"))
    token = keys.token(key_id)
    assert token is not None
    _, expires, seal = token.text.split(".")
    for forged in (
        f"{key_id}.{int(expires) + 1}.{seal}", f"{other}.{expires}.{seal}",
        f"{key_id}.{expires}.{'0' * 64}", f"{key_id}.{expires}.", f"{key_id}.{expires}",
        f"{'0' * 16}.{expires}.{seal}", f"{key_id}.{'9' * 4000}.{seal}",
    ):  # fmt: skip
        assert keys.check_token(f"Bearer {forged}") is None, forged


def test_a_token_for_no_key_is_not_sealed_with_something_guessable(keys: Keys) -> None:
    expires = int(time.time()) + 60
    seal = keys_module._seal("", "0" * 16, expires)
    assert keys.check_token(f"Bearer {'0' * 16}.{expires}.{seal}") is None
