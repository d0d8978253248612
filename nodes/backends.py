"""From a BackendSpec to a Backend: the only place that imports a backend, and only when asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .contracts import Backend, BackendSpec, FalSpec
from .credentials import find_key, key_from, need_key
from .errors import InputError, MissingDependencyError, OneRewardError

if TYPE_CHECKING:
    from .fal.backend import FalBackend

PREVIEW = BackendSpec("preview")
PREVIEW_NOTE = (
    "No backend connected: using the small preview model that ships with the pack. "
    "It shows how an edit works; it is not OneReward."
)
FAL_NOTE = "No backend connected: using fal, because a key is set."
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


def auto_backend(folder: Path) -> tuple[BackendSpec, str]:
    """What runs when nothing is connected, and what the user is told: fal if a key is set, else the
    preview model.

    Args:
        folder: the pack's user folder.
    """
    return (FalSpec(), FAL_NOTE) if find_key(folder) else (PREVIEW, PREVIEW_NOTE)


def resolve_backend(spec: BackendSpec, folder: Path) -> Backend:
    """The backend a spec names. Loads no weights, reads no key and sends nothing: that is done by
    its first run.

    Raises:
        InputError: the spec names no backend of this version of the pack, or no known server.
        MissingDependencyError: a package the backend needs is not installed.
    """
    if isinstance(spec, FalSpec):
        return resolve_fal(spec, folder)
    if spec == PREVIEW:
        return resolve_preview()
    raise InputError(
        f'This version of the pack has no backend "{spec.kind}". Connect OneReward Preview '
        "Backend, or update the pack."
    )


def resolve_preview() -> Backend:
    """The preview model as a backend; MissingDependencyError if a package is not installed."""
    try:
        from ..local_backend.backend import PreviewBackend
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The package {error.name} is not installed. Run: "
            f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
        ) from error
    return PreviewBackend()


def resolve_fal(spec: FalSpec, folder: Path) -> FalBackend:
    """The fal backend, with its server looked up; InputError if there is no such server."""
    from .fal.backend import FalBackend
    from .fal.servers import FAL_NAME, find_server

    server = find_server(spec.server, folder)

    def key() -> str | None:
        if server.name == FAL_NAME:
            return need_key(folder).value
        return key_from(server.key_env).value if server.key_env else None

    return FalBackend(spec, server, key, folder)


def describe_backend(folder: Path) -> dict[str, str]:
    """In words: what runs when nothing is connected, where the key comes from, whether fal knows it
    and what it asks for a megapixel. Costs nothing; the key itself is not in it.
    """
    try:
        key = find_key(folder)
        if key is None:
            return {"backend": PREVIEW.kind, "key": "none", "test": "There is no key to test."}
        said = resolve_fal(FalSpec(), folder).test_key()
    except OneRewardError as error:
        return {"backend": FalSpec().kind, "key": "not usable", "test": str(error)}
    return {"backend": FalSpec().kind, "key": f"from {key.source}", "test": said}


def server_choices(folder: Path) -> list[str]:
    """The names a user may choose a server by.

    Raises:
        InputError: servers.json breaks a rule.
    """
    from .fal.servers import server_names

    return server_names(folder)


def check_server(name: str, folder: Path) -> None:
    """Raises InputError if there is no such server, or servers.json breaks a rule."""
    from .fal.servers import find_server

    find_server(name, folder)
