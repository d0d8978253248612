"""A folder's models are told by what is in them, outside of ComfyUI, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.model_shelf import write_shelf
from onereward_pack.local_backend.checkpoints import select
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths
from onereward_pack.local_backend.checkpoints.select import find_models, installed_models
from onereward_pack.local_backend.offload.flux_parts import open_files
from onereward_pack.nodes.errors import ModelNotFoundError

PARTS = {"t5": "some/encoder.safetensors", "clip": "b.safetensors", "vae": "c.safetensors"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_shelf(tmp_path_factory.mktemp("shelf"))


def put(shelf: dict[str, Path], folder: Path, **names: str) -> None:
    for what, name in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(shelf[what], path)


def named(files: ModelPaths, folder: Path) -> list[str]:
    paths = (files.transformer, files.text_encoder_2, files.text_encoder, files.vae)
    return [path.relative_to(folder).as_posix() for path in paths]


def test_each_part_is_found_whatever_its_file_is_called(
    shelf: dict[str, Path], tmp_path: Path
) -> None:
    put(shelf, tmp_path, fill="a.safetensors", dev="onereward.safetensors", **PARTS)
    (tmp_path / "notes.safetensors").write_text("not a model")
    (tmp_path / "readme.txt").write_text("hello")
    files = find_models(tmp_path)
    assert named(files, tmp_path) == ["a.safetensors", *PARTS.values()]
    open_files(files)


def test_onereward_goes_before_others_dynamic_after_it_and_of_equals_the_largest(
    shelf: dict[str, Path], tmp_path: Path
) -> None:
    put(shelf, tmp_path, fill="fill.safetensors", t5_fp8="small.safetensors", **PARTS)
    put(shelf, tmp_path, fill_gguf="OneRewardDynamic/model.gguf")
    assert named(find_models(tmp_path), tmp_path)[:2] == [
        "OneRewardDynamic/model.gguf",
        PARTS["t5"],
    ]
    put(shelf, tmp_path, fill_fp8="OneReward/model.safetensors")
    assert named(find_models(tmp_path), tmp_path)[0] == "OneReward/model.safetensors"


def test_a_diffusers_pipeline_is_such_a_folder_too(shelf: dict[str, Path]) -> None:
    files = find_models(shelf["pipeline"])
    assert [name.split("/")[0] for name in named(files, shelf["pipeline"])] == [
        *("transformer", "text_encoder_2", "text_encoder", "vae")
    ]
    open_files(files)


def test_what_lies_beside_the_transformer_in_its_pipeline_goes_before_other_files(
    shelf: dict[str, Path], tmp_path: Path
) -> None:
    put(shelf, tmp_path, t5="t5xxl.safetensors", vae="ae.safetensors")
    pipeline = tmp_path / "OneReward"
    for file in shelf["pipeline"].rglob("*"):
        target = pipeline / file.relative_to(shelf["pipeline"])
        if file.is_file() and target.parent.name != "vae":
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    found = named(find_models(tmp_path), tmp_path)
    assert [name.rpartition("/")[0] for name in found] == [
        *("OneReward/transformer", "OneReward/text_encoder_2", "OneReward/text_encoder", "")
    ]


def test_a_sharded_model_is_its_index(tmp_path: Path) -> None:
    names = ["a.safetensors.index.json", "b.sft", "c/a.gguf"]
    for name in (*names, "a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = select._candidates(tmp_path, [tmp_path])
    assert [(one.name, one.path) for one in found] == [(name, tmp_path / name) for name in names]


def test_what_is_missing_and_what_does_not_fit_is_said(
    shelf: dict[str, Path], tmp_path: Path
) -> None:
    put(shelf, tmp_path, dev="flux.safetensors", t5="t5.safetensors", vae="vae.safetensors")
    with pytest.raises(ModelNotFoundError) as caught:
        find_models(tmp_path)
    words = str(caught.value)
    assert "has no FLUX.1-Fill transformer, no CLIP text encoder." in words
    assert "flux.safetensors is FLUX.1-dev" in words
    with pytest.raises(ModelNotFoundError, match="is no folder"):
        find_models(tmp_path / "nowhere")


def test_comfyui_s_own_onereward_is_found_where_the_pack_is_installed(
    shelf: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_models() is None  # the tests run in no ComfyUI
    models = tmp_path / "models"
    pack = tmp_path / "custom_nodes" / "pack"
    monkeypatch.setattr(select, "_PACK", pack)
    assert installed_models() is None
    put(shelf, models, fill="diffusion_models/fill.safetensors", clip="clip/clip_l.safetensors")
    put(shelf, models, t5="text_encoders/t5.safetensors", vae="vae/ae.safetensors")
    assert installed_models() is None  # nothing says that it is OneReward's
    put(shelf, models, fill_fp8="diffusion_models/onereward.safetensors")
    found = installed_models()
    assert found is not None
    assert found.transformer == models / "diffusion_models" / "onereward.safetensors"
    found.vae.unlink()
    assert installed_models() is None
