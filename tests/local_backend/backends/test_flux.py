"""The user's own FLUX.1-Fill from files to picture: plans, memory, state and call counts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from fakes.backend import Interrupted, RecordingProgress
from fakes.layouts import write_clip, write_pipeline, write_t5, write_transformer, write_vae
from fakes.layouts_lora import write_lora
from fakes.tiny import make_request
from fakes.tiny_flux import flux_components, tiny_flux_fill
from onereward_pack.local_backend.backends import flux as backend_module
from onereward_pack.local_backend.backends.flux import LocalBackend
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths, file_stamp
from onereward_pack.local_backend.offload import device_memory, placement
from onereward_pack.local_backend.offload.device_memory import OwnMemory
from onereward_pack.local_backend.offload.model_part import ModelPart
from onereward_pack.local_backend.offload.placement import FluxPlacement, Resident
from onereward_pack.local_backend.offload.residency import Residency
from onereward_pack.local_backend.pipeline import pipeline_cache
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from onereward_pack.nodes.contracts import Backend, EditRequest
from onereward_pack.nodes.errors import (
    CheckpointError,
    InputError,
    LocalBackendError,
    ModelNotFoundError,
)
from safetensors.torch import load, save_file
from torch import Tensor

CPU = torch.device("cpu")
NAME = "OneReward.safetensors"
WIDTH = 256  # so that the transformer is larger than the vocabularies
MOST_TRIES = 20  # a run needs at most 3; one that would never end fails


class Card(OwnMemory):
    """A device of a given size. `lie`: it says that it has that much more."""

    def __init__(self, size: int = 10**12, lie: int = 0) -> None:
        super().__init__(CPU)
        self.size, self.lie, self.peak, self.recovered = size, lie, 0, 0

    def budget(self) -> int:
        return self.size + self.lie

    def load(self, parts: Sequence[tuple[ModelPart, Residency]], work: int) -> None:
        super().load(parts, work)
        held = sum(part.device_bytes for part in self._parts) + work
        self.peak = max(self.peak, held)
        if held > self.size:
            raise torch.OutOfMemoryError("the card is full")

    def recover(self) -> None:
        self.recovered += 1
        assert self.recovered <= MOST_TRIES, "it tries again and again with the same plan"


@dataclass
class Machine:
    """A backend on a card."""

    backend: LocalBackend
    card: Card

    def paint(self, request: EditRequest, progress: RecordingProgress | None = None) -> Tensor:
        return self.backend.run(request, progress or RecordingProgress()).images

    @property
    def placement(self) -> FluxPlacement:
        pipeline = pipeline_cache.PIPELINE_CACHE._pipeline
        assert pipeline is not None
        assert isinstance(pipeline.placement, FluxPlacement)
        return pipeline.placement

    def part(self, name: str) -> ModelPart:
        return getattr(self.placement._parts, name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelPaths:
    folder = tmp_path_factory.mktemp("models")
    flux = tiny_flux_fill(width=WIDTH)
    return ModelPaths(
        transformer=write_transformer(folder, flux.transformer, "bfl", "float32").path,
        text_encoder=write_clip(folder, flux.text_encoder, "float32").path,
        text_encoder_2=write_t5(folder, flux.text_encoder_2, "float32").path,
        vae=write_vae(folder, flux.vae).path,
    )


@pytest.fixture(scope="module")
def reference() -> OneRewardPipeline:
    """The same models, all resident, with AdaLN's own layers."""
    return OneRewardPipeline(flux_components(tiny_flux_fill(width=WIDTH)), CPU)


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    pipeline_cache.PIPELINE_CACHE.unload()
    yield
    pipeline_cache.PIPELINE_CACHE.unload()


