"""What the settings panel shows first: what can run here, where the key comes from, what is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...backends import auto_spec, describe_backend, no_onereward, server_choices
from ...config import preferences
from ...config.credentials import set_variables
from ...errors import InputError
from .. import model_folders

KEY_FORM = "A key that you save here goes into a file that you alone can read, on this machine."


def status(folder: Path) -> dict[str, Any]:
    """What runs when nothing is connected and why, in words; nothing is sent, no key is in it.

    backend, note, key, test: see describe_backend. local: {"ready", "words"}. key_form: {"usable",
    "words"}. servers: names. preferences: as stored, or null. trouble: what cannot be read.
    """
    local, why_not = auto_spec(model_folders)
    said: dict[str, Any] = dict(describe_backend(folder, local, why_not))
    words = local.transformer if local else why_not or no_onereward(model_folders)
    said["local"] = {"ready": local is not None, "words": words}
    said["key_form"] = _key_form()
    trouble = []
    try:
        said["servers"] = server_choices(folder)
    except InputError as error:
        said["servers"] = ["fal"]
        trouble.append(str(error))
    try:
        said["preferences"] = preferences.plain(preferences.load(folder))
    except InputError as error:
        said["preferences"] = None
        trouble.append(str(error))
    return {**said, "trouble": trouble}


def _key_form() -> dict[str, Any]:
    variables = " and ".join(set_variables())
    if not variables:
        return {"usable": True, "words": KEY_FORM}
    words = f"The key is in {variables}, which is used before the key file. Change it there."
    return {"usable": False, "words": words}
