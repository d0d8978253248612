"""Which files a LocalSpec names: real tiny models under the names that users give them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.model_folders import comfy_folders
from fakes.model_shelf import Models, write_shelf
from onereward_pack.local_backend.checkpoints import select
from onereward_pack.nodes.backends import auto_spec, find_files, resolve_backend
from onereward_pack.nodes.contracts import LocalSpec
from onereward_pack.nodes.errors import CheckpointError, InputError, ModelNotFoundError
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def models(
    tmp_path: Path, shelf: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Models]:
    with comfy_folders(tmp_path, monkeypatch) as (_, menus):
        yield Models(tmp_path, shelf, menus)


def test_auto_finds_every_part_by_what_is_in_it_whatever_its_name(models: Models) -> None:
    models.put(fill="flux1-dev.safetensors", dev="OneReward-not.safetensors", t5="clip_l.sft")
    models.put(clip="t5xxl.safetensors", vae="sdxl_vae.safetensors")
    assert models.files() == {
        "transformer": "diffusion_models/flux1-dev.safetensors",
        "text_encoder_2": "text_encoders/clip_l.sft",
        "text_encoder": "text_encoders/t5xxl.safetensors",
        "vae": "vae/sdxl_vae.safetensors",
    }


def test_the_choice_is_told_and_what_no_file_can_tell_is_told_too(models: Models) -> None:
    models.put_parts()
    models.put(fill="a.safetensors", lora="removal.safetensors")
    spec = LocalSpec(
        lora="removal.safetensors", lora_strength=0.5, precision="fp8", compile=True,
        attention="fastest",
    )  # fmt: skip
    others = "t5xxl_fp16.safetensors, clip_l.safetensors, ae.safetensors"
    said = f"a.safetensors (no file says whether it is OneReward's), {others}"
    assert find_files(LocalSpec(), models.menus).summary == said
    found = find_files(spec, models.menus)
    assert found.summary == f"{said}, removal.safetensors x 0.5"
    assert (found.files.lora_strength, found.files.precision) == (0.5, "fp8")
    assert (found.files.compile, found.files.attention) == (True, "fastest")
    models.put(fill_fp8="x/OneReward_fp8.safetensors")
    assert find_files(LocalSpec(), models.menus).summary.startswith(
        "x/OneReward_fp8.safetensors, t5"
    )


def test_auto_prefers_the_usual_name_then_the_least_rounded_file(models: Models) -> None:
    models.put_parts()
    models.put(fill="a.safetensors", fill_fp8="my/ONEREWARD_fp8.safetensors")
    assert models.files()["transformer"] == "diffusion_models/my/ONEREWARD_fp8.safetensors"
    models.put(fill_gguf="OneReward-Q8_0.gguf")
    models.put(t5_fp8="t5xxl_fp8.safetensors", t5_gguf="t5-v1_1-xxl-encoder-Q8_0.gguf")
    models.put(clip="a-finetune.safetensors", vae="a-vae.safetensors")
    assert models.files() == {
        "transformer": "diffusion_models/OneReward-Q8_0.gguf",
        "text_encoder_2": "text_encoders/t5xxl_fp16.safetensors",
        "text_encoder": "text_encoders/clip_l.safetensors",
        "vae": "vae/ae.safetensors",
    }


def test_auto_prefers_onereward_to_its_dynamic_variant(models: Models) -> None:
    models.put_parts()
    models.put(fill="OneRewardDynamic_bf16.safetensors", fill_fp8="OneReward_fp8.safetensors")
    assert models.files()["transformer"] == "diffusion_models/OneReward_fp8.safetensors"


def test_a_named_file_is_taken_though_another_would_be_automatic(models: Models) -> None:
    models.put_parts()
    models.put(fill="OneReward.safetensors", fill_gguf="fill.gguf", t5_gguf="t5.gguf")
    found = models.files(transformer="fill.gguf", t5xxl="t5.gguf")
    assert found["transformer"] == "diffusion_models/fill.gguf"
    assert found["text_encoder_2"] == "text_encoders/t5.gguf"
    assert (
        "no file says" not in find_files(LocalSpec(transformer="fill.gguf"), models.menus).summary
    )


def test_a_pipeline_folder_brings_its_own_parts(models: Models) -> None:
    models.put_parts()
    models.put_pipeline("FLUX.1-Fill-dev")
    assert models.files(transformer="FLUX.1-Fill-dev/", vae="ae.safetensors") == {
        "transformer": "diffusers/FLUX.1-Fill-dev/transformer",
        "text_encoder_2": "diffusers/FLUX.1-Fill-dev/text_encoder_2",
        "text_encoder": "diffusers/FLUX.1-Fill-dev/text_encoder",
        "vae": "vae/ae.safetensors",
    }
    assert models.files() == models.files(transformer="FLUX.1-Fill-dev/")


def test_a_part_that_a_pipeline_folder_lacks_comes_from_the_other_folders(models: Models) -> None:
    models.put_parts()
    models.put_pipeline("Fill", "text_encoder_2")
    found = models.files(transformer="Fill/")
    assert found["text_encoder_2"] == "text_encoders/t5xxl_fp16.safetensors"
    assert found["vae"] == "diffusers/Fill/vae"


def test_a_transformers_folder_alone_takes_the_other_parts_from_their_folders(
    models: Models,
) -> None:
    models.put_parts()
    whole = models.put_pipeline("clone")
    (whole / "model_index.json").unlink()
    (whole / "transformer").rename(whole / "OneReward-transformer")
    found = models.files()
    assert found["transformer"] == "diffusers/clone/OneReward-transformer"
    assert found["vae"] == "vae/ae.safetensors"


def test_a_folder_of_another_flux_is_refused_by_its_config(models: Models) -> None:
    models.put_parts()
    whole = models.put_pipeline("dev")
    config = json.loads((whole / "transformer/config.json").read_text())
    (whole / "transformer/config.json").unlink()
    (whole / "transformer/config.json").write_text(json.dumps(config | {"in_channels": 64}))
    with pytest.raises(CheckpointError, match="image input is 64 wide; OneReward needs FLUX.1"):
        models.files(transformer="dev/")
    with pytest.raises(ModelNotFoundError, match="dev/: a FLUX transformer whose image input"):
        models.files()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("fill", "no OneReward or FLUX.1-Fill transformer in ComfyUI's models/diffusion_models .*"
         "flux.1-fill-dev-OneReward-transformer_fp8.safetensors from https://huggingface.co/Comfy"),
        ("t5", "no T5-XXL text encoder in ComfyUI's models/text_encoders folder.*t5xxl_fp16.safe"),
        ("clip", "no CLIP-L text encoder in ComfyUI's models/text_encoders folder.*clip_l.safeten"),
        ("vae", "no FLUX VAE in ComfyUI's models/vae folder.*ae.safetensors from https://"),
    ],
)  # fmt: skip
def test_a_missing_part_is_named_with_a_file_its_folder_and_a_link(
    models: Models, missing: str, words: str
) -> None:
    names = {"fill": "OneReward.sft", "t5": "t5.sft", "clip": "clip.sft", "vae": "ae.sft"}
    models.put(**{what: name for what, name in names.items() if what != missing})
    with pytest.raises(ModelNotFoundError, match=words):
        models.files()


def test_what_is_there_instead_is_said(models: Models) -> None:
    models.put_parts()
    models.put(dev="flux1-dev.safetensors")
    (models.base / "models/diffusion_models/half.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelNotFoundError) as failure:
        models.files()
    said = str(failure.value)
    assert "flux1-dev.safetensors: FLUX.1-dev, whose image input is 64 wide" in said
    assert "half.safetensors: is damaged or cut short" in said


def test_of_many_files_that_do_not_fit_the_likeliest_are_explained(models: Models) -> None:
    models.put_parts()
    for letter in "abcd":
        models.put(dev=f"{letter}.safetensors")
    folder = models.base / "models/diffusion_models"
    for name in ("onereward.safetensors", "z.safetensors"):
        (folder / name).write_bytes(b"\xff" * 64)
    with pytest.raises(ModelNotFoundError) as failure:
        models.files()
    _, _, said = str(failure.value).partition("does not fit: ")
    names = [words.partition(": ")[0] for words in said.split("; ")]
    assert names == ["onereward.safetensors", "z.safetensors", "a.safetensors", "and 3 more."]


@pytest.mark.parametrize(("slot", "folder", "what", "words"), [
    ("transformer", "diffusion_models", "dev", "x.sft is FLUX.1-dev, whose image input is 64 wide"),
    ("t5xxl", "text_encoders", "clip", "x.sft is a CLIP text encoder, 64 wide; FLUX.1 needs the"),
    ("clip_l", "text_encoders", "t5", "x.sft is a T5 encoder, 64 wide; FLUX.1 needs CLIP-L"),
    ("vae", "vae", "fill", "x.sft is FLUX.1-Fill; FLUX.1 needs its own VAE"),
    ("lora", "loras", "vae", "x.sft is a FLUX VAE; .* LoRA for FLUX.1"),
])  # fmt: skip
def test_a_named_file_of_another_family_is_refused_in_one_sentence(
    models: Models, slot: str, folder: str, what: str, words: str
) -> None:
    models.put_parts()
    models.put(fill="OneReward.safetensors")
    models.put_at(what, f"{folder}/x.sft")
    with pytest.raises(CheckpointError, match=words):
        models.files(**{slot: "x.sft"})


def test_a_file_in_a_format_that_cannot_be_read_is_passed_by_and_refused_by_name(
    models: Models, shelf: dict[str, Path]
) -> None:
    models.put_parts()
    models.put(fill_fp8="fill_fp8.safetensors")
    theirs = models.base / "models/diffusion_models/OneReward-nf4.safetensors"
    state = load_file(shelf["fill"])
    state["double_blocks.0.img_attn.qkv.weight.absmax"] = state["img_in.bias"].clone()
    save_file(state, theirs)
    assert models.files()["transformer"] == "diffusion_models/fill_fp8.safetensors"
    with pytest.raises(CheckpointError, match="OneReward-nf4.safetensors is quantised by bitsand"):
        models.files(transformer="OneReward-nf4.safetensors")


def test_a_header_is_read_once_while_the_file_stays_as_it_is(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = select.open_tensors
    monkeypatch.setattr(select, "open_tensors", lambda p: opened.append(p.name) or real(p))
    models.put_parts()
    models.put(fill="OneReward.safetensors")
    models.files()
    assert sorted(opened) == [
        "OneReward.safetensors", "ae.safetensors", "clip_l.safetensors", "t5xxl_fp16.safetensors",
    ]  # fmt: skip
    models.files()
    assert len(opened) == 4
    path = models.base / "models/vae/ae.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (1, 1))
    models.files()
    assert opened[4:] == ["ae.safetensors"]


def can_run(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    devices = SimpleNamespace(can_run_flux=lambda: answer)
    monkeypatch.setitem(sys.modules, "onereward_pack.local_backend.offload.devices", devices)


def test_the_auto_rule_takes_a_onereward_file_with_all_parts_on_a_gpu_that_can(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    can_run(monkeypatch, True)
    assert auto_spec(models.menus) == (None, "")
    models.put(fill="flux1-fill-dev.safetensors")
    models.put_parts()
    assert auto_spec(models.menus) == (None, "")  # a FLUX.1-Fill may be anybody's
    models.put(fill_gguf="OneReward-Q8.gguf", fill_fp8="OneReward-fp8.safetensors")
    spec, why_not = auto_spec(models.menus)
    assert (spec, why_not) == (LocalSpec(transformer="OneReward-Q8.gguf"), "")
    can_run(monkeypatch, False)
    spec, why_not = auto_spec(models.menus)
    assert spec is None
    assert why_not == "OneReward-Q8.gguf is there, but no GPU that can hold it."


def test_the_auto_rule_says_what_a_onereward_file_lacks(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    can_run(monkeypatch, True)
    models.put(fill="OneReward.safetensors", t5="t5xxl.safetensors", vae="ae.safetensors")
    spec, why_not = auto_spec(models.menus)
    assert spec is None
    assert why_not.startswith(
        "OneReward.safetensors is there, but it is not used. There is no CLIP"
    )


def test_the_auto_rule_says_that_a_onereward_file_is_broken_and_takes_no_other_fill(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    can_run(monkeypatch, True)
    models.put_parts()
    models.put(fill="flux1-fill-dev.safetensors")
    broken = models.base / "models/diffusion_models/OneReward.safetensors"
    broken.write_bytes((models.base / "models/diffusion_models/flux1-fill-dev.safetensors")
                       .read_bytes()[:-100])  # fmt: skip
    spec, why_not = auto_spec(models.menus)
    assert spec is None
    assert why_not.startswith(
        "OneReward.safetensors is there, but it is not used. OneReward.safetensors is damaged"
    )


def test_a_spec_becomes_a_backend_of_these_files_and_a_wrong_file_none(
    models: Models, tmp_path: Path
) -> None:
    models.put_parts()
    models.put(fill="OneReward.safetensors", dev="dev.safetensors")
    backend = resolve_backend(LocalSpec(), tmp_path, models.menus)
    assert backend.capabilities.max_pixels == 1024 * 1024 and not backend.capabilities.remote
    with pytest.raises(CheckpointError, match="dev.safetensors is FLUX.1-dev"):
        resolve_backend(LocalSpec(transformer="dev.safetensors"), tmp_path, models.menus)
    with pytest.raises(InputError, match='precision is "int3". Use one of: auto, file, fp8'):
        resolve_backend(LocalSpec(precision="int3"), tmp_path, models.menus)
    with pytest.raises(InputError, match='attention is "sage". Use one of: default, fastest'):
        resolve_backend(LocalSpec(attention="sage"), tmp_path, models.menus)
    with pytest.raises(ModelNotFoundError, match='no "gone.safetensors"'):
        resolve_backend(LocalSpec(vae="gone.safetensors"), tmp_path, models.menus)
    with pytest.raises(InputError, match="names files of ComfyUI's menus"):
        resolve_backend(LocalSpec(), tmp_path)
