"""Which backend a spec names, what runs without one, and that choosing reads no key."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.backend import RecordingProgress
from fakes.fal_server import FalServer, Recorded
from onereward_pack.nodes.backends import (
    FAL_NOTE,
    PREVIEW,
    PREVIEW_NOTE,
    ask_server,
    auto_backend,
    describe_backend,
    resolve_backend,
    server_choices,
)
from onereward_pack.nodes.contracts import BackendSpec, FalSpec, LocalSpec, ModelSpec
from onereward_pack.nodes.errors import CredentialsError, InputError
from onereward_pack.nodes.fal.endpoints import QUEUE_URL_VARIABLE

KEYS = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET", "STUDIO_KEY", QUEUE_URL_VARIABLE)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fal() -> Iterator[FalServer]:
    with FalServer() as server:
        yield server


def name_studio(folder: Path, url: str, **more: str) -> FalSpec:
    (folder / "servers.json").write_text(json.dumps({"studio": {"url": url, **more}}))
    return FalSpec(server="studio")


def sent_keys(fal: FalServer) -> list[str | None]:
    return [request.headers.get("authorization") for request in fal.requests]


def test_without_a_key_the_preview_model_runs_and_says_so(tmp_path: Path) -> None:
    assert auto_backend(tmp_path) == (PREVIEW, PREVIEW_NOTE)
    assert "not OneReward" in PREVIEW_NOTE


def test_with_a_key_fal_runs_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", "id:secret")
    assert auto_backend(tmp_path) == (FalSpec(), FAL_NOTE)
    monkeypatch.delenv("FAL_KEY")
    (tmp_path / "fal_key").write_text("id:secret")
    (tmp_path / "fal_key").chmod(0o600)
    assert auto_backend(tmp_path)[0] == FalSpec()


def test_a_model_on_this_machine_goes_before_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalSpec(transformer="OneReward.gguf")
    for key in ("", "id:secret", "two words"):
        monkeypatch.setenv("FAL_KEY", key)
        spec, note = auto_backend(tmp_path, local)
        assert spec == local
        assert note == "No backend connected: using this machine's GPU and OneReward.gguf."


def test_why_the_model_on_this_machine_is_not_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "OneReward.gguf is there, but no GPU."
    assert auto_backend(tmp_path, None, why) == (PREVIEW, f"{PREVIEW_NOTE} {why}")
    monkeypatch.setenv("FAL_KEY", "id:secret")
    assert auto_backend(tmp_path, None, why) == (FalSpec(), f"{FAL_NOTE} {why}")


def test_a_key_that_cannot_be_used_is_no_reason_to_run_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", "two words")
    with pytest.raises(CredentialsError):
        auto_backend(tmp_path)


def test_a_named_servers_key_does_not_choose_fal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_studio(tmp_path, "https://gpu", key_env="STUDIO_KEY")
    monkeypatch.setenv("STUDIO_KEY", "secret")
    assert auto_backend(tmp_path)[0] == PREVIEW


@pytest.mark.parametrize("kind", ["local", "fal", "Preview", "", "preview "])
def test_a_spec_of_another_version_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=f'no backend "{kind}".*update the pack'):
        resolve_backend(BackendSpec(kind), tmp_path)


def test_the_preview_spec_is_the_preview_model(tmp_path: Path) -> None:
    backend = resolve_backend(BackendSpec("preview"), tmp_path)
    assert backend.name == "preview model" and not backend.capabilities.remote


def test_a_fal_spec_is_plain_values_that_travel() -> None:
    spec = FalSpec(server="studio", private=True, run_cap=1.5)
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)
    assert len({spec, dataclasses.replace(spec), FalSpec()}) == 2
    assert FalSpec() != BackendSpec("fal") and FalSpec().kind == "fal"
    for value in dataclasses.astuple(spec):
        assert isinstance(value, (str, bool, int, float))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.server = "fal"  # type: ignore[misc]


def test_choosing_fal_reads_no_key_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", "two words")
    folder = tmp_path / "not made yet"
    backend = resolve_backend(FalSpec(parallel_jobs=3), folder)
    assert backend.name == "fal" and backend.capabilities.remote
    assert backend.capabilities.parallel_jobs == 3 and backend.capabilities.images_per_run == 1
    assert not folder.exists()
    with pytest.raises(CredentialsError, match="FAL_KEY is no key"):
        backend.admit([], RecordingProgress())


def test_models_of_comfyuis_own_go_to_the_backend_that_samples_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the backend itself imports ComfyUI, which is not here
    stand_in = SimpleNamespace(ComfyModelBackend=lambda spec: ("samples", spec))
    monkeypatch.setitem(sys.modules, "onereward_pack.local_backend.backends.comfy_model", stand_in)
    spec = ModelSpec(model=object(), clip=object(), vae=object())
    assert resolve_backend(spec, tmp_path) == ("samples", spec)


@pytest.mark.parametrize(("change", "words"), [
    ({"output_format": "gif"}, 'output_format is "gif". Use png or jpeg'),
    ({"on_flagged": "ignore"}, 'on_flagged is "ignore". Use raise or return input'),
    ({"priority": "high"}, 'priority is "high". Use normal or low'),
    ({"server": "gpu"}, 'no server "gpu"'),
])  # fmt: skip
def test_a_value_that_is_no_choice_is_refused(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        resolve_backend(FalSpec(**change), tmp_path)


def test_fals_key_goes_to_fals_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fal: FalServer
) -> None:
    monkeypatch.setenv(QUEUE_URL_VARIABLE, fal.url)
    backend = resolve_backend(FalSpec(), tmp_path)
    with pytest.raises(CredentialsError, match="There is no fal key"):
        backend.admit([], RecordingProgress())
    assert fal.requests == []
    monkeypatch.setenv("FAL_KEY", "id:secret")
    backend.admit([], RecordingProgress())
    assert sent_keys(fal) == ["Key id:secret"]


def test_fals_key_never_goes_to_a_named_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fal: FalServer
) -> None:
    monkeypatch.setenv("FAL_KEY", "id:secret")
    backend = resolve_backend(name_studio(tmp_path, fal.url), tmp_path)
    with pytest.raises(CredentialsError, match="studio answered 401"):
        backend.admit([], RecordingProgress())
    assert sent_keys(fal) == [None]


def test_a_named_server_gets_the_key_of_its_own_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fal: FalServer
) -> None:
    monkeypatch.setenv("FAL_KEY", "not:yours")
    backend = resolve_backend(name_studio(tmp_path, fal.url, key_env="STUDIO_KEY"), tmp_path)
    with pytest.raises(CredentialsError, match="STUDIO_KEY"):
        backend.admit([], RecordingProgress())
    assert fal.requests == []
    monkeypatch.setenv("STUDIO_KEY", "id:secret")
    backend.admit([], RecordingProgress())
    assert sent_keys(fal) == ["Key id:secret"]


def test_the_choices_are_fal_and_the_named_servers(tmp_path: Path) -> None:
    assert server_choices(tmp_path) == ["fal"]
    name_studio(tmp_path, "https://gpu")
    assert server_choices(tmp_path) == ["fal", "studio"]


def test_the_description_names_the_model_on_this_machine_whatever_the_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalSpec(transformer="OneReward.gguf")
    said = describe_backend(tmp_path, local)
    assert said["backend"] == "local" and "OneReward.gguf" in said["note"] and said["key"] == "none"
    monkeypatch.setenv("FAL_KEY", "two words")
    said = describe_backend(tmp_path, local)
    assert said["backend"] == "local" and said["key"] == "not usable"


def test_the_description_says_what_runs_sends_nothing_and_never_shows_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fal: FalServer
) -> None:
    said = describe_backend(tmp_path, None, "x.gguf is there, but no GPU.")
    assert said["backend"] == "preview" and said["key"] == "none"
    assert said["note"] == f"{PREVIEW_NOTE} x.gguf is there, but no GPU."
    monkeypatch.setenv(QUEUE_URL_VARIABLE, fal.url)
    for key, source, words in (
        ("id:secret", "from FAL_KEY", "Not tested"), ("two secret words", "not usable", "is no key")
    ):  # fmt: skip
        monkeypatch.setenv("FAL_KEY", key)
        said = describe_backend(tmp_path)
        assert said["backend"] == "fal" and said["key"] == source and words in said["test"]
        assert "secret" not in str(said)
    assert fal.requests == []


def test_a_key_file_is_described_without_its_place(tmp_path: Path) -> None:
    (tmp_path / "fal_key").write_text("id:secret")
    (tmp_path / "fal_key").chmod(0o600)
    said = describe_backend(tmp_path)
    assert said["backend"] == "fal" and said["key"] == "from the key file"
    assert str(tmp_path) not in str(said) and "secret" not in str(said)


def test_an_order_that_cannot_be_read_is_described_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "preferences.json").write_text("{")
    said = describe_backend(tmp_path)
    assert said["backend"] == "none" and "preferences.json cannot be used" in said["note"]
    with pytest.raises(InputError, match="preferences.json cannot be used"):
        auto_backend(tmp_path)
    with pytest.raises(InputError, match="preferences.json cannot be used"):
        resolve_backend(FalSpec(), tmp_path)


def test_asking_a_server_says_whether_it_knows_the_key_and_its_price_free_of_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fal: FalServer
) -> None:
    monkeypatch.setenv(QUEUE_URL_VARIABLE, fal.url)
    with pytest.raises(CredentialsError, match="There is no fal key"):
        ask_server("fal", tmp_path)
    monkeypatch.setenv("FAL_KEY", "id:secret")
    assert ask_server("fal", tmp_path) == "fal knows the key. Price: $0.035 per megapixel."
    monkeypatch.setenv("FAL_KEY", "id:wrong-secret")
    with pytest.raises(CredentialsError, match="answered 401") as failure:
        ask_server("fal", tmp_path)
    assert "wrong-secret" not in str(failure.value)
    with pytest.raises(InputError, match='no server "studio"'):
        ask_server("studio", tmp_path)
    assert fal.jobs == {} and not fal.calls("submit")


def test_a_server_that_wants_no_key_answers_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fal: FalServer
) -> None:
    def let_in(request: Recorded) -> None:  # as a server that wants no key does
        assert "authorization" not in request.headers
        request.headers["authorization"] = f"Key {fal.key}"

    monkeypatch.setattr(fal, "record", let_in)
    name_studio(tmp_path, fal.url)
    assert ask_server("studio", tmp_path).startswith("studio answers. Price:")
