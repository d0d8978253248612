from __future__ import annotations

import json
import logging
import math
import shutil
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.backend import Interrupted, RecordingProgress
from fakes.tiny import make_request
from onereward_pack.local_backend.backends import preview as backend_module
from onereward_pack.local_backend.backends.preview import PreviewBackend
from onereward_pack.local_backend.offload import devices
from onereward_pack.local_backend.pipeline import pipeline_cache
from onereward_pack.local_backend.pipeline.preview_components import (
    PREVIEW_FOLDER,
    load_preview_model,
)
from onereward_pack.nodes.contracts import Backend
from onereward_pack.nodes.errors import CheckpointError, InputError, ModelNotFoundError

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    pipeline_cache.PIPELINE_CACHE.unload()
    yield
    pipeline_cache.PIPELINE_CACHE.unload()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the preview model to break."""
    copy = tmp_path / "model"
    shutil.copytree(PREVIEW_FOLDER, copy, ignore=shutil.ignore_patterns("training", "*.py"))
    return copy


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders loaded from, in order."""
    folders: list[Path] = []

    def load(folder: Path) -> Any:
        folders.append(folder)
        return load_preview_model(folder)

    monkeypatch.setattr(backend_module, "load_preview_model", load)
    return folders


BAD_RECIPES = [
    ({"acceleration": "warp"}, 'acceleration is "warp"'),
    ({"prompt": None}, "prompt is None"),
    ({"negative_prompt": 3}, "negative_prompt is 3"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ({"num_inference_steps": 2.0}, "num_inference_steps is 2.0"),
    ({"num_images": 0}, "num_images is 0"),
    ({"num_images": True}, "num_images is True"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**64}, f"seed is {2**64}"),
    ({"seed": 2**64 - 1, "num_images": 2}, f"seed is {2**64 - 1}"),
    ({"true_cfg": math.nan}, "true_cfg is nan"),
    ({"true_cfg": -0.5}, "true_cfg is -0.5"),
    ({"guidance_scale": math.inf}, "guidance_scale is inf"),
    ({"guidance_scale": 1000.0}, "guidance_scale is 1000.0"),
]


@pytest.mark.parametrize(("changes", "words"), BAD_RECIPES)
def test_a_recipe_it_cannot_honour_is_refused_before_loading(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    backend = PreviewBackend(tmp_path / "nowhere")
    request = make_request(**changes)
    with pytest.raises(InputError, match=words):
        backend.check(request)
    with pytest.raises(InputError, match=words):
        backend.run(request, RecordingProgress())


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ({"image": torch.zeros(2, 64, 64, 3)}, r"image has shape \[2, 64, 64, 3\]"),
        ({"image": torch.zeros(1, 64, 64, 4)}, r"image has shape \[1, 64, 64, 4\]"),
        ({"image": torch.zeros(64, 64, 3)}, r"image has shape \[64, 64, 3\]"),
        ({"image": torch.zeros(1, 64, 72, 3)}, "image is 72x64"),
        ({"image": torch.zeros(1, 0, 64, 3)}, "image is 64x0"),
        ({"image": torch.zeros(1, 64, 64, 3, dtype=torch.uint8)}, "image is torch.uint8"),
        ({"image": torch.full((1, 64, 64, 3), 1.5)}, "image has values from 1.5 to 1.5"),
        ({"image": torch.full((1, 64, 64, 3), math.nan)}, "image has values from nan"),
        ({"mask": torch.zeros(1, 64, 80)}, r"mask has shape \[1, 64, 80\]"),
        ({"mask": torch.zeros(64, 64)}, r"mask has shape \[64, 64\]"),
        ({"mask": torch.ones(1, 64, 64, dtype=torch.bool)}, "mask is torch.bool"),
        ({"mask": torch.full((1, 64, 64), 0.5)}, "mask has values between 0 and 1"),
    ],
)
def test_pixels_outside_the_contract_are_refused_before_loading(
    tmp_path: Path, pixels: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        PreviewBackend(tmp_path / "nowhere").run(make_request(**pixels), RecordingProgress())


def test_a_good_recipe_passes_the_check_without_loading(loads: list[Path]) -> None:
    backend: Backend = PreviewBackend()
    backend.check(make_request(seed=2**64 - 1, num_inference_steps=1000))
    assert loads == []


def test_the_model_is_loaded_once_and_again_after_unloading(loads: list[Path]) -> None:
    request = make_request(num_inference_steps=1)
    PreviewBackend().run(request, RecordingProgress())
    PreviewBackend().run(request, RecordingProgress())
    assert loads == [PREVIEW_FOLDER]
    pipeline_cache.PIPELINE_CACHE.unload()
    PreviewBackend().run(request, RecordingProgress())
    assert loads == [PREVIEW_FOLDER] * 2


def test_another_folder_takes_the_place_of_the_first(loads: list[Path], folder: Path) -> None:
    request = make_request(num_inference_steps=1)
    for place in (PREVIEW_FOLDER, folder, folder):
        PreviewBackend(place).run(request, RecordingProgress())
    assert loads == [PREVIEW_FOLDER, folder]


def test_runs_from_many_threads_load_once_and_give_the_same_picture(loads: list[Path]) -> None:
    start = threading.Barrier(4)

    def run(_: int) -> torch.Tensor:
        start.wait()
        return PreviewBackend().run(make_request(), RecordingProgress()).images

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(run, range(4)))
    assert len(loads) == 1
    assert all(torch.equal(picture, pictures[0]) for picture in pictures)


