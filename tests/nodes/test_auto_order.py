"""The order of the auto rule that a user may set: what can run of it first, runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from onereward_pack.nodes.backends import PREVIEW, auto_backend, describe_backend
from onereward_pack.nodes.config.preferences import change
from onereward_pack.nodes.contracts import LocalSpec
from onereward_pack.nodes.errors import CredentialsError

LOCAL = LocalSpec(transformer="OneReward.gguf")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("order", "local", "key", "kind"), [
    ("fal local preview", LOCAL, "id:secret", "fal"),
    ("fal local preview", LOCAL, "", "local"),
    ("fal local preview", None, "", "preview"),
    ("fal preview local", LOCAL, "", "preview"),
    ("preview local fal", LOCAL, "id:secret", "preview"),
    ("local preview fal", None, "id:secret", "preview"),
    ("local preview fal", LOCAL, "id:secret", "local"),
])  # fmt: skip
def test_what_the_user_puts_first_runs_if_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, local: LocalSpec | None, key: str,
    kind: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("FAL_KEY", key)
    change(tmp_path, {"auto_order": order.split()})
    spec, note = auto_backend(tmp_path, local)
    assert spec.kind == kind
    assert note.endswith("The order is the one of Settings > OneReward.")
    assert describe_backend(tmp_path, local)["backend"] == kind


def test_with_fal_first_a_key_that_cannot_be_used_is_an_error_and_behind_the_preview_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", "two words")
    change(tmp_path, {"auto_order": ["fal", "local", "preview"]})
    with pytest.raises(CredentialsError):
        auto_backend(tmp_path, LOCAL)
    said = describe_backend(tmp_path, LOCAL)
    assert said["backend"] == "fal" and said["key"] == "not usable"
    change(tmp_path, {"auto_order": ["local", "preview", "fal"]})
    assert auto_backend(tmp_path)[0] == PREVIEW


def test_why_the_model_is_not_used_is_said_only_if_its_turn_came(tmp_path: Path) -> None:
    why = "x.gguf is there, but no GPU."
    change(tmp_path, {"auto_order": ["fal", "local", "preview"]})
    assert why in auto_backend(tmp_path, None, why)[1]
    change(tmp_path, {"auto_order": ["preview", "local", "fal"]})
    assert why not in auto_backend(tmp_path, None, why)[1]