@pytest.fixture
def machine(files: ModelPaths, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return make_machine(files, Card(), monkeypatch)


def make_machine(files: ModelPaths, card: Card, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(backend_module, "shared_memory", lambda device: card)
    return Machine(LocalBackend(files, NAME), card)


def paint(reference: OneRewardPipeline, request: EditRequest) -> Tensor:
    return reference(request, RecordingProgress()).images


@pytest.mark.parametrize("changes", [{}, {"num_images": 2}, {"height": 96, "prompt": "a dog"}])
def test_it_paints_what_the_resident_models_paint_to_the_bit(
    machine: Machine, reference: OneRewardPipeline, changes: dict[str, float]
) -> None:
    request = make_request(**changes)
    assert torch.equal(machine.paint(request), paint(reference, request))


def test_without_cfg_there_is_one_branch(machine: Machine, reference: OneRewardPipeline) -> None:
    # a single row is multiplied in an order that depends on where the weights lie in memory
    request = make_request(true_cfg=1.0)
    torch.testing.assert_close(machine.paint(request), paint(reference, request), rtol=0, atol=1e-5)


def test_a_pipeline_folder_serves_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: OneRewardPipeline
) -> None:
    folder = write_pipeline(tmp_path, tiny_flux_fill(width=WIDTH))
    parts = ("transformer", "text_encoder", "text_encoder_2", "vae")
    machine = make_machine(ModelPaths(**{p: folder / p for p in parts}), Card(), monkeypatch)
    request = make_request()
    assert torch.equal(machine.paint(request), paint(reference, request))


# bytes, each just enough for the plan of these words
RESIDENT, ON_DEMAND, STREAMED, FP8 = 68_000_000, 54_000_000, 47_000_000, 40_000_000
BUDGETS = {
    "fp32 resident, T5 resident": RESIDENT,
    "fp32 resident, T5 on demand": ON_DEMAND,
    "fp8 resident, T5 on demand": FP8,
    "4 of 4 blocks streamed": STREAMED,
}


@pytest.mark.parametrize(("words", "budget"), BUDGETS.items())
def test_every_plan_keeps_to_its_peak_and_paints_the_same(
    files: ModelPaths,
    monkeypatch: pytest.MonkeyPatch,
    reference: OneRewardPipeline,
    words: str,
    budget: int,
) -> None:
    precision = "auto" if "fp8" in words else "file"
    card = Card(budget)
    machine = make_machine(replace(files, precision=precision), card, monkeypatch)
    progress = RecordingProgress()
    request = make_request()
    image = machine.paint(request, progress)
    assert any(words in status for status in progress.texts)
    plan = machine.placement.plan
    assert plan is not None
    assert card.peak <= plan.peak <= budget
    if "fp8" not in words:
        assert torch.equal(image, paint(reference, request))


def test_a_card_with_less_than_it_said_gets_the_next_smaller_plan(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch, reference: OneRewardPipeline
) -> None:
    card = Card(STREAMED, lie=60_000_000)
    machine = make_machine(replace(files, precision="file"), card, monkeypatch)
    progress = RecordingProgress()
    request = make_request()
    assert torch.equal(machine.paint(request, progress), paint(reference, request))
    assert card.recovered >= 1
    assert any("ran out" in status for status in progress.texts)
    tries = card.recovered
    assert torch.equal(machine.paint(request), paint(reference, request))
    assert card.recovered == tries, "the next run knows what the card has"


def test_a_shortage_is_forgotten_when_there_is_more_or_after_a_while(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(RESIDENT)
    machine = make_machine(replace(files, precision="file"), card, monkeypatch)

    def place() -> str:
        machine.paint(make_request())
        return machine.placement.notes[0].partition(": ")[2]

    resident, on_demand = "fp32 resident, T5 resident", "fp32 resident, T5 on demand"
    assert place() == resident
    pipeline_cache.PIPELINE_CACHE.unload()
    card.size, card.lie = ON_DEMAND, RESIDENT - ON_DEMAND  # a neighbour that nobody sees
    assert place() == on_demand
    card.size, card.lie = RESIDENT, 0
    assert place() == on_demand, "it may come back"
    later = device_memory.monotonic() + 3600
    monkeypatch.setattr(device_memory, "monotonic", lambda: later)
    machine.placement.plan = None
    assert place() == resident


def test_after_a_refusal_the_next_run_finds_what_there_is(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(1_000_000, lie=60_000_000)
    machine = make_machine(files, card, monkeypatch)
    with pytest.raises(LocalBackendError):
        machine.paint(make_request())
    card.size = RESIDENT
    machine.paint(make_request())


@pytest.mark.parametrize(
    ("words", "lack"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_lack_of_memory_is_known_in_other_words(words: str, lack: bool) -> None:
    assert device_memory.is_out_of_memory(RuntimeError(words)) is lack


def test_the_second_picture_finds_the_memory_of_the_first(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Real(Card):
        """What is free is what nobody holds, the table's rows among them."""

        def budget(self) -> int:
            rows = (
                machine.part("table")._rows.values()
                if pipeline_cache.PIPELINE_CACHE._pipeline
                else ()
            )
            return self.size - sum(row.rows.nbytes for row in rows if row.rows is not None)

    machine = make_machine(replace(files, precision="file"), Real(ON_DEMAND), monkeypatch)
    machine.paint(make_request())
    first = machine.placement.plan
    machine.paint(make_request())
    assert machine.placement.plan == first


def test_a_lora_that_leaves_the_modulation_alone_leaves_the_table(
    files: ModelPaths, tmp_path: Path, machine: Machine
) -> None:
    flux = tiny_flux_fill(width=WIDTH)
    path = write_lora(tmp_path, flux.transformer, "peft").path
    whole = load(path.read_bytes())  # not mapped: the file is written over
    state = {key: value for key, value in whole.items() if "norm" not in key}
    machine.paint(make_request())
    cached = machine.placement._parts.table._cache
    for tensors, rows in ((state, 1), (whole, 0)):
        save_file(tensors, path)
        machine.backend = LocalBackend(replace(files, lora=path), NAME)
        machine.placement.adapt(machine.backend._files)
        assert len(cached) == rows


def test_another_precision_takes_effect_at_once(machine: Machine, files: ModelPaths) -> None:
    words = []
    for precision in ("fp8", "auto", "fp8", "file"):
        machine.backend = LocalBackend(replace(files, precision=precision), NAME)
        note = machine.backend.run(make_request(), RecordingProgress()).notes[0]
        words.append(note.partition(": ")[2].split()[0])
    assert words == ["fp8", "fp32", "fp8", "fp32"]


def test_a_run_that_fills_the_card_more_than_once_ends(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loose(Card):
        """Has a tenth more to say each time it was cleared."""

        def budget(self) -> int:
            return int(self.size + self.lie * 1.1 ** min(self.recovered, 40))

    machine = make_machine(files, Loose(1_000_000, lie=60_000_000), monkeypatch)
    with pytest.raises(LocalBackendError):
        machine.paint(make_request())


def test_shards_that_were_written_anew_are_other_models(tmp_path: Path) -> None:
    written = write_transformer(tmp_path, tiny_flux_fill().transformer, "shards", "float32")
    before = file_stamp(written.path)
    shard = next(written.path.parent.glob("*.safetensors"))
    os.utime(shard, ns=(1, 2**62))
    assert file_stamp(written.path) != before


def test_half_a_lora_never_stays(
    files: ModelPaths, tmp_path: Path, machine: Machine, reference: OneRewardPipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write_lora(tmp_path, tiny_flux_fill(width=WIDTH).transformer, "peft").path
    request = make_request()
    plain = machine.paint(request)
    part = machine.part("transformer")
    layers = part._lora._layers
    failures = iter([True])

    def too_many() -> Iterator[object]:
        for number, layer in enumerate(layers()):
            if number == 2 and next(failures, False):
                raise torch.OutOfMemoryError("no room for the third layer")
            yield layer

    monkeypatch.setattr(part._lora, "_layers", too_many)
    machine.backend = LocalBackend(replace(files, lora=path), NAME)
    with_lora = machine.paint(request)
    assert machine.card.recovered == 1
    assert not torch.equal(with_lora, plain)
    machine.backend = LocalBackend(files, NAME)
    assert torch.equal(machine.paint(request), plain)


def test_a_card_too_small_for_anything_is_told_so(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(files, Card(1_000_000, lie=60_000_000), monkeypatch)
    with pytest.raises(LocalBackendError, match="64x64 does not fit this card") as failure:
        machine.paint(make_request())
    assert "OneReward Fal Backend" in str(failure.value)


def test_another_runtime_error_is_no_lack_of_memory(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.paint(make_request())
    monkeypatch.setattr(machine.placement, "arrange", lambda *_: (_ for _ in ()).throw(
        RuntimeError("a broken driver")
    ))  # fmt: skip
    with pytest.raises(RuntimeError, match="a broken driver"):
        machine.paint(make_request())
    assert machine.card.recovered == 0


def test_the_same_prompt_again_loads_no_text_encoder(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(files, Card(ON_DEMAND), monkeypatch)
    machine.paint(make_request())
    loads = machine.part("t5").loads
    assert loads == 1
    machine.paint(make_request(seed=5, num_inference_steps=2))
    machine.paint(make_request(height=96))
    assert machine.part("t5").loads == loads
    machine.paint(make_request(prompt="a dog"))
    assert machine.part("t5").loads == loads + 1
    assert machine.part("transformer").loads == 1


def test_t5_leaves_after_it_has_encoded_where_it_does_not_fit_beside_the_rest(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, kept in ((RESIDENT, True), (ON_DEMAND, False)):
        pipeline_cache.PIPELINE_CACHE.unload()
        machine = make_machine(replace(files, precision="file"), Card(size), monkeypatch)
        machine.paint(make_request())
        assert (machine.part("t5").residency is not None) is kept
        assert machine.part("transformer").residency is not None


def test_a_step_copies_each_streamed_block_once(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(replace(files, precision="file"), Card(STREAMED), monkeypatch)
    machine.paint(make_request(num_inference_steps=3, num_images=2))
    streamer = machine.part("transformer").streamer
    assert streamer is not None
    assert streamer.copies == 4 * 3 * 2 + 1


@pytest.mark.parametrize("size", [10**12, STREAMED])
@pytest.mark.parametrize("step", [1, 2])
def test_a_run_after_an_interrupted_one_equals_a_fresh_one(
    files: ModelPaths,
    monkeypatch: pytest.MonkeyPatch,
    reference: OneRewardPipeline,
    size: int,
    step: int,
) -> None:
    machine = make_machine(replace(files, precision="file"), Card(size), monkeypatch)
    with pytest.raises(Interrupted):
        machine.paint(make_request(), RecordingProgress(cancel_at=step))
    for request in (make_request(height=96, prompt="a dog"), make_request()):
        assert torch.equal(machine.paint(request), paint(reference, request))


@pytest.mark.parametrize("level", ["regular", "high"])
@pytest.mark.parametrize("size", [10**12, STREAMED])
def test_a_level_paints_the_same_wherever_the_blocks_lie(
    files: ModelPaths,
    monkeypatch: pytest.MonkeyPatch,
    reference: OneRewardPipeline,
    size: int,
    level: str,
) -> None:
    machine = make_machine(replace(files, precision="file"), Card(size), monkeypatch)
    request = make_request(acceleration=level)
    painted = machine.paint(request)
    plan = machine.placement.plan
    assert plan is not None
    assert bool(plan.transformer.streamed) is (size == STREAMED)
    if plan.kv_cache_format is None:  # all tokens are computed, and the result says why
        monkeypatch.setattr(reference, "placement", Resident(CPU, torch.float32))
        reference.placement.kv_cache_format = None
        assert any("no room to keep keys" in note for note in machine.placement.notes)
    assert torch.equal(painted, paint(reference, request))


def test_text_encoders_that_were_interrupted_do_not_stay_on_a_small_card(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(files, Card(ON_DEMAND), monkeypatch)
    machine.paint(make_request())
    t5, clip = machine.part("t5"), machine.part("clip")

    def stop(*_: object) -> None:
        raise Interrupted

    hook = t5.module.encoder.block[1].register_forward_pre_hook(stop)
    with pytest.raises(Interrupted):
        machine.paint(make_request(prompt="a dog"))
    hook.remove()
    assert (t5.residency, clip.residency) == (None, None)


def test_two_models_in_turn_do_not_mix(
    files: ModelPaths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: OneRewardPipeline,
) -> None:
    other = tiny_flux_fill(seed=3, width=WIDTH)
    path = write_transformer(tmp_path, other.transformer, "diffusers", "float32").path
    first = make_machine(files, Card(), monkeypatch)
    second = Machine(LocalBackend(replace(files, transformer=path), NAME), first.card)
    request = make_request()
    expected = paint(reference, request)
    pictures = [machine.paint(request) for machine in (first, second, first, second)]
    assert torch.equal(pictures[0], expected) and torch.equal(pictures[2], expected)
    assert torch.equal(pictures[1], pictures[3])
    assert not torch.equal(pictures[0], pictures[1])
    assert len(first.card._parts) <= 8


def test_a_file_that_was_written_anew_is_read_anew(
    files: ModelPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_transformer(tmp_path, tiny_flux_fill(width=WIDTH).transformer).path
    machine = make_machine(replace(files, transformer=path), Card(), monkeypatch)
    before = machine.paint(make_request())
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    other = write_transformer(fresh, tiny_flux_fill(seed=3, width=WIDTH).transformer).path
    os.replace(other, path)
    assert not torch.equal(machine.paint(make_request()), before)


def test_another_lora_or_strength_loads_no_model_again(
    files: ModelPaths, tmp_path: Path, machine: Machine, reference: OneRewardPipeline
) -> None:
    flux = tiny_flux_fill(width=WIDTH)
    written = write_lora(tmp_path, flux.transformer, "peft")
    request = make_request()
    plain = paint(reference, request)

    def with_lora(strength: float) -> Tensor:
        machine.backend = LocalBackend(
            replace(files, lora=written.path, lora_strength=strength), NAME
        )
        return machine.paint(request)

    full, half, none = with_lora(1.0), with_lora(0.5), with_lora(0.0)
    assert not torch.equal(full, plain) and not torch.equal(full, half)
    assert torch.equal(none, plain)
    assert torch.equal(with_lora(1.0), full)
    machine.backend = LocalBackend(files, NAME)
    assert torch.equal(machine.paint(request), plain)
    assert machine.part("transformer").loads == machine.part("t5").loads == 1


def test_a_lora_s_notes_are_told(files: ModelPaths, tmp_path: Path, machine: Machine) -> None:
    flux = tiny_flux_fill(width=WIDTH)
    path = write_lora(tmp_path, flux.transformer, "peft").path
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    factors = {
        f"{layer}.lora_A.weight": torch.ones(4, 64),
        f"{layer}.lora_B.weight": torch.ones(64, 4),
    }
    save_file(load(path.read_bytes()) | factors, path)
    machine.backend = LocalBackend(replace(files, lora=path), NAME)
    notes = machine.backend.run(make_request(), RecordingProgress()).notes
    assert any("text encoder" in note for note in notes[1:])


def test_unloading_leaves_nothing_loaded(machine: Machine) -> None:
    machine.paint(make_request())
    parts = [machine.part(name) for name in ("transformer", "t5", "clip", "vae")]
    assert all(part.device_bytes for part in parts)
    table = machine.placement._parts.table
    pipeline_cache.PIPELINE_CACHE.unload()
    assert [part.device_bytes for part in parts] == [0] * 4
    assert all(row.rows is None for row in table._rows.values())


def test_the_result_names_the_plan(machine: Machine) -> None:
    notes = machine.backend.run(make_request(), RecordingProgress()).notes
    assert len(notes) == 1
    assert notes[0].endswith("fp32 resident, T5 resident")
    assert machine.backend.name == f"{NAME} on this machine"


def test_a_large_picture_is_decoded_in_tiles_and_the_vae_is_put_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "TILE_ABOVE_PIXELS", 64 * 64)
    tiled = []
    machine.paint(make_request())
    vae = machine.part("vae").module
    decode = vae.decode
    monkeypatch.setattr(
        vae, "decode", lambda *a, **k: tiled.append(vae.use_tiling) or decode(*a, **k)
    )
    machine.paint(make_request())
    machine.paint(make_request(height=80))
    assert tiled == [False, True]
    assert vae.use_tiling is False


def test_a_preview_comes_with_every_step(machine: Machine) -> None:
    progress = RecordingProgress()
    machine.paint(make_request(), progress)
    assert [preview.shape for preview in progress.previews] == [(8, 8, 3)] * 3
    assert all(0 <= p.min() and p.max() <= 1 for p in progress.previews)


def test_models_that_do_not_belong_together_are_refused_before_loading(
    files: ModelPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import T5Config, T5EncoderModel

    settings = T5Config(d_model=96, d_kv=32, d_ff=64, num_layers=1, num_heads=2, vocab_size=32128,
                        feed_forward_proj="gated-gelu")  # fmt: skip
    path = write_t5(tmp_path, T5EncoderModel(settings), "float32").path
    machine = make_machine(replace(files, text_encoder_2=path), Card(), monkeypatch)
    with pytest.raises(CheckpointError, match="T5 encoder gives 96 channels"):
        machine.paint(make_request())


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "text_encoder_2", "vae", "lora"])
def test_a_missing_file_is_named(
    files: ModelPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    nowhere = tmp_path / "nowhere.safetensors"
    machine = make_machine(replace(files, **{part: nowhere}), Card(), monkeypatch)
    with pytest.raises(ModelNotFoundError, match=r"nowhere\.safetensors"):
        machine.paint(make_request())


def test_files_in_each_other_s_places_are_refused_in_one_sentence(
    files: ModelPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(replace(files, vae=files.text_encoder), Card(), monkeypatch)
    with pytest.raises(CheckpointError, match="CLIP") as failure:
        machine.paint(make_request())
    assert "\n" not in str(failure.value)


def test_a_recipe_is_checked_before_any_file_is_opened(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    backend: Backend = LocalBackend(
        ModelPaths(transformer=nowhere, text_encoder=nowhere, text_encoder_2=nowhere, vae=nowhere),
        NAME,
    )
    for request in (make_request(num_inference_steps=0), make_request(height=72)):
        with pytest.raises(InputError):
            backend.run(request, RecordingProgress())
