"""From what a page sends to a PlanRequest: every field is looked at before it is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from ..backends import PREVIEW
from ..canvas.options import CanvasOptions
from ..contracts import ACCELERATION, BackendSpec, EditTask, FalSpec, LocalSpec, ModelSpec
from ..edit.recipes import CUSTOM, PRESETS
from ..errors import InputError
from .estimator import NotYet, PlanRequest, Refused, at_fault
from .input_files import PictureSize, find_file, picture_size, read_mask
from .last_run import recall

BACKENDS: dict[str, type[BackendSpec]] = {
    "OneRewardPreviewBackend": BackendSpec,
    "OneRewardFalBackend": FalSpec,
    "OneRewardLocalBackend": LocalSpec,
    "OneRewardModelBackend": ModelSpec,
}
WIDGETS = {"enable_safety_checker": "safety_checker"}  # the spec's words, the node's
FIRST_RUN = "comes from another node, so what it is shows after the first run. Press Run once."
Body = Mapping[str, Any]
T = TypeVar("T")


def plan_request(body: Body, default_canvas: CanvasOptions | None) -> PlanRequest:
    """What a page knows of an edit.

    Args:
        body: see the route.
        default_canvas: for a node without one; None for the task's own defaults.

    Raises:
        Refused: a field breaks a rule, a file cannot be read, or something is not known yet.
    """
    task, canvas = _task(body), _canvas(body)
    size, mask = _pixels(body, task)
    numbers = PRESETS.get(_value(body, "preset", CUSTOM))
    return PlanRequest(
        task=task,
        pictures=size.pictures, height=size.height, width=size.width, mask=mask,
        canvas=canvas or default_canvas,
        steps=numbers.steps if numbers else _number(body, "steps", 28, 1, 100),
        cfg=numbers.cfg if numbers else _number(body, "cfg", 4.0, 1.0, 20.0),
        acceleration=_acceleration(body),
        num_images=_number(body, "num_images", 1, 1, 16) or 1,
        extend_to=_value(body, "extend_to", "16:9"),
        anchor=_value(body, "anchor", "center"),
        overlap=_value(body, "overlap", 24),
    )  # fmt: skip


def backend_spec(body: Body) -> BackendSpec | None:
    """The connected backend; None if there is none.

    Raises:
        Refused: it is none of the pack's, or a field of it breaks a rule.
    """
    said = _object(body, "backend")
    if said is None:
        return None
    with at_fault("backend"):
        kind = BACKENDS.get(str(said.get("node")))
        if kind is None:
            raise InputError(
                f'"{str(said.get("node"))[:40]}" is no OneReward backend that can be planned for.'
            )
        if kind is BackendSpec:
            return PREVIEW
        return kind(**_fields(kind, said.get("inputs"), WIDGETS))


def _task(body: Body) -> EditTask:
    try:
        return EditTask(body.get("task"))
    except ValueError:
        choices = ", ".join(task.value for task in EditTask)
        raise InputError(f'There is no task "{body.get("task")}". Use {choices}.') from None


def _canvas(body: Body) -> CanvasOptions | None:
    said = _object(body, "canvas")
    if said is None:
        return None
    with at_fault("canvas"):
        return CanvasOptions(**_fields(CanvasOptions, said))


def _pixels(body: Body, task: EditTask) -> tuple[PictureSize, Tensor | None]:
    """The pictures' size and their mask, from files, or from the node's last run."""
    last = recall(str(body.get("node_id")))
    image, mask = _object(body, "image"), _object(body, "mask")
    with at_fault("image"):
        if image is not None:
            size = picture_size(_path(image))
        elif last is not None:
            size = PictureSize(last.pictures, last.height, last.width)
        else:
            raise NotYet(f"The picture {FIRST_RUN}", "image")
    if task is EditTask.EXTEND:
        return size, None
    with at_fault("mask"):
        if mask is not None:
            return size, read_mask(_path(mask), str(mask.get("channel", "alpha")))
        same = last is not None and (last.height, last.width) == (size.height, size.width)
        if last is None or not same:
            raise NotYet(f"The mask {FIRST_RUN}", "mask")
        if last.mask is None:
            raise InputError("The mask of the last run was too large to be kept, so there is none.")
        return size, last.mask


def _path(said: Body) -> str:
    words = {name: said.get(name, "") for name in ("filename", "subfolder", "type")}
    wrong = [name for name, word in words.items() if not isinstance(word, str)]
    if wrong:
        raise InputError(f"{wrong[0]} is {words[wrong[0]]!r:.40}. Use text.")
    return find_file(words["filename"], words["subfolder"], words["type"])


def _acceleration(body: Body) -> str | None:
    """The level; None if it is null, because another node says it."""
    if "acceleration" in body and body["acceleration"] is None:
        return None
    return _value(body, "acceleration", ACCELERATION)


def _object(body: Body, name: str) -> Body | None:
    said = body.get(name)
    if said is not None and not isinstance(said, dict):
        raise Refused(f"{name} is {said!r:.40}. Use an object, or null.", name)
    return said


def _fields(kind: type[Any], said: object, widgets: Mapping[str, str] = {}) -> dict[str, Any]:  # noqa: B006
    """The dataclass's fields as `said` has them under the node's words; those it lacks are left to
    their defaults.
    """
    said = said if isinstance(said, dict) else {}
    values = {}
    for field in dataclasses.fields(kind):
        name = widgets.get(field.name, field.name)
        if field.name != "kind" and name in said:
            values[field.name] = _typed(name, said[name], field.default)
    return values


def _value(body: Body, name: str, default: T) -> T:
    """A field of the default's type; the default if there is none."""
    said = body.get(name)
    with at_fault(name):
        return default if said is None else _typed(name, said, default)


def _number(body: Body, name: str, default: T, low: float, high: float) -> T | None:
    """A number in its range; the default if the field is not there, None if it is null."""
    if name in body and body[name] is None:
        return None
    value: Any = _value(body, name, default)
    if not low <= value <= high:
        raise Refused(f"{name} {value:g} is out of range. Use {low:g} to {high:g}.", name)
    return value  # type: ignore[no-any-return]


def _typed(name: str, value: object, default: T) -> T:
    kind = type(default)
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {value!r:.40}, which is no {kind.__name__}.")
    return kind(value)  # type: ignore[call-arg]
