"""ComfyUI's MODEL, CLIP and VAE as a backend, held against our own pipeline on the same weights.

The work is done by comfy_model_cases.py, in a process that has ComfyUI's modules.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comfy_source import comfyui_source

pytestmark = pytest.mark.comfy

HERE = Path(__file__).resolve().parent
START = (
    "import runpy, comfy.options; comfy.options.enable_args_parsing(); "
    "runpy.run_module('comfy_model_cases', run_name='__main__')"
)
RUN_LIMIT = 900
PROMISED = 35.0  # dB
ROUNDING = 100.0  # dB: below it, more than the order of the sums is different
OTHER_PICTURE = 20.0  # dB: what the hole is filled with is not what was there
SAME_WORK = ["cfg_4", "cfg_1", "not_square", "two_images", "long_prompt", "guidance"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every case found out."""
    source, scratch = comfyui_source(), tmp_path_factory.mktemp("comfyui")
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, "-c", START, "--cpu", "--base-directory", str(scratch)],
        cwd=source,  # the folder of ComfyUI's own modules comes first
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    facts: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return facts


def fact(found: dict[str, Any], case: str) -> Any:
    what = found[case]
    assert not (isinstance(what, dict) and "error" in what), what["error"]
    return what


def test_both_engines_paint_the_same_picture(found: dict[str, Any]) -> None:
    recipe = fact(found, "recipe")
    assert recipe["in_hole"] > PROMISED
    assert recipe["decibels"] > PROMISED
    assert recipe["previews"] > PROMISED
    assert recipe["painted"] < OTHER_PICTURE


@pytest.mark.parametrize("case", SAME_WORK)
def test_only_the_sampled_latents_of_the_picture_differ(found: dict[str, Any], case: str) -> None:
    work = fact(found, case)
    assert work["in_hole"] > ROUNDING
    assert work["previews"] > ROUNDING
    assert work["painted"] < OTHER_PICTURE


@pytest.mark.parametrize("case", ["recipe", *SAME_WORK])
def test_result_and_progress_are_told_as_by_our_pipeline(found: dict[str, Any], case: str) -> None:
    work = fact(found, case)
    assert work["kind"] == "torch.float32 cpu"
    assert work["range"][0] >= 0 and work["range"][1] <= 1
    assert work["flags"] == [False] * len(work["flags"])
    for pair in ("steps", "shape", "seeds", "timings"):
        assert work[pair][0] == work[pair][1], pair
        assert work[pair][0]


def test_the_second_image_is_that_of_the_next_seed(found: dict[str, Any]) -> None:
    work = fact(found, "two_images")
    assert work["shape"][0][0] == 2
    assert work["seeds"][0] == [2, 3]
    assert work["second"]


def test_guidance_reaches_the_model(found: dict[str, Any]) -> None:
    assert fact(found, "guidance")["change"] < ROUNDING


def test_noise_levels_are_our_schedulers_at_every_size(found: dict[str, Any]) -> None:
    schedule = fact(found, "schedule")
    assert len(schedule) == 4
    assert max(schedule.values()) < 1e-6


def test_noise_is_our_pipelines_in_every_precision(found: dict[str, Any]) -> None:
    assert fact(found, "noise") == {"torch.float32": True, "torch.bfloat16": True}


def test_prompts_are_padded_to_512_and_encoded_once(found: dict[str, Any]) -> None:
    work = fact(found, "work_done")
    assert work["first crop"]["texts"] == [[1, 512, 128]] * 2
    assert work["second crop"]["texts"] == []


def test_without_cfg_there_is_one_branch_and_no_negative_prompt(found: dict[str, Any]) -> None:
    work = fact(found, "work_done")
    assert work["first crop"]["rows"] == [2] * 4
    assert work["cfg 1"]["rows"] == work["cfg 0.5"]["rows"] == [1] * 4
    assert len(work["cfg 0.5"]["texts"]) == 1


def test_interruption_is_comfyuis_own_and_leaves_nothing_behind(found: dict[str, Any]) -> None:
    work = fact(found, "interrupted")
    assert work["ends"] == ["InterruptProcessingException"] * 2
    assert work["steps"] == [3, 0]
    assert work["same_after"]


def test_the_users_model_and_clip_are_as_before(found: dict[str, Any]) -> None:
    work = fact(found, "untouched")
    assert work["before"] == work["after"]
    assert "300" in work["before"][-1]  # the padding that the user had set
    assert work["samples_as_before"]


def test_nodes_for_other_times_and_paddings_change_nothing(found: dict[str, Any]) -> None:
    assert fact(found, "other_times")["same"]


def test_there_is_no_preview_without_colour_factors(found: dict[str, Any]) -> None:
    assert fact(found, "no_preview") == [True, True]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("FLUX.1-dev", "MODEL is FluxInpaint with 16 input channels"),
        ("FLUX.1-Depth", "MODEL is FluxInpaint with 32 input channels"),
        ("SD 1.5", "MODEL is SD15;"),
        ("no MODEL", "MODEL is empty"),
        ("video VAE", "VAE is not one for pictures"),
        ("SD VAE", "VAE is one with 4 latent channels"),
        ("no VAE", "VAE is empty"),
        ("CLIP alone", "CLIP is l; FLUX reads l + t5xxl"),
        ("no CLIP", "CLIP is empty"),
        ("600 words", "The prompt has 601 tokens; the model reads at most 512"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    found: dict[str, Any], what: str, words: str
) -> None:
    refusal = fact(found, "refusals")[what]
    assert refusal["said"].startswith(words)
    assert "Connect" in refusal["said"] or "Shorten" in refusal["said"]
    assert not refusal["ran"]
