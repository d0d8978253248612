"""POST /onereward/plan: what an edit would do, before it is paid for or waited for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import folder_paths
import torch
from aiohttp import web
from torch import Tensor

from ...backends import PREVIEW, auto_backend, auto_spec, resolve_backend, resolve_fal
from ...canvas.options import CanvasOptions
from ...config.json_values import parse
from ...config.preferences import load
from ...contracts import (
    ACCELERATION,
    MAX_IMAGES,
    Backend,
    BackendSpec,
    EditTask,
    FalSpec,
    LocalSpec,
    ModelSpec,
)
from ...edit.plan import BatchSize
from ...edit.recipes import CUSTOM, PRESETS
from ...errors import InputError, OneRewardError, at_fault
from ...estimate.estimator import EstimateRequest, NotKnownYet, PriceOf, estimate
from ...estimate.inputs import last_run, picture_size, read_mask
from .. import model_folders
from ..execution import user_folder
from ..io_types import CFG, STEPS
from .security import json_body, refusal

AT_ONCE = 2  # plans of huge pictures take memory
SILENCE = 30.0  # seconds until a service that gave no price is asked again
FOLDERS = ("input", "output", "temp")  # ComfyUI's, that pictures are looked for in
FIRST_RUN = "comes from another node, so what it is shows after the first run. Press Run once."
BACKENDS: dict[str, type[BackendSpec]] = {
    "OneRewardPreviewBackend": BackendSpec,
    "OneRewardFalBackend": FalSpec,
    "OneRewardLocalBackend": LocalSpec,
    "OneRewardModelBackend": ModelSpec,
}
SPEC_FIELDS = {"safety_checker": "enable_safety_checker"}  # the node's name, the spec's
NUMBERS = {"steps": STEPS, "cfg": CFG, "num_images": (1, MAX_IMAGES)}

_TURNS = asyncio.Semaphore(AT_ONCE)
_SILENT: dict[str, tuple[float, str]] = {}  # by server: until when, and its note instead


@dataclass(frozen=True)
class FileBody:
    """A picture of ComfyUI's folders, as GET /view names it, and for a mask its channel."""

    filename: str = ""
    subfolder: str = ""
    type: str = ""
    channel: str = "alpha"


@dataclass(frozen=True)
class BackendBody:
    """A connected backend node, by its id, and the values of its widgets."""

    node: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanBody:
    """What a page knows of an edit. A field may be left out, or null; both mean its default, but
    for steps, cfg and acceleration, where null says that another node makes the value.
    """

    node_id: Any = None
    image: FileBody | None = None
    mask: FileBody | None = None
    canvas: CanvasOptions | None = None
    backend: BackendBody | None = None
    preset: str = CUSTOM
    steps: int | None = 28
    cfg: float | None = 4.0
    acceleration: str | None = ACCELERATION
    num_images: int = 1
    extend_to: str = "16:9"
    anchor: str = "center"
    overlap: int = 24

    def __post_init__(self) -> None:
        for name, (low, high) in NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                with at_fault(name):
                    raise InputError(f"{name} {value:g} is out of range. Use {low:g} to {high:g}.")


WIRED = ("steps", "cfg", "acceleration")


async def answer(request: web.Request) -> web.Response:
    """What the edit in the request would do: its crops, size, price and time. Runs and loads no
    model, uploads nothing, and costs nothing.

    The body and the reply are JSON: PlanBody with "task", and what `estimate` returns. What is
    wrong is answered by 400 with {"error": text, "input": the node's input at fault}; what only a
    run can tell, by 409.
    """
    body = await json_body(request, this_machine_only=False)
    try:
        async with _TURNS:
            return web.json_response(await asyncio.to_thread(_estimate, body))
    except OneRewardError as error:
        return refusal(error, 409 if isinstance(error, NotKnownYet) else 400, error.input)


def _estimate(body: Mapping[str, Any]) -> dict[str, Any]:
    with torch.inference_mode():
        folder = user_folder()
        task, fields = _task(body.get("task")), plan_body(body)
        request = _request(task, fields, load(folder).canvas)
        note = ""
        with at_fault("backend"):
            spec = backend_spec(fields.backend)
            if spec is None:
                spec, note = auto_backend(folder, *auto_spec(model_folders))
            backend, price_of = _resolve(spec)
        return estimate(request, backend, spec.kind, price_of, [note])


