"""Compiled blocks: the same answers, no graph per step, hooks that still run, plain refusals."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from fakes.backend import Interrupted
from fakes.layouts import write_transformer
from fakes.layouts_gguf import write_gguf_transformer
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from gguf import GGMLQuantizationType
from onereward_pack.local_backend.acceleration.adaln_table import (
    ModulationInputs,
    ModulationTable,
    modulation_names,
)
from onereward_pack.local_backend.acceleration.block_compile import (
    CompiledBlocks,
    check_compiler,
    explain,
)
from onereward_pack.local_backend.checkpoints.load import open_transformer
from onereward_pack.local_backend.offload.model_part import ModelPart
from onereward_pack.local_backend.offload.residency import Residency
from onereward_pack.nodes.errors import LocalBackendError
from torch import Tensor, nn
from torch._dynamo.utils import counters

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ALL = frozenset(range(4))


@pytest.fixture(autouse=True)
def no_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same graphs and guards, without the minutes that making code for them takes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def graphs() -> int:
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


class Transformer:
    """A loaded part with its table, which runs at a step and size."""

    def __init__(self, path: Path, residency: Residency, multiply: bool = False) -> None:
        file = open_transformer(path)
        names = modulation_names(file.module)
        blocks = ("transformer_blocks", "single_transformer_blocks")
        self.part = ModelPart(file, torch.float32, block_lists=blocks, left_out=names)
        self.table = ModulationTable(self.part.module)
        self.part.weights.fp8_products = multiply
        self.part.load(CPU, residency)
        self.blocks = CompiledBlocks(self.part.blocks)
        self.told = 0

    def compiling(self) -> None:
        self.told += 1

    @torch.no_grad()
    def run(self, step: int = 0, size: int = 16, branches: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        ids = torch.zeros(size, 3)
        ids[:, 1] = torch.arange(size)
        guidance = torch.ones(branches)
        pooled = torch.randn(branches, 64, generator=generator)
        inputs = ModulationInputs([900.0, 500.0, 100.0], guidance, pooled)
        self.table.prepare(inputs, self.part.layer, lambda: None)
        self.table.select(step)
        with self.blocks.run(self.compiling):
            return self.part.module(
                hidden_states=torch.randn(branches, size, 384, generator=generator),
                encoder_hidden_states=torch.randn(branches, 8, 64, generator=generator),
                pooled_projections=pooled,
                timestep=torch.full([branches], 0.7),
                guidance=guidance,
                img_ids=ids,
                txt_ids=torch.zeros(8, 3),
                return_dict=False,
            )[0]


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, flux: TinyFlux) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    return write_transformer(folder, flux.transformer, "bfl", "float32").path


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is nothing to compile with")
def test_compiled_blocks_answer_as_they_did(path: Path) -> None:
    transformer = Transformer(path, Residency())
    expected = [transformer.run(step) for step in range(3)]
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    transformer.blocks.turn(True, CPU)
    for step in range(3):
        torch.testing.assert_close(transformer.run(step), expected[step], rtol=0, atol=1e-4)
    assert graphs() == 3  # double, single after double, single after single


@pytest.mark.parametrize(
    ("residency", "multiply"),
    [
        (Residency(), False),
        (Residency(streamed=ALL), False),
        (Residency(fp8=True), True),
        (Residency(fp8=True, streamed=frozenset({0, 2})), True),
    ],
)
def test_a_step_a_block_or_a_third_size_needs_no_graph_of_its_own(
    path: Path, residency: Residency, multiply: bool, traced_only: None
) -> None:
    transformer = Transformer(path, residency, multiply)
    expected = transformer.run(2, size=48)
    transformer.blocks.turn(True, CPU)
    seen = []
    for size in (16, 32, 48, 16):
        for step in range(3):
            answer = transformer.run(step, size)
            seen.append(graphs())
            if (step, size) == (2, 48):
                torch.testing.assert_close(answer, expected, rtol=0, atol=1e-4)
    first, second = seen[0], seen[3]
    assert seen == [first] * 3 + [second] * 9
    # resident fused and streamed blocks are two kinds each
    assert first <= (6 if 0 < len(residency.streamed) < 4 else 3)


def test_the_first_block_s_input_needs_no_graph_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    transformer = Transformer(path, Residency())
    transformer.blocks.turn(True, CPU)
    transformer.run(size=16)
    transformer.run(size=32)
    assert graphs() == 2 * 3


def test_a_gguf_file_is_compiled_whole(tmp_path: Path, flux: TinyFlux, traced_only: None) -> None:
    kind = GGMLQuantizationType.Q8_0
    transformer = Transformer(
        write_gguf_transformer(tmp_path, flux.transformer, kind).path, Residency()
    )
    expected = transformer.run()
    transformer.blocks.turn(True, CPU)
    torch.testing.assert_close(transformer.run(), expected, rtol=0, atol=1e-4)
    assert graphs() == 3


def test_hooks_run_at_each_step_and_may_stop_it(path: Path, traced_only: None) -> None:
    transformer = Transformer(path, Residency(streamed=ALL))
    transformer.blocks.turn(True, CPU)
    asked: list[int] = []
    transformer.part.check = lambda: asked.append(1)
    transformer.run(0)
    transformer.run(1)
    assert len(asked) == 2 * 4
    assert transformer.part.streamer is not None
    assert transformer.part.streamer.copies == 2 * 4 + 1  # the next sweep's first is on its way
    transformer.part.check = stop
    with pytest.raises(Interrupted):
        transformer.run(2)


def stop() -> None:
    raise Interrupted


def test_turning_it_off_puts_the_blocks_own_code_back(path: Path, traced_only: None) -> None:
    transformer = Transformer(path, Residency())
    expected = transformer.run()
    for on in (True, True, False, False):
        transformer.blocks.turn(on, CPU)
        assert all(("forward" in vars(block)) is on for block in transformer.part.blocks)
    assert torch.equal(transformer.run(), expected)
    assert graphs() == 0


def test_it_tells_once_a_run_when_the_compiler_works(path: Path, traced_only: None) -> None:
    transformer = Transformer(path, Residency())
    transformer.run()
    assert transformer.told == 0
    transformer.blocks.turn(True, CPU)
    told = []
    for size, branches in ((16, 2), (16, 2), (32, 2), (48, 2), (16, 1), (16, 2)):
        before = transformer.told
        transformer.run(0, size, branches)
        told.append(transformer.told - before)
    assert told == [1, 0, 1, 0, 1, 0]
    assert not torch._dynamo.callback.callback_handler.start_callbacks


class Counting(nn.Module):
    """A block that needs a graph for each number."""

    number = 0

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + self.number


def test_more_graphs_are_allowed_than_torch_does_by_itself(traced_only: None) -> None:
    block, limit = Counting(), torch._dynamo.config.recompile_limit
    blocks = CompiledBlocks([block])
    blocks.turn(True, CPU)
    with blocks.run(lambda: None):
        for number in range(limit + 2):
            block.number = number
            assert block(torch.zeros(2, 2)).eq(number).all()
    assert graphs() > limit
    assert torch._dynamo.config.recompile_limit == limit


# What cannot be compiled


def test_without_a_compiler_it_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    block = Counting()
    blocks = CompiledBlocks([block])
    with pytest.raises(LocalBackendError, match=r"no-such-compiler.*Turn compile off") as caught:
        blocks.turn(True, CPU)
    assert "OneReward Local Backend" in str(caught.value)
    assert (blocks.on, "forward" in vars(block)) == (False, False)


@pytest.mark.parametrize(
    ("capability", "triton", "compiler", "words"),
    [
        ((6, 1), True, True, "capability 7.0"),
        ((9, 0), False, True, "triton"),
        ((9, 0), True, False, "C compiler"),
    ],
)
def test_a_card_is_refused_for_what_is_missing(
    capability: tuple[int, int],
    triton: bool,
    compiler: bool,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(shutil, "which", lambda name: name if compiler else None)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(LocalBackendError, match=words):
        check_compiler(CUDA)


def test_a_card_with_everything_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: name)
    check_compiler(CUDA)


@pytest.mark.parametrize("version", ["2.6.0+cu124", "2.7.1"])
def test_a_torch_that_compiles_each_block_for_itself_is_refused_by_its_version(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(LocalBackendError, match=r"lacks torch 2\.8 or later \(this is 2\.") as e:
        check_compiler(CPU)
    assert version in str(e.value)


def test_a_device_without_a_compiler_is_refused() -> None:
    with pytest.raises(LocalBackendError, match="mps"):
        check_compiler(torch.device("mps"))


class Untraceable(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return hidden_states


def test_what_the_compiler_cannot_do_is_told_with_the_remedy(traced_only: None) -> None:
    block = Untraceable()
    CompiledBlocks([block]).turn(True, CPU)
    with pytest.raises(RuntimeError) as caught:
        block(torch.zeros(2))
    with pytest.raises(LocalBackendError, match="Turn compile off on OneReward Local Backend"):
        explain(caught.value)


def test_other_errors_are_not_the_compiler_s() -> None:
    explain(RuntimeError("CUDA error: an illegal memory access was encountered"))
