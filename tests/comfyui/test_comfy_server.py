"""The pack inside a real ComfyUI, over HTTP: nodes, example workflows, interruption, errors."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_graph import (
    BACKENDS,
    MODEL_BACKEND,
    TASKS,
    api_prompt,
    fill_example,
    load,
    needs_files,
    runs_on_fal,
    task_node,
    workflow_files,
)
from comfy_server import (
    PACK,
    PACK_FOLDER,
    ComfyUI,
    Run,
    base_directory,
    command,
    environment,
)
from comfy_socket import listening
from fakes.fal_server import FalServer

pytestmark = pytest.mark.comfy

NODE_ID = re.compile(r'node_id="(\w+)"')
WORKFLOWS = workflow_files()
RUNNABLE = [path for path in WORKFLOWS if not needs_files(path)]
each_runnable = pytest.mark.parametrize("path", RUNNABLE, ids=[path.stem for path in RUNNABLE])


def our_nodes(object_info: dict[str, Any]) -> dict[str, Any]:
    module = f"custom_nodes.{PACK_FOLDER}"
    return {name: info for name, info in object_info.items() if info["python_module"] == module}


def declared_node_ids() -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in PACK.glob("nodes/comfyui/*_nodes.py")]
    return {found for source in sources for found in NODE_ID.findall(source)}


def pixels(comfyui: ComfyUI, run: Run, node_id: str) -> np.ndarray:
    [shown] = run.outputs[node_id]["images"]
    return np.asarray(comfyui.picture(shown)).astype(int)


def probed(prompt: dict[str, Any]) -> dict[str, Any]:
    """The prompt with previews of what went into its task node and what came out."""
    task = task_node(prompt)
    picture = prompt[task]["inputs"]["image"]
    return prompt | {
        "before": {"class_type": "PreviewImage", "inputs": {"images": picture}},
        "after": {"class_type": "PreviewImage", "inputs": {"images": [task, 0]}},
        # every touched pixel, however faintly: 8 bits would round the blend's foot to 0
        "touched": {"class_type": "ThresholdMask", "inputs": {"mask": [task, 1], "value": 0.0}},
        "touched image": {"class_type": "MaskToImage", "inputs": {"mask": ["touched", 0]}},
        "touched shown": {"class_type": "PreviewImage", "inputs": {"images": ["touched image", 0]}},
    }


def fill_prompt(object_info: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """The Fill example with other values in its task node."""
    prompt = api_prompt(load(fill_example()), object_info)
    prompt[task_node(prompt)]["inputs"] |= inputs
    return prompt


def test_every_node_of_the_pack_is_offered(object_info: dict[str, Any]) -> None:
    assert declared_node_ids()
    assert set(our_nodes(object_info)) == declared_node_ids()


def test_every_node_input_and_output_explains_itself(object_info: dict[str, Any]) -> None:
    silent = []
    for name, info in our_nodes(object_info).items():
        silent += [name] * (not info["description"])
        for group in ("required", "optional"):
            for key, (_, *options) in info["input"].get(group, {}).items():
                silent += [f"{name}.{key}"] * (not (options and options[0].get("tooltip")))
        tooltips = info["output_tooltips"]
        silent += [f"{name} -> {i}" for i, tooltip in enumerate(tooltips) if not tooltip]
    assert not silent


def test_every_task_has_an_example_workflow_on_every_backend(object_info: dict[str, Any]) -> None:
    prompts = [api_prompt(load(path), object_info) for path in WORKFLOWS]
    used = [{node["class_type"] for node in prompt.values()} for prompt in prompts]
    for backend, task in product(BACKENDS, TASKS):
        assert sum({backend, task} <= kinds for kinds in used) == 1, (backend, task)
    assert sum(MODEL_BACKEND in kinds for kinds in used) == 1


def test_the_template_list_names_every_example(comfyui: ComfyUI) -> None:
    offered = comfyui.get("/api/workflow_templates")[PACK_FOLDER]
    assert sorted(offered) == [path.stem for path in WORKFLOWS]


@each_runnable
def test_the_example_runs_and_changes_nothing_outside_its_mask(
    comfyui: ComfyUI, object_info: dict[str, Any], fal: FalServer, path: Path
) -> None:
    prompt = api_prompt(load(path), object_info)
    # Not the example's own seed: what the browser's test has paid for would come from the journal.
    prompt[task_node(prompt)]["inputs"] |= {"seed": 1001, "steps": 4}
    run = comfyui.run(probed(prompt))
    assert run.status == "success", run.message("execution_error")
    assert bool(fal.requests) == bool(fal.paid) == runs_on_fal(path)
    for node_id in set(run.outputs) & set(prompt):
        if "images" in run.outputs[node_id]:
            assert pixels(comfyui, run, node_id).std() > 1
    before, after, touched = (
        pixels(comfyui, run, name) for name in ("before", "after", "touched shown")
    )
    before, offset = on_canvas(before, after.shape)
    kept = touched[..., 0] == 0
    assert kept.any() and not kept.all()
    assert offset >= 0
    assert np.array_equal(after[kept], before[kept])
    assert np.abs(after[~kept] - before[~kept]).mean() > 1


def on_canvas(picture: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The picture centred on black of that shape, and the smaller of its two offsets."""
    height, width = picture.shape[:2]
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    canvas = np.zeros(shape, picture.dtype)
    canvas[top : top + height, left : left + width] = picture
    return canvas, min(top, left)


