"""The memory benchmark of the local backend runs without a GPU, and tells when something broke."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import local_memory as bench
from benchmarks.local_memory_report import Row, table
from benchmarks.local_memory_watch import Card, Watch
from fakes.tiny import make_request
from onereward_pack.local_backend.offload.memory_plan import MemoryPlan
from onereward_pack.local_backend.offload.residency import Residency

CARDS = {
    "all": "bf16 resident, T5 resident",
    "24 GB": "bf16 resident, T5 on demand",
    "16 GB": "fp8 resident, T5 on demand",
    "16 GB file": "bf16 4 of 4 blocks streamed, T5 on demand",
    "12 GB": "fp8 4 of 4 blocks streamed, T5 on demand",
    "8 GB": "fp8 4 of 4 blocks streamed, T5 on demand",
}
Found = dict[str, Any]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark") / "found.json"


@pytest.fixture(scope="module")
def found(out: Path) -> Found:
    assert bench.main(["--tiny", "--steps", "2", "--out", str(out)]) == 0
    result: Found = json.loads(out.read_text(encoding="utf-8"))
    return result


def test_each_card_gets_the_kind_of_plan_that_the_full_size_models_get_there(found: Found) -> None:
    reference, *rows = found["rows"]
    assert reference["card"] == "reference"
    assert {row["card"]: row["plan"] for row in rows} == CARDS
    computed = {card["card"]: card["plan"] for card in found["full size by arithmetic"]}
    assert computed.keys() == CARDS.keys()
    for card, words in CARDS.items():
        kind, _, place = words.partition(" ")
        assert computed[card].startswith(kind)
        assert ("streamed" in computed[card]) == ("streamed" in place)


def test_no_card_takes_more_than_was_predicted(found: Found) -> None:
    for row in found["rows"][1:]:
        assert 0 < row["allocated"] <= row["predicted"], row["card"]
        assert (row["problems"], row["left_behind"]) == ([], 0), row["card"]


def test_unquantised_weights_give_the_reference_s_latents_to_the_bit(found: Found) -> None:
    for row in found["rows"][1:]:
        if row["plan"].startswith("bf16"):
            assert row["difference"] == 0, row["card"]
        else:
            assert 0 < row["relative"] < 0.04, row["card"]


def test_every_figure_is_there_and_none_is_sold_as_a_gpu_s(found: Found) -> None:
    assert found["tiny"] is True
    assert "device" not in found["machine"]
    for row in found["rows"][1:]:
        assert row["stages"].keys() == {"encode", "denoise", "decode"}
        assert min(row[key] for key in ("first", "step", "ratio", "new_prompt", "table")) > 0


def test_what_there_was_no_time_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--tiny", "--steps", "1", "--limit", "0", "--cards", "24"]) == 1
    printed = capsys.readouterr().out
    assert "NO GPU FIGURES" in printed
    assert "24 GB: left out" in printed


def test_a_run_that_outlasts_the_limit_is_stopped_and_named() -> None:
    card = bench.Case("24", "auto")
    sized = bench.Bench(
        device=bench.CPU,
        flux=bench.tiny_flux(),
        request=bench.make_request(num_inference_steps=1),
        deadline=0,
    )
    row = bench.measure_card(card, sized, Row("reference"), torch.zeros(1))
    assert row.problems == ["OutOfTime: the time is up"]
    assert row.plan == CARDS["24 GB"]
    assert row.left_behind == 0


def test_a_card_that_is_too_small_for_any_plan_is_refused() -> None:
    with pytest.raises(SystemExit, match="2 GB is too small"):
        bench.main(["--tiny", "--cards", "2"])


def judged(changes: dict[str, Any], plan: dict[str, Any], latents: float = 0.0) -> list[str]:
    row = Row("24 GB", step=1.0, stages={"denoise": 1.0}, allocated=10)
    for name, value in changes.items():
        setattr(row, name, value)
    settings: dict[str, Any] = {"transformer": Residency(), "t5": Residency(), "tile": False}
    settings |= {"peak": 10, "budget": 10}
    watch = Watch(torch.full([4], 1.0 + latents), MemoryPlan(**(settings | plan)))
    bench._judge(
        row, Row("reference", stages={"denoise": 1.0}), torch.ones(4), watch, make_request()
    )
    return row.problems


def test_a_figure_that_breaks_a_promise_is_a_problem() -> None:
    assert judged({}, {}) == []
    assert "more than was predicted" in judged({"allocated": 11}, {})[0]
    assert "other latents" in judged({}, {}, latents=0.001)[0]
    assert "not let go of" in judged({"left_behind": 10**9}, {})[0]
    assert "ran out" in judged({"said": ["The card's memory ran out."]}, {})[0]
    for plan in ({"transformer": Residency(fp8=True)}, {"tile": True}):
        assert judged({}, plan, latents=0.001) == []


def test_a_card_holds_no_more_than_its_size() -> None:
    small = Card(bench.CPU, bench._RESERVE + 10)
    assert small.budget() == 10
    small.load([], 10)
    with pytest.raises(torch.OutOfMemoryError):
        small.load([], 11)


def test_the_table_shows_what_is_not_known_as_a_dash() -> None:
    lines = table([Row("8 GB", "a plan", predicted=2_500_000, allocated=1_500_000)]).splitlines()
    assert lines[-1].split()[:4] == ["8", "GB", "2.50", "1.50"]
    assert " - " in lines[-1]
    assert lines[-1].endswith("a plan")


@pytest.mark.parametrize("text", ["", "twelve", "12:fp4", "-8", "nan"])
def test_a_card_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--tiny", "--cards", text])
    assert "--cards" in capsys.readouterr().err
