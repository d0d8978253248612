"""The table of AdaLN's modulation gives what the layers give, to the bit."""

from __future__ import annotations

import pytest
import torch
from fakes.tiny_flux import tiny_flux_fill
from onereward_pack.local_backend.acceleration import adaln_table
from onereward_pack.local_backend.acceleration.adaln_table import (
    Layer,
    ModulationInputs,
    ModulationTable,
    modulation_names,
    scaled_time,
)
from torch import Tensor

TIMES = [1000.0, 731.25, 12.5]


def run(transformer: torch.nn.Module, time: float, branches: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    states = noise(branches, 16, 384)
    ids = torch.zeros(16, 3)
    ids[:, 1] = torch.arange(16)
    with torch.no_grad():
        return transformer(
            hidden_states=states,
            encoder_hidden_states=noise(branches, 8, 64),
            pooled_projections=noise(branches, 64),
            timestep=scaled_time(time, branches, states),
            guidance=torch.full([branches], 1.0),
            img_ids=ids,
            txt_ids=torch.zeros(8, 3),
            return_dict=False,
        )[0]


def pooled(branches: int, dtype: torch.dtype) -> Tensor:
    """The same as in `run`."""
    generator = torch.Generator().manual_seed(1)
    for shape in ((branches, 16, 384), (branches, 8, 64)):
        torch.randn(shape, generator=generator)
    return torch.randn((branches, 64), generator=generator).to(dtype)


def inputs(branches: int, dtype: torch.dtype, **changes: object) -> ModulationInputs:
    words = {
        "timesteps": TIMES,
        "guidance": torch.full([branches], 1.0),
        "pooled_projections": pooled(branches, dtype),
    }
    return ModulationInputs(**(words | changes))


def table_of(transformer: torch.nn.Module) -> tuple[ModulationTable, dict[str, Layer]]:
    layers = {n: transformer.get_submodule(n) for n in modulation_names(transformer)}
    return ModulationTable(transformer), layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("branches", [1, 2])
def test_the_velocity_is_the_same_to_the_bit(branches: int, dtype: torch.dtype) -> None:
    transformer = tiny_flux_fill().transformer.to(dtype)
    expected = [run(transformer, time, branches, dtype) for time in TIMES]
    assert not torch.equal(expected[0], expected[1])
    table, layers = table_of(transformer)
    with torch.no_grad():
        table.prepare(inputs(branches, dtype), layers.__getitem__, lambda: None)
    for step in (2, 0, 1):  # any order
        table.select(step)
        assert torch.equal(run(transformer, TIMES[step], branches, dtype), expected[step])


def test_no_layer_of_the_blocks_depends_on_the_weights_that_were_taken_out() -> None:
    transformer = tiny_flux_fill().transformer
    before = dict(transformer.named_parameters())
    table, _ = table_of(transformer)
    gone = before.keys() - dict(transformer.named_parameters()).keys()
    assert gone == {f"{name}.{leaf}" for name in table.names for leaf in ("weight", "bias")}
    assert len(table.names) == 2 * 2 + 2  # two double blocks, two single ones


@pytest.mark.parametrize(
    "changes",
    [
        {"timesteps": [1000.0, 731.25, 12.0]},
        {"guidance": torch.full([2], 30.0)},
        {"pooled_projections": torch.zeros(2, 64)},
        {"pooled_projections": torch.zeros(1, 64), "guidance": torch.full([1], 1.0)},
    ],
)
def test_it_is_worked_out_again_when_what_it_depends_on_changes(
    changes: dict[str, object],
) -> None:
    table, layers = table_of(tiny_flux_fill().transformer)
    asked: list[str] = []

    def layer(name: str) -> Layer:
        asked.append(name)
        return layers[name]

    with torch.no_grad():
        table.prepare(inputs(2, torch.float32), layer, lambda: None)
        table.prepare(inputs(2, torch.float32), layer, lambda: None)
        assert asked == list(table.names)
        table.prepare(inputs(2, torch.float32, **changes), layer, lambda: None)
        assert asked == list(table.names) * 2
        table.clear()
        table.prepare(inputs(2, torch.float32), layer, lambda: None)
        assert asked == list(table.names) * 2, "the first run's rows are kept"
        table.forget()
        table.prepare(inputs(2, torch.float32), layer, lambda: None)
    assert asked == list(table.names) * 3


def test_the_cache_holds_the_runs_used_last_up_to_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row_bytes = 4 * (4 * 6 + 2 * 3) * 64  # float32; two norms of two double blocks, two single ones
    monkeypatch.setattr(adaln_table, "_CACHE_BYTES", 4 * row_bytes)
    table, layers = table_of(tiny_flux_fill().transformer)
    asked: list[str] = []

    def layer(name: str) -> Layer:
        asked.append(name)
        return layers[name]

    runs = [inputs(1, torch.float32, timesteps=[float(time)]) for time in range(6)]
    with torch.no_grad():
        for run_inputs in (*runs, *runs[2:]):
            table.prepare(run_inputs, layer, lambda: None)
        assert len(asked) == 6 * len(table.names)
        table.prepare(runs[0], layer, lambda: None)
        assert len(asked) == 7 * len(table.names)
        long = inputs(1, torch.float32, timesteps=[float(time) for time in range(9)])
        for run_inputs in (long, runs[0], long):  # more than the bound: alone, and then evicted
            table.prepare(run_inputs, layer, lambda: None)
    assert len(asked) == 10 * len(table.names)


def test_a_preparation_that_was_broken_off_is_begun_again() -> None:
    class StopIt(Exception):
        pass

    table, layers = table_of(tiny_flux_fill().transformer)
    calls = []

    def stop() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise StopIt

    with torch.no_grad():
        with pytest.raises(StopIt):
            table.prepare(inputs(2, torch.float32), layers.__getitem__, stop)
        table.prepare(inputs(2, torch.float32), layers.__getitem__, stop)
    assert len(calls) == 3 + len(table.names)


def test_a_transformer_without_guidance_needs_none() -> None:
    from fakes.tiny import tiny_transformer

    transformer = tiny_transformer(guidance_embeds=False).eval()
    table, layers = table_of(transformer)
    words = ModulationInputs(TIMES, None, torch.zeros(1, 32))
    with torch.no_grad():
        table.prepare(words, layers.__getitem__, lambda: None)
    table.select(0)
    row = transformer.transformer_blocks[0].norm1.linear(torch.empty(0))
    assert row.shape == (1, 6 * 32)
