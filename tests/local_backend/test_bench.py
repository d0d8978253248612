"""`bench` measures what it says, beside a reference that paints the same picture."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tiny import make_request
from onereward_pack.local_backend.acceleration.levels import LEVELS
from onereward_pack.local_backend.acceleration.step_schedule import StepKind
from onereward_pack.local_backend.bench.configurations import CONFIGURATIONS, choose
from onereward_pack.local_backend.bench.measure import (
    Row,
    Run,
    StepClock,
    masked_psnr,
    milliseconds,
    step_kinds,
)
from onereward_pack.local_backend.bench.models_under_test import (
    choose_model,
    preview_model,
    random_model,
)
from onereward_pack.local_backend.bench.options import Options
from onereward_pack.local_backend.bench.plot import plot
from onereward_pack.local_backend.bench.random_flux import (
    RandomFlux,
    published_settings,
    tiny_settings,
)
from onereward_pack.local_backend.bench.report import Report, figures, table
from onereward_pack.local_backend.bench.run import make_request as bench_request
from onereward_pack.local_backend.cli import main
from onereward_pack.local_backend.cli.demo import SCENES
from onereward_pack.local_backend.pipeline.pipeline_cache import PIPELINE_CACHE
from onereward_pack.nodes.errors import InputError
from PIL import Image

CPU = torch.device("cpu")
PHOTO = SCENES / "fill.jpg"
ALL = (StepKind.ALL,)
Found = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Found:
    """What the command writes for a tiny FLUX: the way of a full-size one on a GPU."""
    return measured(folder / "tiny", "--weights", "tiny", "--rows", "reference", "none", "high")


@pytest.fixture(scope="module")
def preview(folder: Path) -> Found:
    rows = ("--rows", "reference", "none", "high")
    return measured(folder / "preview", "--weights", "preview", "--size", "128", *rows)


def measured(out: Path, *arguments: str) -> Found:
    assert main.main(["bench", "--steps", "9", "--out", str(out), *arguments]) == 0
    found: Found = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    return found


def rows_of(found: Found) -> dict[str, Found]:
    return {row["name"]: row for row in found["rows"]}


def make_row(name: str, *totals: float) -> Row:
    row = Row(name, name, ALL)
    row.runs = [Run({"encode": 0.0, "denoise": total, "decode": 0.0}, []) for total in totals]
    return row


def make_report(*rows: Row, together: bool = False) -> Report:
    machine = {"device": "a machine", "torch": "2"}
    model = replace(preview_model(CPU), together=together)
    return Report(machine, model, make_request(32, 32), rows)


@pytest.mark.parametrize("name", ["tiny", "preview"])
def test_the_reference_paints_what_level_none_paints(
    name: str, request: pytest.FixtureRequest
) -> None:
    rows = rows_of(request.getfixturevalue(name))
    psnr = rows["reference"]["psnr"]
    assert psnr == "infinite" or psnr > 100
    assert rows["high"]["psnr"] != "infinite"  # so it is no comparison of a picture with itself


def test_every_row_has_its_seconds_and_its_steps(tiny: Found, preview: Found) -> None:
    for found in (tiny, preview):
        rows = rows_of(found)
        assert list(rows) == ["reference", "none", "high"]
        for row in rows.values():
            assert row["total"] == pytest.approx(row["encode"] + row["denoise"] + row["decode"])
            assert row["first"] > 0
            assert row["problem"] == ""
            assert row["peak"] is None  # nobody counts a CPU's memory
            assert sum(row["steps"].values()) == 9
            assert row["step_ms"]["all tokens"] > 0
        assert rows["reference"]["ratio"] == 1
        assert rows["high"]["step_ms"]["extrapolated"] < rows["high"]["step_ms"]["all tokens"]


def test_the_machine_and_the_weights_are_named(tiny: Found, preview: Found) -> None:
    assert tiny["machine"]["torch"] == torch.__version__
    assert tiny["machine"]["device"] in tiny["title"]
    assert "random weights" in tiny["title"]
    assert not tiny["pictures mean something"]
    assert preview["title"].startswith("preview model, 128x128, 9 steps, 20 % masked")
    assert preview["pictures mean something"]


def test_nothing_stays_loaded(tiny: Found) -> None:
    assert PIPELINE_CACHE._pipeline is None


def test_random_weights_are_told_to_make_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", "tiny", "--rows", "none", "--steps", "1"]
    assert main.main(["bench", *arguments]) == 0
    assert "THE PSNR MEANS NOTHING HERE" in capsys.readouterr().out


def test_what_there_is_no_time_for_is_named_and_the_exit_code_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", "tiny", "--rows", "none", "high", "--limit", "0"]
    assert main.main(["bench", *arguments, "--out", str(tmp_path)]) == 1
    assert "none: left out, the time is up" in capsys.readouterr().err
    assert (tmp_path / "bench.png").exists()
    rows = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert [row["total"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "fast"], 'no row "fast". Use: reference, none'),
        (["--rows", "high-compiled", "--weights", "preview"], "neither compiled nor"),
        (["--compile", "--weights", "preview"], "neither compiled nor"),
        (["--attention", "fastest", "--weights", "preview"], "Leave --attention out"),
        (["--mask", "1"], "--mask is 1. Give a share"),
        (["--size", "100"], "--size is 100. Give a multiple of 16"),
        (["--steps", "0"], "num_inference_steps is 0"),
        (["--models", "here", "--weights", "tiny"], "give one of them"),
        (["--models", "nowhere"], "nowhere is no folder"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_runs(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["bench", *arguments]) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_full_size_weights_are_refused_on_a_cpu() -> None:
    with pytest.raises(InputError, match="hours on a CPU"):
        random_model(CPU, tiny=False)


def test_the_backend_s_rows_get_the_attention_that_was_asked_for() -> None:
    files = choose_model(Options(weights="tiny", attention="fastest"), CPU).files
    assert files is not None
    assert files.attention == "fastest"


def test_rows_come_in_the_table_s_order_and_apply_as_they_are_asked_for() -> None:
    def names(*wanted: str, compiled: bool = False) -> list[str]:
        return [case.name for case in choose(wanted, compiled=compiled, has_files=True)]

    assert names() == ["reference", "none", "regular", "high"]
    assert names(compiled=True) == list(CONFIGURATIONS)
    assert names("high-compiled", "none") == ["none", "high-compiled"]
    assert CONFIGURATIONS["high-compiled-fp8"].files == {"compile": True, "precision": "fp8 fast"}


def test_the_mask_is_a_centred_square_of_the_share_that_was_asked_for() -> None:
    mask = bench_request(Options(mask=0.25, size=64), preview_model(CPU), PHOTO).mask[0]
    assert mask.mean().item() == 0.25
    assert (mask == mask.flip(0, 1)).all()
    assert (mask[16:48, 16:48] == 1).all()


def test_random_models_have_flux_s_shapes_and_no_weight_is_made_before_it_is_read() -> None:
    opened = RandomFlux(published_settings, CPU, keep=True).open()
    sizes = {
        name: sum(prod(info.shape) for info in file.weights.sizes.values())
        for name, file in vars(opened).items()
    }
    assert sizes == {  # the numbers of weights of the published models
        "transformer": 11_902_391_360,
        "t5": 4_762_310_656,
        "clip": 123_060_480,
        "vae": 83_819_683,
    }


@pytest.mark.parametrize("keep", [True, False])
def test_random_weights_are_the_same_each_time_and_norms_are_ones(keep: bool) -> None:
    flux = RandomFlux(tiny_settings, CPU, keep=keep)
    first, second = flux.open().transformer.weights, flux.open().transformer.weights
    for name in ("proj_out.weight", "x_embedder.bias", "transformer_blocks.0.norm1.linear.weight"):
        data = first.read(name).data
        assert torch.equal(data, second.read(name).data), name
        assert (data is second.read(name).data) == keep
        assert data.float().std().item() == pytest.approx(0.02, rel=0.2), name
    assert not torch.equal(
        first.read("proj_out.bias").data, first.read("x_embedder.bias").data[:64]
    )
    norm = first.read("transformer_blocks.0.attn.norm_q.weight").data
    assert (norm == 1).all()


def test_the_middle_run_counts_and_ratios_are_to_the_reference_or_else_to_none() -> None:
    rows = [make_row("reference", 8.0), make_row("none", 6.0, 4.0, 5.0), make_row("high", 2.0, 3.0)]
    found = figures(make_report(*rows))
    assert [row["total"] for row in found] == [8.0, 5.0, 2.0]
    assert [row["ratio"] for row in found] == [1.0, 1.6, 4.0]
    assert [row["ratio"] for row in figures(make_report(*rows[1:]))] == [1.0, 2.5]
    assert [row["ratio"] for row in figures(make_report(rows[2]))] == [None]


def test_where_rows_took_turns_the_runs_of_a_round_are_compared() -> None:
    rows = [make_row("reference", 8.0, 2.0, 4.0), make_row("none", 4.0, 1.0, 1.0)]
    assert [row["ratio"] for row in figures(make_report(*rows, together=True))] == [1.0, 2.0]
    assert [row["ratio"] for row in figures(make_report(*rows))] == [1.0, 4.0]


def test_a_row_that_failed_says_why_in_the_table() -> None:
    row = make_row("none-compiled")
    row.problem = "no compiler"
    assert "| none-compiled | - | - | - | - | - | - | - | - | no compiler |" in table(
        make_report(make_row("reference", 1.0), row)
    )


def test_three_runs_are_enough_and_so_is_a_long_one() -> None:
    wants = [
        make_row("none", *totals).wants_more for totals in ((), (1.0, 1.0), (1.0,) * 3, (9.0,))
    ]
    assert wants == [True, True, False, False]


def test_psnr_looks_inside_the_mask_only() -> None:
    image, mask = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    other = image.clone()
    other[:, 8:] = 1.0
    assert masked_psnr(image, other, mask) == inf
    other[:, :8] = 0.1
    assert masked_psnr(image, other, mask) == pytest.approx(20.0, abs=1e-4)


def test_a_clock_knows_all_steps_but_the_first() -> None:
    clock = StepClock(CPU)
    for step in range(4):
        clock.step(step + 1, 4)
    assert len(clock.seconds()) == 3
    assert all(second >= 0 for second in clock.seconds())


def test_a_kind_of_step_takes_the_median_of_its_own_steps() -> None:
    kinds = (
        StepKind.ALL,
        StepKind.ALL,
        StepKind.MASKED,
        StepKind.ALL,
        StepKind.NOTHING,
        StepKind.ALL,
    )
    found = milliseconds([0.3, 0.1, 0.5, 0.0, 0.4], kinds)
    assert found == {"all tokens": 400.0, "masked tokens": 100.0, "extrapolated": 0.0}


def test_the_plain_pipeline_and_level_none_run_every_step_in_full() -> None:
    request = replace(make_request(64, 64), num_inference_steps=28)
    for level in (None, "none"):
        assert step_kinds(level, request, 32) == 28 * ALL
    for level in LEVELS.keys() - {"none"}:
        assert StepKind.NOTHING in step_kinds(level, request, 32)


def test_bars_are_as_long_as_their_seconds() -> None:
    rows = (make_row("reference", 8.0), make_row("none", 4.0), make_row("high", 1.0))
    sheet = np.asarray(plot(make_report(*rows)))

    def lengths(color: tuple[int, int, int]) -> list[int]:
        found = (sheet == np.uint8(color)).all(-1).sum(1)
        return sorted({int(length) for length in found if length > 20})

    (longest,) = lengths((150, 150, 158))
    ratios = [length / longest for length in lengths((47, 111, 190))]
    assert ratios == pytest.approx([1 / 8, 1 / 2], rel=0.02)


def test_the_plot_is_written_beside_the_figures(tiny: Found, folder: Path) -> None:
    with Image.open(folder / "tiny" / "bench.png") as sheet:
        assert sheet.width == 1280
        assert sheet.height > 250