def test_the_same_run_again_is_answered_from_the_cache(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt = fill_prompt(object_info, steps=2, seed=7)
    comfyui.run(prompt)
    again = comfyui.run(prompt)
    cached = again.message("execution_cached")
    assert again.status == "success"
    assert cached is not None and task_node(prompt) in cached["nodes"]


def test_cancel_ends_a_run_within_a_few_steps_and_the_next_run_works(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    with listening(comfyui) as ear:
        prompt_id = comfyui.queue(fill_prompt(object_info, steps=100, seed=101), ear.client_id)
        ear.wait(lambda m: m.name == "progress" and m.data["value"] >= 2)
        comfyui.post("/interrupt", {})
        end = ear.end_of(prompt_id)
    assert end.name == "execution_interrupted", end.data
    assert ear.steps() < 30
    assert comfyui.run(fill_prompt(object_info, steps=2, seed=102)).status == "success"


def test_a_mask_of_another_shape_fails_with_both_sizes_and_a_remedy(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt = fill_prompt(object_info, mask=["odd", 0])
    prompt["odd"] = {
        "class_type": "SolidMask",
        "inputs": {"value": 1.0, "width": 300, "height": 200},
    }
    run = comfyui.run(prompt)
    error = run.message("execution_error")
    assert run.status == "error"
    assert error is not None
    assert error["node_type"] == "OneRewardFill"
    assert error["exception_type"].endswith("InputError")
    assert "300" in error["exception_message"] and "768" in error["exception_message"]


def test_an_empty_mask_gives_the_picture_back(
    comfyui: ComfyUI, object_info: dict[str, Any]
) -> None:
    prompt = fill_prompt(object_info)
    picture = prompt[task_node(prompt)]["inputs"]["image"][0]
    # example.png has no alpha, so this is Load Image's 64x64 mask of zeros
    prompt[task_node(prompt)]["inputs"]["mask"] = [picture, 1]
    run = comfyui.run(probed(prompt))
    assert run.status == "success", run.message("execution_error")
    assert np.array_equal(pixels(comfyui, run, "before"), pixels(comfyui, run, "after"))


def test_the_import_loads_no_model_library_and_no_client(tmp_path: Path) -> None:
    folder = base_directory(tmp_path / "base")
    start = [sys.executable, "-X", "importtime", *command(folder, "--quick-test-for-ci")]
    done = subprocess.run(start, capture_output=True, text=True, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    times = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    loaded = [line.rsplit("|", 1)[1].strip() for line in times]
    ours = [name for name in loaded if f"custom_nodes/{PACK_FOLDER}" in name]
    assert any(name.endswith(".nodes.comfyui.extension") for name in ours)
    assert not [name for name in loaded if name.split(".")[0] in ("diffusers", "accelerate")]
    assert not [name for name in ours if ".local_backend" in name]
    # The menu of servers is read; the client, and requests with it, waits for a run.
    remote = {name.rpartition(".nodes.")[2] for name in ours if ".nodes.fal" in name}
    assert remote == {"fal", "fal.endpoints"}
