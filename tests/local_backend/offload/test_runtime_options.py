"""What the user chose for speed, from the files' settings to the picture and its notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from fakes.backend import RecordingProgress
from fakes.layouts import write_clip, write_t5, write_transformer, write_vae
from fakes.layouts_gguf import write_gguf_transformer
from fakes.tiny import make_request
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from gguf import GGMLQuantizationType
from onereward_pack.local_backend.acceleration import attention_backend
from onereward_pack.local_backend.backends.flux import LocalBackend
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths
from onereward_pack.local_backend.offload import memory_plan, runtime_options
from onereward_pack.local_backend.offload import placement as placement_module
from onereward_pack.local_backend.offload.placement import FluxPlacement
from onereward_pack.local_backend.pipeline.pipeline_cache import PIPELINE_CACHE
from onereward_pack.nodes.contracts import EditResult
from onereward_pack.nodes.errors import LocalBackendError

COMPILING = "compiling the blocks; once, about half a minute"
REQUEST = make_request(acceleration="none")


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, flux: TinyFlux) -> ModelPaths:
    folder = tmp_path_factory.mktemp("models")
    return ModelPaths(
        transformer=write_transformer(folder, flux.transformer, "bfl", "float32").path,
        text_encoder=write_clip(folder, flux.text_encoder, "float32").path,
        text_encoder_2=write_t5(folder, flux.text_encoder_2, "float32").path,
        vae=write_vae(folder, flux.vae).path,
    )


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    PIPELINE_CACHE.unload()
    yield
    PIPELINE_CACHE.unload()
    torch._dynamo.reset()


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.fixture
def multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch multiplies 8-bit floats on the CPU, slowly: for tests alone."""
    monkeypatch.setattr(runtime_options, "can_multiply", lambda device, dtype: True)


def paint(
    files: ModelPaths, progress: RecordingProgress | None = None, **choices: object
) -> EditResult:
    backend = LocalBackend(replace(files, **choices), "OneReward")
    return backend.run(REQUEST, progress or RecordingProgress())


def placement() -> FluxPlacement:
    pipeline = PIPELINE_CACHE._pipeline
    assert pipeline is not None
    assert isinstance(pipeline.placement, FluxPlacement)
    return pipeline.placement


def test_a_card_that_cannot_multiply_is_told_and_paints_as_with_fp8(files: ModelPaths) -> None:
    fast = paint(files, precision="fp8 fast")
    assert fast.notes[0].startswith("fp8 resident")
    assert fast.notes[1:] == (
        "fp8 fast: this card cannot multiply fp8; weights in fp8, arithmetic in float32",
    )
    assert torch.equal(fast.images, paint(files, precision="fp8").images)


def test_fp8_fast_computes_in_8_bits_and_fp8_after_it_does_not(
    files: ModelPaths, multiplies: None
) -> None:
    plain = paint(files, precision="fp8")
    fast = paint(files, precision="fp8 fast")
    assert fast.notes[1:] == ("fp8 fast: arithmetic in fp8",)
    assert not torch.equal(fast.images, plain.images)
    assert (fast.images - plain.images).abs().mean() < 0.05
    again = paint(files, precision="fp8")
    assert again.notes == plain.notes
    assert torch.equal(again.images, plain.images)


def test_the_same_choice_again_loads_nothing(files: ModelPaths, multiplies: None) -> None:
    paint(files, precision="fp8 fast")
    paint(files, precision="fp8 fast")
    assert placement()._parts.transformer.loads == 1


def test_a_file_that_cannot_be_multiplied_is_told(
    files: ModelPaths, flux: TinyFlux, tmp_path: Path, multiplies: None
) -> None:
    packed = write_gguf_transformer(tmp_path, flux.transformer, GGMLQuantizationType.Q8_0).path
    notes = paint(files, transformer=packed, precision="fp8 fast").notes
    assert notes[1:] == (
        "fp8 fast: the file's weights cannot be multiplied as they are; arithmetic in float32",
    )


