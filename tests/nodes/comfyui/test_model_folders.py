"""What ComfyUI's model folders offer, and that nothing but an offered name leads to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fakes.model_folders import FolderPaths, comfy_folders
from onereward_pack.local_backend.checkpoints.select import TRANSFORMER, VAE, part_folder
from onereward_pack.nodes.errors import ModelNotFoundError


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderPaths]:
    with comfy_folders(tmp_path, monkeypatch) as (fake, module):
        fake.module = module
        yield fake


@pytest.fixture
def folders(world: FolderPaths) -> ModuleType:
    module: ModuleType = world.module
    return module


def put(base: Path, *names: str, text: str = "") -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text)


def put_pipeline(folder: Path, transformer: str = "FluxTransformer2DModel") -> None:
    put(folder, "model_index.json", text=json.dumps({"transformer": ["diffusers", transformer]}))
    put(folder, "transformer/config.json", text=json.dumps({"_class_name": transformer}))


def test_empty_folders_offer_nothing(folders: ModuleType) -> None:
    assert [folders.choices(kind) for kind in folders.KINDS] == [[], [], [], []]


def test_tensor_files_of_both_folders_are_offered_in_the_order_of_their_names(
    folders: ModuleType, tmp_path: Path
) -> None:
    put(tmp_path / "models" / "diffusion_models", "b.sft", "C.gguf", "notes.txt", "old.ckpt")
    put(tmp_path / "extra" / "diffusion_models", "a.safetensors", "flux/d.SAFETENSORS", "b.sft")
    assert folders.choices("transformer") == [
        "a.safetensors", "b.sft", "C.gguf", "flux/d.SAFETENSORS",
    ]  # fmt: skip
    # the first folder's own goes before another of the same name
    assert folders.locate("transformer", "b.sft") == tmp_path / "models/diffusion_models/b.sft"
    found = folders.locate("transformer", "flux/d.SAFETENSORS")
    assert found == tmp_path / "extra/diffusion_models/flux/d.SAFETENSORS"


@pytest.mark.parametrize(
    ("kind", "folder", "offered"),
    [
        ("text_encoder", "text_encoders", ["x.gguf", "x.safetensors"]),
        ("vae", "vae", ["x.safetensors"]),
        ("lora", "loras", ["x.safetensors"]),
    ],
)
def test_a_kind_offers_what_can_be_read_of_it(
    folders: ModuleType, tmp_path: Path, kind: str, folder: str, offered: list[str]
) -> None:
    put(tmp_path / "models" / folder, "x.gguf", "x.safetensors", "x.pt", "x.bin")
    assert folders.choices(kind) == offered


def test_a_sharded_model_is_one_choice(folders: ModuleType, tmp_path: Path) -> None:
    shards = [f"f/model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    put(tmp_path / "models/diffusion_models", *shards, "f/model.safetensors.index.json")
    put(tmp_path / "models/diffusion_models", "f/config.json")
    assert folders.choices("transformer") == ["f/model.safetensors.index.json"]


def test_a_flux_pipeline_folder_is_one_choice_and_its_own_transformer_none(
    folders: ModuleType, tmp_path: Path
) -> None:
    put_pipeline(tmp_path / "models/diffusers/FLUX.1-Fill-dev")
    put_pipeline(tmp_path / "models/diffusers/sdxl", transformer="UNet2DConditionModel")
    put(tmp_path / "models/diffusers/broken", "model_index.json", text="{")
    put(tmp_path / "models/diffusers/list", "config.json", text="[]")
    assert folders.choices("transformer") == ["FLUX.1-Fill-dev/"]
    found = folders.locate("transformer", "FLUX.1-Fill-dev/")
    assert found == tmp_path / "models/diffusers/FLUX.1-Fill-dev"
    assert part_folder(TRANSFORMER, found) == found / "transformer"
    assert part_folder(VAE, found) is None
    assert part_folder(VAE, found / "transformer") is None


def test_the_transformers_in_a_clone_of_the_authors_repository_are_choices(
    folders: ModuleType, tmp_path: Path
) -> None:
    config = json.dumps({"_class_name": "FluxTransformer2DModel"})
    for name in ("fill-OneReward-transformer", "fill-OneRewardDynamic-transformer"):
        put(tmp_path / "extra/diffusers/OneReward" / name, "config.json", text=config)
    assert folders.choices("transformer") == [
        "OneReward/fill-OneReward-transformer/", "OneReward/fill-OneRewardDynamic-transformer/",
    ]  # fmt: skip
    assert folders.locate("transformer", "OneReward/fill-OneReward-transformer/").is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors", "sub/../../secret.safetensors", "{base}/secret.safetensors",
        "./a.safetensors", "a.safetensors/", "", "/", ".", "..", "../", "sub", "sub/",
        "A.SAFETENSORS", "a.safetensors\0", "..\\secret.safetensors",
    ],
)  # fmt: skip
def test_only_an_offered_name_leads_to_a_file(
    folders: ModuleType, tmp_path: Path, name: str
) -> None:
    put(tmp_path / "models", "secret.safetensors")
    put(tmp_path, "secret.safetensors")
    put(tmp_path / "models/vae", "a.safetensors", "sub/b.safetensors")
    assert folders.locate("vae", "a.safetensors").is_file()
    for kind in ("vae", "transformer"):
        with pytest.raises(ModelNotFoundError):
            folders.locate(kind, name.replace("{base}", str(tmp_path)))


def test_a_missing_file_is_named_with_its_folder_and_where_to_get_it(folders: ModuleType) -> None:
    with pytest.raises(ModelNotFoundError) as failure:
        folders.locate("text_encoder", "t5xxl_fp16.safetensors")
    assert str(failure.value) == (
        'There is no "t5xxl_fp16.safetensors" among the text_encoder files of ComfyUI\'s '
        "models/text_encoders folder. Choose one that is there, or put it there and press R "
        "(https://huggingface.co/comfyanonymous/flux_text_encoders)."
    )
    with pytest.raises(ModelNotFoundError, match="models/diffusers folder"):
        folders.locate("transformer", "FLUX.1-Fill-dev/")


def test_a_link_out_of_the_folder_is_followed_and_a_broken_one_is_missing(
    folders: ModuleType, tmp_path: Path
) -> None:
    put(tmp_path / "disk", "big.safetensors")
    vae = tmp_path / "models/vae"
    (vae / "big.safetensors").symlink_to(tmp_path / "disk/big.safetensors")
    (vae / "gone.safetensors").symlink_to(tmp_path / "disk/gone.safetensors")
    assert folders.locate("vae", "big.safetensors") == vae / "big.safetensors"
    with pytest.raises(ModelNotFoundError):
        folders.locate("vae", "gone.safetensors")


def test_a_folder_is_walked_again_only_after_a_change(
    folders: ModuleType, world: FolderPaths, tmp_path: Path
) -> None:
    put(tmp_path / "models/vae", "sub/a.safetensors")
    put(tmp_path / "extra/vae", "b.safetensors")
    assert folders.choices("vae") == ["b.safetensors", "sub/a.safetensors"]
    walks = world.walks
    assert folders.choices("vae") == ["b.safetensors", "sub/a.safetensors"]
    assert world.walks == walks
    put(tmp_path / "models/vae", "sub/c.safetensors")
    os.utime(tmp_path / "models/vae/sub", (1, 1))  # whatever the file system's clock resolves
    assert folders.choices("vae") == ["b.safetensors", "sub/a.safetensors", "sub/c.safetensors"]
    assert world.walks == walks + 1
    (tmp_path / "extra/vae/b.safetensors").unlink()
    (tmp_path / "extra/vae").rmdir()
    assert folders.choices("vae") == ["sub/a.safetensors", "sub/c.safetensors"]
