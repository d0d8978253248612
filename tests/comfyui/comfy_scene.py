"""A picture much larger than a crop, and API prompts that edit it on fal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from comfy_server import ComfyUI, Run
from PIL import Image

NAME = "scene.png"
WIDTH, HEIGHT = 1600, 1200
# The painted box: left, top, width, height. The blend ends `REACH` px outside it.
BOX = (900, 500, 200, 150)
REACH = 8 + 16

Prompt = dict[str, Any]


def scene() -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]: no two places look alike."""
    return np.random.default_rng(5).integers(40, 215, (HEIGHT, WIDTH, 3), np.uint8)


def put_scene(folder: Path) -> None:
    """Lay the picture where Load Image of that ComfyUI finds it."""
    Image.fromarray(scene()).save(folder / "input" / NAME)


def fill_on_fal(seed: int, **spec: Any) -> Prompt:
    """Fill the box on fal, prove it and save it. Nodes: fal, fill, proof, save and what they need.

    Args:
        spec: values of OneReward Fal Backend that differ from its defaults.
    """
    return {
        "picture": _node("LoadImage", image=NAME),
        "fal": fal_backend(**spec),
        **_mask(),
        "fill": fill(seed, backend=["fal", 0]),
        "proof": _node(
            "OneRewardProof", before=["picture", 0], after=["fill", 0], mask=["fill", 1],
            report=["fill", 3],
        ),
        "save": _node("SaveImage", images=["fill", 0], filename_prefix="fal"),
    }  # fmt: skip


def fills_on_fal(*seeds: int) -> Prompt:
    """A Fill node for each seed, named by it; they do not wait for each other."""
    prompt = fill_on_fal(0)
    for name in ("fill", "proof", "save"):
        del prompt[name]
    for seed in seeds:
        prompt[str(seed)] = fill(seed, backend=["fal", 0])
        prompt[f"shown {seed}"] = _node("PreviewImage", images=[str(seed), 0])
    return prompt


def fill(seed: int, **wires: Any) -> Prompt:
    """The task node alone."""
    values = {"prompt": "a door", "seed": seed, "steps": 28, "cfg": 4.0, "num_images": 1}
    return _node("OneRewardFill", image=["picture", 0], mask=["mask", 0], **values, **wires)


def fal_backend(**spec: Any) -> Prompt:
    """The backend node, with defaults for what `spec` leaves out."""
    defaults = {
        "server": "fal", "output_format": "png", "private": False, "safety_checker": True,
        "on_flagged": "raise", "run_cap": 5.0, "session_cap": 20.0, "parallel_jobs": 4,
        "start_deadline": 0, "deadline": 900, "priority": "normal",
    }  # fmt: skip
    return _node("OneRewardFalBackend", **(defaults | spec))


def collect(request_id: str) -> Prompt:
    """Fetch a job's crop by its id, show it and its report."""
    return {
        "collect": _node("OneRewardCollect", request_id=request_id),
        "shown": _node("PreviewImage", images=["collect", 0]),
        "said": _node("PreviewAny", source=["collect", 2]),
    }


def succeeded(comfyui: ComfyUI, prompt: Mapping[str, Any]) -> Run:
    """Run a prompt that must end well."""
    run = comfyui.run(prompt)
    assert run.status == "success", run.message("execution_error")
    return run


def error_of(run: Run) -> str:
    """The type and the words of the error that a run ended with."""
    error = run.message("execution_error")
    assert error is not None, run
    return f"{error['exception_type']}: {error['exception_message']}"


def _mask() -> Prompt:
    left, top, width, height = BOX
    return {
        "blank": _node("SolidMask", value=0.0, width=WIDTH, height=HEIGHT),
        "box": _node("SolidMask", value=1.0, width=width, height=height),
        "mask": _node(
            "MaskComposite", destination=["blank", 0], source=["box", 0], x=left, y=top,
            operation="add",
        ),
    }  # fmt: skip


def _node(kind: str, **inputs: Any) -> Prompt:
    return {"class_type": kind, "inputs": inputs}
