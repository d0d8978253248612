"""What the user set in Settings > OneReward: backend order, spend limits, default canvas."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..canvas.options import CanvasOptions
from ..errors import InputError
from .atomic_file import write_private
from .json_values import parse

FILE_NAME, NAME = "preferences.json", "the preferences"
ORDER = ("local", "fal", "preview")
HIGHEST_LIMIT = 10_000.0  # US dollars; what the caps of OneReward Fal Backend go up to

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
            if not 0 <= value <= HIGHEST_LIMIT:  # also true of NaN
                raise InputError(
                    f"{name} is {value:g}. Use 0 to {HIGHEST_LIMIT:g} US dollars; 0 = no ceiling."
                )


def load(folder: Path) -> Preferences:
    """What is stored in `folder`; the defaults if nothing is.

    Raises:
        InputError: the file cannot be read or breaks a rule; the message names both.
    """
    file = folder / FILE_NAME
    try:
        return parse(Preferences, json.loads(file.read_text("utf-8-sig")), NAME)
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


def change(folder: Path, fields: Mapping[str, Any]) -> Preferences:
    """Stores these fields in place of what was stored of them; what is stored then.

    Raises:
        InputError: a field is unknown or breaks a rule, or the file does. Nothing is changed.
    """
    with _CHANGING:
        preferences = parse(Preferences, {**plain(load(folder)), **fields}, NAME)
        save(folder, preferences)
    return preferences


def plain(preferences: Preferences) -> dict[str, Any]:
    """The same as values of JSON."""
    return {**asdict(preferences), "auto_order": list(preferences.auto_order)}
