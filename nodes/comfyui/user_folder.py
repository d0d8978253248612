"""Where the pack keeps what belongs to the user: key, server names, journal."""

from __future__ import annotations

from pathlib import Path

import folder_paths

NAME = "onereward"


def user_folder() -> Path:
    """ComfyUI's system user folder for the pack, user/__onereward: no page can read it over HTTP.

    It need not exist yet.
    """
    # ComfyUI has the function since 0.3.76; before, the same path is put together here.
    get = getattr(folder_paths, "get_system_user_directory", None)
    if get is not None:
        return Path(get(NAME))
    return Path(folder_paths.get_user_directory()) / f"__{NAME}"
