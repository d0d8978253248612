"""A part lies in its file, is loaded in a residency, and gives the same answer in all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes.layouts import write_clip, write_t5, write_transformer
from fakes.layouts_gguf import write_gguf_transformer
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from gguf import GGMLQuantizationType
from onereward_pack.local_backend.acceleration.adaln_table import modulation_names
from onereward_pack.local_backend.checkpoints.load import open_clip, open_t5, open_transformer
from onereward_pack.local_backend.checkpoints.lora import Lora
from onereward_pack.local_backend.offload.model_part import ModelPart
from onereward_pack.local_backend.offload.residency import Residency
from onereward_pack.local_backend.quantization.linear import LowRank
from torch import Tensor

CPU = torch.device("cpu")
BLOCKS = ("transformer_blocks", "single_transformer_blocks")
ALL = frozenset(range(4))
RESIDENCIES = [
    Residency(),
    Residency(streamed=ALL),
    Residency(streamed=frozenset({0, 2})),
    Residency(fp8=True),
    Residency(fp8=True, streamed=ALL),
]


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


@pytest.fixture
def path(tmp_path: Path, flux: TinyFlux) -> Path:
    return write_transformer(tmp_path, flux.transformer, "bfl", "float32").path


def make_part(path: Path, dtype: torch.dtype = torch.float32) -> ModelPart:
    return ModelPart(open_transformer(path), dtype, block_lists=BLOCKS)


def run(module: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(16, 3)
    ids[:, 1] = torch.arange(16)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    with torch.no_grad():
        return module(
            hidden_states=noise(2, 16, 384),
            encoder_hidden_states=noise(2, 8, 64),
            pooled_projections=noise(2, 64),
            timestep=torch.tensor([0.7, 0.7]).to(dtype),
            guidance=torch.ones(2),
            img_ids=ids,
            txt_ids=torch.zeros(8, 3),
            return_dict=False,
        )[0]


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).float().norm() / expected.float().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("residency", [residency for residency in RESIDENCIES if not residency.fp8])
def test_a_loaded_part_equals_the_model_it_came_from(
    path: Path, dtype: torch.dtype, residency: Residency
) -> None:
    expected = run(tiny_flux_fill().transformer.to(dtype), dtype)
    part = make_part(path, dtype)
    part.load(CPU, residency)
    assert torch.equal(run(part.module, dtype), expected)


def test_streamed_fp8_equals_resident_fp8_and_comes_close_to_the_original(
    path: Path, flux: TinyFlux
) -> None:
    answers = []
    for residency in (Residency(fp8=True), Residency(fp8=True, streamed=ALL)):
        part = make_part(path)
        part.load(CPU, residency)
        answers.append(run(part.module))
    assert torch.equal(*answers)
    assert 0.001 < relative_rms(answers[0], run(flux.transformer)) <= 0.04


@pytest.mark.parametrize("streamed", [frozenset[int](), ALL])
@pytest.mark.parametrize("precision", ["fp8", "fp8_scaled", "fp8_rows", "fp8_comfy", "int8"])
def test_a_quantised_file_stays_as_it_is(
    tmp_path: Path, flux: TinyFlux, precision: str, streamed: frozenset[int]
) -> None:
    written = write_transformer(tmp_path, flux.transformer, "bfl", precision)
    reference = tiny_flux_fill().transformer
    reference.load_state_dict(written.reference)
    part = make_part(written.path)
    part.load(CPU, Residency(streamed=streamed))
    assert torch.equal(run(part.module), run(reference))
    weight = part.module.transformer_blocks[0].attn.to_q.data
    assert weight.dtype.itemsize == 1


def test_a_gguf_file_is_unpacked_as_it_runs(tmp_path: Path) -> None:
    transformer = tiny_flux_fill().transformer
    written = write_gguf_transformer(tmp_path, transformer, GGMLQuantizationType.Q8_0)
    transformer.load_state_dict(written.reference)
    for residency in (Residency(), Residency(streamed=ALL)):
        part = make_part(written.path)
        part.load(CPU, residency)
        torch.testing.assert_close(run(part.module), run(transformer), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_it_takes_what_it_said_it_would(path: Path, residency: Residency) -> None:
    part = make_part(path)
    said = part.sizes(residency.fp8).device_bytes(residency)
    part.load(CPU, residency)
    # each tensor of a streamed block lies at a multiple of 256 bytes
    slack = 256 * 64 if residency.streamed else 0
    assert said <= part.device_bytes <= said + slack


def test_layers_that_are_left_out_are_given_one_by_one(path: Path, flux: TinyFlux) -> None:
    names = modulation_names(flux.transformer)
    part = ModelPart(open_transformer(path), torch.float32, block_lists=BLOCKS, left_out=names)
    for keep in (False, True):
        part.load(CPU, Residency(hold_left_out=keep))
        for name in names:
            states = torch.randn(2, 64)
            expected = flux.transformer.get_submodule(name)(states)
            assert torch.equal(part.layer(name)(states), expected)
    sizes = part.sizes()
    assert (
        sizes.device_bytes(Residency(hold_left_out=True)) - sizes.device_bytes(Residency())
        == sizes.left_out
    )
    assert sizes.left_out == 4 * sum(
        parameter.numel()
        for name in names
        for parameter in flux.transformer.get_submodule(name).parameters()
    )


def test_unloading_empties_it_and_loading_fills_it_again(path: Path) -> None:
    part = make_part(path)
    cleared: list[None] = []
    part.on_unload = lambda: cleared.append(None)
    part.load(CPU, Residency())
    expected = run(part.module)
    part.unload()
    part.unload()
    assert (part.residency, part.device_bytes, len(cleared)) == (None, 0, 1)
    assert {p.device.type for p in part.module.parameters()} == {"meta"}
    assert list(part.module.transformer_blocks.buffers()) == []
    part.load(CPU, Residency())
    assert torch.equal(run(part.module), expected)
    assert part.loads == 2


def test_the_same_fit_again_loads_nothing(path: Path) -> None:
    part = make_part(path)
    for residency in (Residency(), Residency(), Residency(fp8=True), Residency(fp8=True)):
        part.load(CPU, residency)
    assert part.loads == 2


def test_an_interruption_while_loading_leaves_it_empty(path: Path) -> None:
    class StopIt(BaseException):
        pass

    part = make_part(path)
    part.check = stop_at(5, StopIt())
    with pytest.raises(StopIt):
        part.load(CPU, Residency(streamed=ALL))
    assert (part.residency, part.device_bytes) == (None, 0)
    part.check = lambda: None
    part.load(CPU, Residency())
    assert torch.isfinite(run(part.module)).all()


def stop_at(call: int, error: BaseException) -> Callable[[], None]:
    calls: list[None] = []

    def check() -> None:
        calls.append(None)
        if len(calls) == call:
            raise error

    return check


@pytest.mark.parametrize("residency", [Residency(), Residency(streamed=ALL)])
def test_it_asks_before_each_block_whether_to_go_on(path: Path, residency: Residency) -> None:
    part = make_part(path)
    part.load(CPU, residency)
    expected = run(part.module)
    for block in range(1, 5):
        part.check = stop_at(block, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(part.module)
        part.check = lambda: None
        assert torch.equal(run(part.module), expected)


def test_a_step_sweeps_over_the_streamed_weights_once(path: Path) -> None:
    part = make_part(path)
    part.load(CPU, Residency(streamed=ALL))
    assert part.streamer is not None
    for sweeps in (1, 2, 3):
        run(part.module)  # two branches in one batch
        assert part.streamer.copies == 4 * sweeps + 1  # and the next sweep's first


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_lora_is_added_at_its_strength(path: Path, flux: TinyFlux, residency: Residency) -> None:
    name = "transformer_blocks.1.attn.to_q"
    down, up = torch.randn(3, 64), torch.randn(64, 3)
    part = make_part(path)
    part.load(CPU, residency)
    plain = run(part.module)
    held, lora = part.device_bytes, Lora({name: LowRank(down, up)}, ())
    part.set_lora(lora, 0.5)
    with_lora = run(part.module)
    assert part.device_bytes == held + down.nbytes + up.nbytes
    assert not torch.equal(with_lora, plain)
    if not residency.fp8:
        merged = tiny_flux_fill().transformer
        with torch.no_grad():
            merged.get_submodule(name).weight += 0.5 * up @ down
        torch.testing.assert_close(with_lora, run(merged), rtol=1e-4, atol=1e-4)
    part.unload()
    part.load(CPU, residency)
    assert torch.equal(run(part.module), with_lora)
    part.set_lora(lora, 0.0)
    assert torch.equal(run(part.module), plain)
    part.set_lora(None)
    assert torch.equal(run(part.module), plain)
    assert part.module.get_submodule(name).down is None
    assert (part.device_bytes, part.loads) == (held, 2)


def test_a_lora_for_a_layer_that_is_left_out_is_in_the_layer(path: Path, flux: TinyFlux) -> None:
    name = "single_transformer_blocks.0.norm.linear"
    down, up, states = torch.randn(2, 64), torch.randn(192, 2), torch.randn(2, 64)
    part = ModelPart(
        open_transformer(path),
        torch.float32,
        block_lists=BLOCKS,
        left_out=modulation_names(flux.transformer),
    )
    part.set_lora(Lora({name: LowRank(down, up)}, ()), -1.5)
    part.load(CPU, Residency())
    expected = flux.transformer.get_submodule(name)(states) - 1.5 * states @ down.T @ up.T
    torch.testing.assert_close(part.layer(name)(states), expected, rtol=1e-4, atol=1e-4)


def test_weights_take_no_more_than_in_their_file(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_transformer(tmp_path, flux.transformer, "bfl", "bfloat16").path
    part = make_part(path, torch.float32)
    part.load(CPU, Residency())
    assert part.module.transformer_blocks[0].attn.to_q.data.dtype == torch.bfloat16
    assert part.module.dtype == torch.float32


def test_what_the_module_works_out_for_itself_goes_to_the_device_and_comes_back(
    tmp_path: Path, flux: TinyFlux
) -> None:
    part = ModelPart(open_clip(write_clip(tmp_path, flux.text_encoder).path), torch.float32)
    before = {name: tensor.clone() for name, tensor in part.module.named_buffers()}
    assert before, "CLIP numbers its places"
    part.load(torch.device("meta"), Residency())
    tensors = [*part.module.parameters(), *part.module.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    part.unload()
    after = dict(part.module.named_buffers())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "fp8_scaled"])
def test_what_is_streamed_stays_on_the_host_whatever_its_dtype(
    tmp_path: Path, flux: TinyFlux, stored: str
) -> None:
    path = write_transformer(tmp_path, flux.transformer, "bfl", stored).path
    part = make_part(path, torch.bfloat16)
    part.load(torch.device("meta"), Residency(streamed=ALL))  # a device that is told from the host
    assert part.streamer is not None
    pairs = [pair for block in part.streamer._pairs for pair in block]
    assert {source.device.type for _, source in pairs} == {"cpu"}
    assert {target.device.type for target, _ in pairs} == {"meta"}
    assert {buffer.device.type for buffer in part.module.x_embedder.buffers()} == {"meta"}
    said = part.sizes().device_bytes(Residency(streamed=ALL))
    assert said <= part.device_bytes <= said + 256 * 64


@pytest.mark.parametrize("streamed", [frozenset[int](), ALL])
def test_an_fp16_file_gives_what_its_values_in_bf16_give(
    tmp_path: Path, flux: TinyFlux, streamed: frozenset[int]
) -> None:
    written = write_transformer(tmp_path, flux.transformer, "bfl", "float16")
    reference = tiny_flux_fill().transformer
    reference.load_state_dict(written.reference)
    part = make_part(written.path, torch.bfloat16)
    part.load(CPU, Residency(streamed=streamed))
    expected = run(reference.to(torch.bfloat16), torch.bfloat16)
    assert torch.equal(run(part.module, torch.bfloat16), expected)


@pytest.mark.parametrize("streamed", [frozenset[int](), frozenset({0, 1})])
def test_t5_shares_its_vocabulary_and_streams(
    tmp_path: Path, flux: TinyFlux, streamed: frozenset[int]
) -> None:
    path = write_t5(tmp_path, flux.text_encoder_2, "float32").path
    part = ModelPart(open_t5(path), torch.float32, block_lists=("encoder.block",))
    part.load(CPU, Residency(streamed=streamed))
    assert part.module.shared.weight is part.module.encoder.embed_tokens.weight
    ids = torch.tensor([[3, 9, 1712, 1, 0, 0]])
    with torch.no_grad():
        expected = flux.text_encoder_2(ids)[0]
        assert torch.equal(part.module(ids)[0], expected)