@pytest.mark.parametrize("precision", ["fp8", "fp8 fast"])
def test_a_device_that_holds_no_fp8_is_told(
    files: ModelPaths, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(files)
    place = placement()
    monkeypatch.setattr(runtime_options, "holds_fp8", lambda device: False)
    place._options.adapt(replace(files, precision=precision), place._memory.unload)
    assert place.notes[1:] == (
        f"{precision}: cpu devices cannot hold fp8; weights as the file has them",
    )


def test_compiled_blocks_are_told_once_and_paint_the_same(
    files: ModelPaths, traced_only: None
) -> None:
    plain, first, second = paint(files), RecordingProgress(), RecordingProgress()
    compiled = paint(files, first, compile=True)
    assert compiled.notes == (*plain.notes, "compiled blocks")
    torch.testing.assert_close(compiled.images, plain.images, rtol=0, atol=1e-4)
    paint(files, second, compile=True)
    assert (first.texts.count(COMPILING), second.texts.count(COMPILING)) == (1, 0)
    assert placement()._parts.transformer.loads == 1  # nothing is loaded again for it
    after = paint(files)
    assert after.notes == plain.notes
    assert torch.equal(after.images, plain.images)


@pytest.mark.parametrize("streamed", [False, True])
def test_all_choices_at_once_paint_what_they_paint_without_the_compiler(
    files: ModelPaths,
    streamed: bool,
    multiplies: None,
    traced_only: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if streamed:
        monkeypatch.setattr(memory_plan, "fewest_streamed", lambda sizes, room: frozenset({0, 2}))
        monkeypatch.setattr(
            memory_plan, "choose_plan", lambda *words: [*memory_plan.ladder(*words)][-1]
        )
        monkeypatch.setattr(placement_module, "choose_plan", memory_plan.choose_plan)
    mask = torch.zeros(1, 192, 192)
    mask[:, 70:100, 70:100] = 1
    request = make_request(192, 192, mask=mask, acceleration="high", num_inference_steps=12)
    choices = {"precision": "fp8 fast", "attention": "fastest"}
    answers = [
        LocalBackend(replace(files, compile=on, **choices), "OneReward").run(
            request, RecordingProgress()
        )
        for on in (False, True)
    ]
    assert len(answers[1].notes) == 4
    assert ("2 of 4 blocks streamed" in answers[1].notes[0]) is streamed
    torch.testing.assert_close(answers[0].images, answers[1].images, rtol=0, atol=1e-4)


def test_what_cannot_be_compiled_is_refused_before_anything_is_loaded(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(LocalBackendError, match="Turn compile off"):
        paint(files, compile=True)
    assert placement()._parts.transformer.loads == 0


def test_an_error_of_the_compiler_is_told_in_words(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=_broken))
    with pytest.raises(LocalBackendError, match=r"no header Python\.h.*Turn compile off"):
        paint(files, compile=True)


def _broken(*_: object) -> None:
    raise RuntimeError("no header Python.h")


def test_the_fastest_attention_is_measured_for_the_picture_s_size(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, inside = [], []
    times = {"default": 1.0, "flash": 0.5}
    monkeypatch.setattr(runtime_options, "timings", lambda *shape: times)
    monkeypatch.setattr(
        runtime_options, "fastest", lambda *shape: asked.append(shape[1:]) or "flash"
    )
    monkeypatch.setattr(
        runtime_options,
        "use_backend",
        lambda name: inside.append(name) or attention_backend.use_backend(name),
    )
    notes = paint(files, attention="fastest").notes
    assert notes[1:] == ("attention: flash (flash 0.50, default 1.00 ms)",)
    assert asked == [(torch.float32, 2, 32, 16 + 512)]
    paint(files)
    assert inside == ["flash", None]
    assert placement().notes == notes[:1]
