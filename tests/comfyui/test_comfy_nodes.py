"""The nodes that no example workflow shows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from comfy_graph import api_prompt, fill_example, load, task_node
from comfy_server import ComfyUI

pytestmark = pytest.mark.comfy


def fill_prompt(object_info: dict[str, Any], **inputs: Any) -> tuple[dict[str, Any], str]:
    """The Fill example with other values in its task node, and that node's id."""
    prompt = api_prompt(load(fill_example()), object_info)
    task = task_node(prompt)
    prompt[task]["inputs"] |= {"steps": 2, **inputs}
    return prompt, task


def test_canvas_options_reach_the_edit_and_the_proof_measures_it(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt, task = fill_prompt(object_info, canvas=["canvas", 0], num_images=2, seed=11)
    hard = {"grow": 0, "blend": 0, "context": 2.0, "target": "auto", "regions": "one crop"}
    prompt["canvas"] = {
        "class_type": "OneRewardCanvas",
        "inputs": {**hard, "seam": 0.5, "clean": True, "invert": False},
    }
    before = prompt[task]["inputs"]["image"]
    wires = {"before": before, "after": [task, 0], "mask": [task, 1], "report": [task, 3]}
    prompt["proof"] = {"class_type": "OneRewardProof", "inputs": wires}
    run = comfyui.run(prompt)
    assert run.status == "success", run.message("execution_error")
    [text] = run.outputs["proof"]["text"]
    for line in ("image 1: largest change outside the blend 0,", "image 2: largest change"):
        assert line in text
    assert "denoise" in text
    # A hard edge: the blend is the painted box of 116 x 140 px and nothing else.
    shares = re.findall(r"([\d.]+)% of the picture inside", text)
    assert shares == [f"{100 * 116 * 140 / 768**2:.1f}"] * 2


def test_canvas_options_out_of_range_are_refused_with_the_range(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt, _ = fill_prompt(object_info, canvas=["canvas", 0])
    wrong = {"grow": 8, "blend": 16, "context": 1.5, "target": "huge", "regions": "one crop"}
    prompt["canvas"] = {
        "class_type": "OneRewardCanvas",
        "inputs": {**wrong, "seam": 1.0, "clean": True, "invert": False},
    }
    error = comfyui.run(prompt).message("execution_error")
    assert error is not None
    assert "'huge' is not understood" in error["exception_message"]


def test_a_preset_goes_before_the_widgets_and_the_report_says_so(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt, task = fill_prompt(object_info, preset="fast (cfg 1)", seed=12)
    prompt["said"] = {"class_type": "PreviewAny", "inputs": {"source": [task, 3]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.message("execution_error")
    [text] = run.outputs["said"]["text"]
    assert "20 steps, cfg 1, guidance 30, seed 12" in text
    assert text.splitlines()[-1] == "preset fast (cfg 1): 20 steps, cfg 1, guidance 30"


@pytest.mark.parametrize("way", ["pad for outpainting", "invert mask", "canvas invert"])
def test_what_is_left_free_in_the_middle_of_the_mask_stays(
    comfyui: ComfyUI, object_info: dict[str, Any], way: str
) -> None:
    """In core's own nodes; the proof measures by the mask that went in, not by the edit's."""
    prompt, task = fill_prompt(object_info, seed=13, steps=1)
    picture, kept = prompt[task]["inputs"]["image"], prompt[task]["inputs"]["mask"]
    options = {"grow": 8, "blend": 16, "context": 1.5, "target": "auto", "regions": "per region"}
    invert = way == "canvas invert"
    prompt["canvas"] = {
        "class_type": "OneRewardCanvas",
        "inputs": {**options, "seam": 1.0, "clean": True, "invert": invert},
    }
    if way == "pad for outpainting":
        sides = dict.fromkeys(("left", "top", "right", "bottom"), 128)
        inputs = {"image": picture, "feathering": 40, **sides}
        prompt["free"] = {"class_type": "ImagePadForOutpaint", "inputs": inputs}
        picture, mask = ["free", 0], ["free", 1]
    elif way == "invert mask":
        prompt["free"] = {"class_type": "InvertMask", "inputs": {"mask": kept}}
        mask = ["free", 0]
    else:
        mask = kept
    prompt[task]["inputs"] |= {"image": picture, "mask": mask, "canvas": ["canvas", 0]}
    wires = {"before": picture, "after": [task, 0], "mask": [task, 1], "painted": mask}
    prompt["proof"] = {"class_type": "OneRewardProof", "inputs": wires | {"canvas": ["canvas", 0]}}
    run = comfyui.run(prompt)
    assert run.status == "success", run.message("execution_error")
    [text] = run.outputs["proof"]["text"]
    measured = r"outside grow \+ blend \(24 px\) of the painted mask 0, ([0-9.]+)%"
    [inside] = re.findall(measured, text)
    assert 40 < float(inside) < 99.9  # the rest is the middle, and it stayed
