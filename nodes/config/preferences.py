"""What the user set for this machine in Settings > OneReward: order, ceilings, default canvas."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..canvas.options import CanvasOptions
from ..errors import InputError
from .atomic_file import write_private

FILE_NAME = "preferences.json"
ORDER = ("local", "fal", "preview")
HIGHEST_CEILING = 10_000.0  # US dollars; what the caps of OneReward Fal Backend go up to
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_CHANGING = threading.Lock()


@dataclass(frozen=True)
class Preferences:
    """What holds for every workflow on this machine.

    Raises InputError for a value that breaks a rule.

    Attributes:
        auto_order: what is tried in turn when no backend is connected: ORDER, in any order. What
            stands behind "preview" is never reached, for that can always run.
        run_ceiling: US dollars that one run of a node may cost, whatever its caps say; 0 = none.
        session_ceiling: the same for all runs until ComfyUI ends.
        canvas: what a task node uses when no canvas is connected; None = each task's own defaults.
    """

    auto_order: tuple[str, ...] = ORDER
    run_ceiling: float = 0.0
    session_ceiling: float = 0.0
    canvas: CanvasOptions | None = None

    def __post_init__(self) -> None:
        if sorted(self.auto_order) != sorted(ORDER):
            raise InputError(
                f"auto_order is {', '.join(self.auto_order) or 'empty'}. "
                f"Name each of {', '.join(ORDER)} once."
            )
        for name in ("run_ceiling", "session_ceiling"):
            value = getattr(self, name)
            if not 0 <= value <= HIGHEST_CEILING:  # also true of NaN
                raise InputError(
                    f"{name} is {value:g}. Use 0 to {HIGHEST_CEILING:g} US dollars; 0 = no ceiling."
                )


def load(folder: Path) -> Preferences:
    """What is stored in `folder`; the defaults if nothing is.

    Raises:
        InputError: the file cannot be read or breaks a rule; the words name both.
    """
    file = folder / FILE_NAME
    try:
        return _parsed(json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file} cannot be used: {str(error).rstrip('.')}. Repair it, or delete it to go back "
            "to the defaults."
        ) from error


def save(folder: Path, preferences: Preferences) -> None:
    """Stores them in `folder`, all or nothing, for this user alone.

    Raises:
        InputError: the file cannot be written.
    """
    file = folder / FILE_NAME
    try:
        write_private(file, json.dumps(plain(preferences), indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}). Make room, or repair its rights."
        ) from error


def change(folder: Path, said: Mapping[str, Any]) -> Preferences:
    """Stores what `said` holds in place of what was stored, field by field; what is stored then.

    Raises:
        InputError: a field is unknown or breaks a rule, or the file does. Nothing is changed.
    """
    with _CHANGING:
        preferences = _parsed({**plain(load(folder)), **said})
        save(folder, preferences)
    return preferences


def plain(preferences: Preferences) -> dict[str, Any]:
    """The same as values of JSON."""
    return {**asdict(preferences), "auto_order": list(preferences.auto_order)}


def _parsed(said: object) -> Preferences:
    values = _named("the preferences", said, Preferences)
    if "auto_order" in values:
        values["auto_order"] = _words("auto_order", values["auto_order"])
    for name in ("run_ceiling", "session_ceiling"):
        if name in values:
            values[name] = _typed(name, values[name], float)
    if values.get("canvas") is not None:
        values["canvas"] = _canvas(values["canvas"])
    return Preferences(**values)


def _canvas(said: object) -> CanvasOptions:
    values = _named("canvas", said, CanvasOptions)
    kinds = {field.name: type(field.default) for field in fields(CanvasOptions)}
    return CanvasOptions(
        **{name: _typed(f"canvas.{name}", value, kinds[name]) for name, value in values.items()}
    )


def _named(what: str, said: object, kind: type[Any]) -> dict[str, Any]:
    """`said` as an object with no other fields than the dataclass has."""
    if not isinstance(said, dict):
        raise InputError(f"{what} is no JSON object. Use one, in {{}}.")
    known = [field.name for field in fields(kind)]
    unknown = [str(name) for name in said if name not in known]
    if unknown:
        raise InputError(f'{what} has a field "{unknown[0][:40]}". Use {", ".join(known)}.')
    return dict(said)


def _words(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InputError(f"{name} is no list of words. Use {json.dumps(ORDER)}, in any order.")
    return tuple(value)


def _typed(name: str, value: object, kind: type[Any]) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {json.dumps(value)[:40]}. Use {KINDS[kind]}.")
    return kind(value)
