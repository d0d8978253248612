"""Our parts among ComfyUI's models, in a real ComfyUI's process: counted, moved, and left right.

What is judged here comfy_memory_cases.py finds out; ComfyUI is not imported by the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comfy_server import environment
from comfy_source import comfyui_source

pytestmark = pytest.mark.comfy

CASES = Path(__file__).with_name("comfy_memory_cases.py")
RESERVED = 0.001  # GB
PARTS = ["transformer", "t5", "clip", "vae"]
ONCE = dict.fromkeys(PARTS, 1)
ALL, WITHOUT_T5 = "fp32 resident, T5 resident", "fp32 resident, T5 on demand"
STREAMED = "fp32 4 of 4 blocks streamed, T5 on demand"
PROMPTS = [[1, 512, 64]] * 2  # what T5 made of them is kept, on the host


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    options = ["--cpu", "--reserve-vram", str(RESERVED)]
    done = subprocess.run(
        [sys.executable, str(CASES), str(comfyui_source()), str(folder), *options],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    failed = {name: case["error"] for name, case in found.items() if "error" in case}
    assert not failed, "\n".join(failed.values())
    return found


def test_comfyui_counts_each_part_once_with_the_bytes_it_takes(facts: dict[str, Any]) -> None:
    case = facts["books"]
    assert case["listed"] == PARTS
    assert case["wrong"] == []
    assert all(size > 10**6 for size in case["sizes"].values())


def test_a_part_is_loaded_once_while_there_is_room(facts: dict[str, Any]) -> None:
    case = facts["books"]
    assert case["loads"] == case["loads_after"] == ONCE
    assert case["right"] == [True, True]


def test_nothing_made_in_comfyuis_inference_mode_is_marked_by_it(facts: dict[str, Any]) -> None:
    assert facts["books"]["of_inference_mode"] == 0


@pytest.mark.parametrize("words", [ALL, WITHOUT_T5, STREAMED])
def test_a_card_of_any_size_is_never_filled_over_and_keeps_what_its_plan_keeps(
    facts: dict[str, Any], words: str
) -> None:
    case = facts["plans"][words]
    assert case["right"] == [True, True]
    assert case["over"] <= 0
    assert case["wrong"] == []
    assert case["listed"] == (PARTS if words == ALL else ["transformer", "vae"])
    text = 1 if words == ALL else 2  # once per prompt
    assert case["loads"] == ONCE | {"t5": text, "clip": text}


def test_what_another_program_takes_of_the_reserve_moves_nothing_of_ours(
    facts: dict[str, Any],
) -> None:
    assert facts["neighbour"] == {"plan": ALL, "listed": PARTS, "loads": ONCE}


def test_another_node_s_model_moves_ours_out_only_where_it_needs_the_room(
    facts: dict[str, Any],
) -> None:
    case = facts["others"]
    assert case["beside"] == {"listed": PARTS, "small": 40}
    assert case["after"] == {"listed": [], "held": 0, "large": 180}
    assert case["wrong"] == []


def test_ours_moves_another_node_s_model_out(facts: dict[str, Any]) -> None:
    case = facts["others"]
    assert case["again"]["right"]
    assert "transformer" in case["again"]["listed"]
    assert case["again"]["large"] < 180
    assert case["over"] <= 0


@pytest.mark.parametrize("words", [ALL, STREAMED])
def test_unloading_all_models_leaves_no_weight_and_the_next_run_paints_the_same(
    facts: dict[str, Any], words: str
) -> None:
    case = facts["unload_all"][words]
    assert case["before"] > 100
    assert case["left"] == PROMPTS
    assert (case["bytes"], case["listed"], case["with_data"], case["rows"]) == ([0] * 4, [], 0, 0)
    assert case["right"]
    assert case["wrong"] == []
    assert case["loads"] == {"transformer": 2, "t5": 1, "clip": 1, "vae": 2}


def test_a_card_that_is_full_in_the_middle_of_a_step_gets_the_next_plan(
    facts: dict[str, Any],
) -> None:
    cases = facts["out_of_memory"]
    assert "torch" in cases
    for case in cases.values():
        assert case["rungs"] == [0, 1]
        assert case["said"] == "The card's memory ran out; trying with less."
        assert case["right"] == [True, True]
        assert case["wrong"] == []


def test_a_run_stopped_anywhere_leaves_true_books_and_the_next_one_is_right(
    facts: dict[str, Any],
) -> None:
    assert len(facts["interrupted"]) == 6
    for words, case in facts["interrupted"].items():
        assert case["stopped"], words
        assert case["wrong"] == [], words
        assert case["right"], words
        assert ("transformer" in case["listed"]) == words.endswith("transformer whole"), words


def test_a_text_encoder_that_is_stopped_on_its_way_back_leaves_none_uncounted(
    facts: dict[str, Any],
) -> None:
    case = facts["interrupted_reload"]
    assert case["stopped"] and "t5" not in case["listed"]
    assert case["wrong"] == []
    assert case["right"]


def test_the_plan_leaves_free_what_comfyui_was_told_to_reserve(facts: dict[str, Any]) -> None:
    case = facts["reserve"]
    assert case["reserved"] == pytest.approx(RESERVED, rel=1e-3)
    assert (case["with"]["rung"], case["without"]["rung"]) == (1, 0)
    assert case["with"]["left"] >= RESERVED * 1024**3
    assert case["with"]["right"] and case["without"]["right"]


def test_two_models_in_turn_keep_apart_and_only_one_stays(facts: dict[str, Any]) -> None:
    case = facts["in_turn"]
    assert case["right"] == [True, False, True]
    assert case["listed"] == case["loaded"] == case["there"] == 4
    assert case["wrong"] == []