def test_an_interrupted_run_frees_the_pipeline_for_the_next() -> None:
    with pytest.raises(Interrupted):
        PreviewBackend().run(make_request(), RecordingProgress(cancel_at=1))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(PreviewBackend().run, make_request(), RecordingProgress()).result(60)
    assert result.images.shape == (1, 64, 64, 3)


def build_nothing() -> Any:
    raise AssertionError("the pipeline was there already")


@pytest.mark.parametrize("first", [True, False])
def test_a_model_loaded_in_one_inference_mode_serves_the_other(first: bool) -> None:
    pictures = []
    for inference in (first, not first):
        with torch.inference_mode(inference):
            request = make_request(num_inference_steps=2)
            pictures.append(PreviewBackend().run(request, RecordingProgress()).images)
    assert torch.equal(*pictures)
    with pipeline_cache.PIPELINE_CACHE.pipeline(PREVIEW_FOLDER, build_nothing) as pipeline:
        assert not any(weight.is_inference() for weight in pipeline.transformer.parameters())
    pictures[0].mul_(0.5)
    pictures[1].mul_(0.5)


def test_the_weights_are_float32_frozen_and_in_eval_mode() -> None:
    components = load_preview_model()
    for part in (
        components.transformer,
        components.vae,
        components.text_encoder,
        components.text_encoder_2,
    ):
        assert not part.training
        assert {weight.dtype for weight in part.parameters()} == {torch.float32}
        assert not any(weight.requires_grad for weight in part.parameters())


def test_loading_leaves_the_global_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    load_preview_model()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_loading_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(*call: object) -> None:
        tried.append(call)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_preview_model()
    assert tried == []


def test_loading_says_nothing_on_the_console(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        PreviewBackend().run(make_request(num_inference_steps=1), RecordingProgress())
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    "name",
    [TRANSFORMER, "vae/config.json", "tokenizer_2/tokenizer.json", "vae/latent_rgb.json"],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelNotFoundError, match=f"{name} is missing from .*model"):
        PreviewBackend(folder).run(make_request(), RecordingProgress())


def truncate(path: Path) -> None:
    stored = path.read_bytes()
    path.write_bytes(stored[: len(stored) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_a_list(path: Path) -> None:
    path.write_text("[]", encoding="utf-8")


def widen(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["num_layers"] += 1
    path.write_text(json.dumps(config), encoding="utf-8")


def replace_by_the_vae(path: Path) -> None:
    shutil.copy(path.parent.parent / "vae" / path.name, path)


def forget_a_channel(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["weight"].pop()
    path.write_text(json.dumps(stored), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (TRANSFORMER, truncate),
        (TRANSFORMER, empty),
        (TRANSFORMER, replace_by_the_vae),
        ("text_encoder/model.safetensors", truncate),
        ("text_encoder_2/model.safetensors", empty),
        ("transformer/config.json", truncate),
        ("transformer/config.json", replace_by_a_list),
        ("transformer/config.json", widen),
        ("text_encoder_2/config.json", widen),
        ("tokenizer/tokenizer.json", truncate),
        ("vae/latent_rgb.json", forget_a_channel),
        ("vae/latent_rgb.json", replace_by_a_list),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_broken_file_is_a_checkpoint_error_naming_its_folder(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    with pytest.raises(CheckpointError) as caught:
        PreviewBackend(folder).run(make_request(), RecordingProgress())
    assert str((folder / name).parent) in str(caught.value)


def test_a_failed_load_leaves_no_pipeline_behind(folder: Path) -> None:
    truncate(folder / TRANSFORMER)
    with pytest.raises(CheckpointError):
        PreviewBackend(folder).run(make_request(), RecordingProgress())
    shutil.copy(PREVIEW_FOLDER / TRANSFORMER, folder / TRANSFORMER)
    PreviewBackend(folder).run(make_request(num_inference_steps=1), RecordingProgress())


def test_inside_comfyui_its_device_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    management: Any = types.ModuleType("comfy.model_management")
    management.get_torch_device = lambda: torch.device("meta")
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    assert devices.pick_device() == torch.device("meta")


def test_outside_comfyui_the_accelerator_is_used_if_there_is_one() -> None:
    expected = torch.accelerator.current_accelerator(check_available=True)
    assert devices.pick_device() == (expected or torch.device("cpu"))


def test_importing_the_room_loads_neither_torch_nor_diffusers() -> None:
    script = (
        "import conftest, sys, onereward_pack.local_backend\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_canvas_is_told_what_the_model_was_trained_on() -> None:
    backend = PreviewBackend()
    capabilities = backend.capabilities
    assert backend.name == "preview model"
    assert (capabilities.max_pixels, capabilities.min_side) == (65536, 256)
    assert capabilities.max_aspect == pytest.approx(5 / 3)