def plan_body(body: Mapping[str, Any]) -> PlanBody:
    """The body's fields, checked; InputError with the input at fault."""
    given = {name: value for name, value in body.items() if value is not None or name in WIRED}
    return parse(PlanBody, given, "the body", unknown_fields="ignore")


def backend_spec(body: BackendBody | None) -> BackendSpec | None:
    """The connected backend; None if there is none.

    Raises:
        InputError: it is none of the pack's, or a field of it breaks a rule.
    """
    if body is None:
        return None
    kind = BACKENDS.get(body.node)
    if kind is None:
        raise InputError(f'"{body.node[:40]}" is no OneReward backend that can be planned for.')
    if kind is BackendSpec:
        return PREVIEW
    given = {SPEC_FIELDS.get(n, n): value for n, value in body.inputs.items() if n != "kind"}
    return parse(kind, given, "the backend", unknown_fields="ignore", input_name="backend")


def _task(name: object) -> EditTask:
    try:
        return EditTask(name)
    except ValueError:
        choices = ", ".join(task.value for task in EditTask)
        raise InputError(f'There is no task "{name}". Use {choices}.') from None


def _request(task: EditTask, body: PlanBody, user_canvas: CanvasOptions | None) -> EstimateRequest:
    """
    Args:
        user_canvas: for a node without one; None for the task's own defaults.
    """
    source, mask = _pixels(body, task)
    preset = PRESETS.get(body.preset)
    return EstimateRequest(
        task=task,
        source=source,
        mask=mask,
        canvas=body.canvas or user_canvas,
        steps=preset.steps if preset else body.steps,
        cfg=preset.cfg if preset else body.cfg,
        acceleration=body.acceleration,
        num_images=body.num_images,
        extend_to=body.extend_to,
        anchor=body.anchor,
        overlap=body.overlap,
    )


def _pixels(body: PlanBody, task: EditTask) -> tuple[BatchSize, Tensor | None]:
    """The pictures' size and their mask, from files, or from the node's last run."""
    last = last_run(str(body.node_id))
    with at_fault("image"):
        if body.image is not None:
            size = picture_size(find_file(body.image))
        elif last is not None:
            size = last.source
        else:
            raise NotKnownYet(f"The picture {FIRST_RUN}")
    if task is EditTask.EXTEND:
        return size, None
    with at_fault("mask"):
        if body.mask is not None:
            return size, read_mask(find_file(body.mask), body.mask.channel)
        if last is None or not last.source.same_canvas(size):
            raise NotKnownYet(f"The mask {FIRST_RUN}")
        if last.mask is None:
            raise InputError("The mask of the last run was too large to be kept, so there is none.")
        return size, last.mask


def find_file(file: FileBody) -> str:
    """The path of a file in ComfyUI's input, output or temp folder, as LoadImage finds it.

    Raises:
        InputError: it is not there, or the name leads out of the folder.
    """
    filename, subfolder, kind = file.filename, file.subfolder, file.type
    folder = folder_paths.get_directory_by_type(kind) if kind in FOLDERS else None
    if folder is None:
        raise InputError(f'There is no folder "{kind}". Use one of: {", ".join(FOLDERS)}.')
    folder = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(folder, subfolder, filename))
    inside = path.startswith(os.path.join(folder, ""))
    if not inside or not filename or "\0" in path or ".." in f"{subfolder}/{filename}":
        raise InputError(f'"{filename}" does not lie in the {kind} folder. Choose a file there.')
    if not os.path.isfile(path):
        raise InputError(
            f'There is no "{filename}" in ComfyUI\'s {kind} folder. Choose another, or press R.'
        )
    return path


def _resolve(spec: BackendSpec) -> tuple[Backend, PriceOf | None]:
    """The backend, as a run would have it, and what it asks for its work, if it costs any."""
    folder = user_folder()
    if not isinstance(spec, FalSpec):
        return resolve_backend(spec, folder, model_folders), None
    fal = resolve_fal(spec, folder)

    def price_of(pixels: Sequence[int]) -> tuple[float | None, str]:
        until, note = _SILENT.get(spec.server, (0.0, ""))
        if time.monotonic() < until:
            return None, note
        price, note = fal.estimate_price(pixels)
        if price is None:
            _SILENT[spec.server] = time.monotonic() + SILENCE, note
        return price, note

    return fal, price_of
