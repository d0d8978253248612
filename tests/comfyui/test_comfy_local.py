"""Models of the user's own in a real ComfyUI: menus, missing files, and a tiny FLUX.1-Fill run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_graph import MODEL_BACKEND, api_prompt, load, needs_files, task_node, workflow_files
from comfy_scene import error_of
from comfy_server import PACK, RUN_LIMIT, ComfyUI, ComfyUIError, base_directory, running
from comfy_socket import listening
from fakes.layouts import write_clip, write_pipeline, write_t5, write_transformer, write_vae
from fakes.tiny_flux import tiny_flux_fill

pytestmark = pytest.mark.comfy

LOCAL = "OneRewardLocalBackend"
TRANSFORMER = "disk/tiny-OneReward.safetensors"
PIPELINE, MISPLACED = "fill-pipeline/", "l.safetensors"
NEED_FILES = [path for path in workflow_files() if needs_files(path)]
FILL = PACK / "example_workflows" / "Fill (your own GPU).json"


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """A ComfyUI with a tiny FLUX.1-Fill in its folders, the transformer on another disk, where
    another one is whole in diffusers' form; and with a CLIP among its transformers.
    """
    home = tmp_path_factory.mktemp("stocked")
    folder, flux = base_directory(home / "base"), tiny_flux_fill()
    places = {
        write_transformer(home, flux.transformer).path: home / "more/unets" / TRANSFORMER,
        write_t5(home, flux.text_encoder_2).path: folder / "models/text_encoders/t5.safetensors",
        write_clip(home, flux.text_encoder).path: folder / "models/clip/l.safetensors",
        write_vae(home, flux.vae).path: folder / "models/vae/ae.safetensors",
        folder / "models/clip/l.safetensors": folder / f"models/diffusion_models/{MISPLACED}",
    }
    for written, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(written, place)
    shards = home / "more/unets/sharded"
    shards.mkdir()
    for name in ("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "old.ckpt"):
        (shards / name).touch()
    (shards / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    write_pipeline(home / "more/whole" / PIPELINE, tiny_flux_fill(seed=3))
    paths = home / "paths.yaml"
    kinds = "    diffusion_models: unets\n    diffusers: whole\n"
    paths.write_text(f"mine:\n    base_path: {home / 'more'}\n{kinds}")
    with running(folder, "--extra-model-paths-config", str(paths)) as server:
        yield server


def fill_prompt(comfyui: ComfyUI, **spec: Any) -> tuple[dict[str, Any], str]:
    """The Fill example in one step, with other values in its backend node, whose id comes too."""
    prompt = api_prompt(load(FILL), comfyui.get("/object_info"))
    [backend] = [key for key, node in prompt.items() if node["class_type"] == LOCAL]
    prompt[backend]["inputs"] |= spec
    prompt[task_node(prompt)]["inputs"] |= {"steps": 1}
    return prompt, backend


def pixels(comfyui: ComfyUI, shown: dict[str, str]) -> np.ndarray:
    return np.asarray(comfyui.picture(shown)).astype(int)


def test_the_menus_offer_what_lies_in_comfyuis_folders_and_on_other_disks(
    stocked: ComfyUI,
) -> None:
    info = stocked.get(f"/object_info/{LOCAL}")[LOCAL]["input"]["required"]
    options = {name: info[name][1]["options"] for name in ("transformer", "t5xxl", "vae", "lora")}
    files = [TRANSFORMER, PIPELINE, MISPLACED, "sharded/m.safetensors.index.json"]
    assert options == {
        "transformer": ["auto", *files],
        "t5xxl": ["auto", "l.safetensors", "t5.safetensors"],
        "vae": ["auto", "ae.safetensors"],
        "lora": ["none"],
    }


def test_the_example_finds_the_files_says_which_and_paints_the_mask_alone(
    stocked: ComfyUI,
) -> None:
    prompt, backend = fill_prompt(stocked)
    task = task_node(prompt)
    before = prompt[task]["inputs"]["image"]
    prompt |= {
        name: {"class_type": "PreviewImage", "inputs": {"images": source}}
        for name, source in {"before": before, "after": [task, 0]}.items()
    }
    with listening(stocked) as ear:
        end = ear.end_of(stocked.queue(prompt, ear.client_id))
    assert end.name == "execution_success", end.data
    assert ear.lines(backend) == [f"{TRANSFORMER}, t5.safetensors, l.safetensors, ae.safetensors"]
    prompt_id = end.data["prompt_id"]
    stocked.wait(lambda: bool(stocked.get(f"/history/{prompt_id}")), RUN_LIMIT)
    outputs = stocked.finished(prompt_id).outputs
    old, new = (pixels(stocked, outputs[name]["images"][0]) for name in ("before", "after"))
    touched = (old != new).any(axis=-1)
    rows, columns = touched.any(axis=1).nonzero()[0], touched.any(axis=0).nonzero()[0]
    reach = 8 + 16  # the example's box, what it grows by, and the blend
    assert 630 - reach <= columns.min() < 630 + 20 and 746 - 20 <= columns.max() < 746 + reach
    assert 185 - reach <= rows.min() < 185 + 20 and 325 - 20 <= rows.max() < 325 + reach


@pytest.mark.parametrize(("spec", "words"), [
    ({"transformer": "a.safetensors"}, ('no "a.safetensors"', "models/diffusion_models", "http")),
    ({"transformer": "../../secret.safetensors"}, ('no "../../secret.safetensors"',)),
    ({"clip_l": "t5.safetensors"}, ("t5.safetensors is", "CLIP-L")),
    ({"vae": "gone.safetensors", "lora": "gone.safetensors"}, ('no "gone.safetensors"', "vae")),
])  # fmt: skip
def test_a_file_that_is_not_there_or_another_is_explained_once_at_the_node_that_names_it(
    stocked: ComfyUI, spec: dict[str, str], words: tuple[str, ...]
) -> None:
    prompt, backend = fill_prompt(stocked, **spec)
    run = stocked.run(prompt)
    error = run.message("execution_error")
    assert error is not None and error["node_id"] == backend
    said = error_of(run)
    assert "ModelNotFoundError" in said or "CheckpointError" in said
    assert [word for word in words if word not in said] == []


def test_a_number_out_of_range_is_still_refused_by_the_queue(stocked: ComfyUI) -> None:
    with pytest.raises(ComfyUIError, match="bigger than max of 4.0"):
        stocked.queue(fill_prompt(stocked, lora_strength=5.0)[0])


def test_without_a_gpu_the_auto_rule_passes_the_files_by_and_says_so(stocked: ComfyUI) -> None:
    prompt, _ = fill_prompt(stocked)
    task = task_node(prompt)
    del prompt[task]["inputs"]["backend"]
    with listening(stocked) as ear:
        end = ear.end_of(stocked.queue(prompt, ear.client_id))
    assert end.name == "execution_success", end.data
    said = f"{TRANSFORMER} is there, but no GPU that can hold it."
    assert "not OneReward" in ear.lines(task)[0] and said in ear.lines(task)[0]
    status = stocked.get("/onereward/status")
    assert status["backend"] == "preview" and said in status["note"]


def test_the_example_with_comfyuis_own_loaders_gets_as_far_as_the_files(stocked: ComfyUI) -> None:
    [path] = [path for path in NEED_FILES if path.stem.endswith("(ComfyUI model)")]
    graph = load(path)
    models = [m for node in graph["nodes"] for m in node["properties"].get("models", ())]
    empty = [stocked.folder / "models" / m["directory"] / m["name"] for m in models]
    missing = [file for file in empty if not file.exists()]
    for file in missing:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    run = stocked.run(api_prompt(graph, stocked.get("/object_info")))  # nothing to refuse
    for file in missing:
        file.unlink()
    error = run.message("execution_error")
    assert error is not None
    assert error["node_type"] in ("UNETLoader", "DualCLIPLoader", "VAELoader")


@dataclass(frozen=True)
class Painted:
    """A run of the Fill example on the pipeline folder, with previews: before, after, touched."""

    prompt: dict[str, Any]
    pictures: dict[str, np.ndarray]


def shown(comfyui: ComfyUI, prompt: dict[str, Any]) -> dict[str, np.ndarray]:
    run = comfyui.run(prompt)
    assert run.status == "success", run.message("execution_error")
    task = task_node(prompt)
    cached = run.message("execution_cached")
    assert cached is not None and task not in cached["nodes"]
    names = ("before", "after", "touched")
    return {name: pixels(comfyui, run.outputs[name]["images"][0]) for name in names}


def loads(comfyui: ComfyUI) -> int:
    """How often ComfyUI has loaded a part of ours so far."""
    return comfyui.log.read_text("utf-8").count("OneReward loads ")


@pytest.fixture(scope="module")
def painted(stocked: ComfyUI) -> Painted:
    prompt, _ = fill_prompt(stocked, transformer=PIPELINE)
    task = task_node(prompt)
    prompt[task]["inputs"] |= {"steps": 2, "seed": 5}
    sources = {
        "before": prompt[task]["inputs"]["image"],
        "after": [task, 0],
        "touched": ["ones", 0],
    }
    # every pixel that was touched, however faintly: 8 bits would round the blend's foot to 0
    prompt["any"] = {"class_type": "ThresholdMask", "inputs": {"mask": [task, 1], "value": 0.0}}
    prompt["ones"] = {"class_type": "MaskToImage", "inputs": {"mask": ["any", 0]}}
    for name, source in sources.items():
        prompt[name] = {"class_type": "PreviewImage", "inputs": {"images": source}}
    return Painted(prompt, shown(stocked, prompt))


def again(comfyui: ComfyUI, painted: Painted, seed: int = 5) -> np.ndarray:
    """What the same graph paints when ComfyUI remembers nothing of it; loads nothing by itself."""
    prompt = json.loads(json.dumps(painted.prompt))
    prompt[task_node(prompt)]["inputs"]["seed"] = seed
    return shown(comfyui, prompt)["after"]


def test_every_pixel_outside_the_mask_is_the_picture_s_own(painted: Painted) -> None:
    before, after, touched = (painted.pictures[name] for name in ("before", "after", "touched"))
    kept = touched[..., 0] == 0
    assert kept.mean() > 0.5
    assert np.array_equal(after[kept], before[kept])
    assert np.abs(after[~kept] - before[~kept]).mean() > 1


def test_models_stay_between_runs_and_the_button_that_frees_them_changes_no_picture(
    stocked: ComfyUI, painted: Painted
) -> None:
    loaded = loads(stocked)
    other = again(stocked, painted, seed=6)
    assert not np.array_equal(other, painted.pictures["after"])
    assert loads(stocked) == loaded
    stocked.free()
    assert np.array_equal(again(stocked, painted), painted.pictures["after"])
    assert loads(stocked) == loaded + 2  # the prompt is known, so no text encoder is needed


def test_cancel_ends_a_run_within_a_few_steps_and_the_next_one_is_right(
    stocked: ComfyUI, painted: Painted
) -> None:
    prompt = json.loads(json.dumps(painted.prompt))
    prompt[task_node(prompt)]["inputs"] |= {"steps": 100, "seed": 7}
    with listening(stocked) as ear:
        prompt_id = stocked.queue(prompt, ear.client_id)
        ear.wait(lambda m: m.name == "progress" and m.data["value"] >= 2)
        stocked.post("/interrupt", {})
        end = ear.end_of(prompt_id)
    assert end.name == "execution_interrupted", end.data
    assert ear.steps() < 30
    stocked.free()
    assert np.array_equal(again(stocked, painted), painted.pictures["after"])


def test_a_clip_among_the_transformers_is_refused_and_nothing_else_breaks(
    stocked: ComfyUI, painted: Painted
) -> None:
    loaded = loads(stocked)
    prompt, backend = fill_prompt(stocked, transformer=MISPLACED)
    run = stocked.run(prompt)
    error = run.message("execution_error")
    assert error is not None and error["node_id"] == backend
    said = error["exception_message"].strip()
    assert error["exception_type"].endswith("CheckpointError")
    assert said.startswith(f"{MISPLACED} is a CLIP") and "FLUX.1-Fill" in said
    assert "\n" not in said
    assert not np.array_equal(again(stocked, painted, seed=8), painted.pictures["after"])
    assert loads(stocked) == loaded, "what was loaded stayed"


@pytest.mark.parametrize("path", NEED_FILES, ids=[path.stem for path in NEED_FILES])
def test_an_example_without_its_files_is_refused_with_what_is_missing(
    comfyui: ComfyUI, object_info: dict[str, Any], path: Path
) -> None:
    prompt = api_prompt(load(path), object_info)
    if MODEL_BACKEND in {node["class_type"] for node in prompt.values()}:
        # ComfyUI's own loaders, in ComfyUI's own words
        with pytest.raises(ComfyUIError, match="unet_name: 'flux.1-fill-dev-OneReward-transformer"):
            comfyui.queue(prompt)
        return
    run = comfyui.run(prompt)
    error = run.message("execution_error")
    assert error is not None and error["node_type"] == LOCAL
    said = error_of(run)
    assert "ModelNotFoundError: There is no OneReward or FLUX.1-Fill transformer" in said
    assert "models/diffusion_models" in said and "https://huggingface.co/Comfy-Org/" in said
