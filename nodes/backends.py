"""From a BackendSpec to a Backend: the only place that imports a backend, and only when asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .contracts import Backend, BackendSpec, FalSpec, LocalSpec, ModelSpec
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
LOCAL_NOTE = "No backend connected: using this machine's GPU and"
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


def auto_backend(
    folder: Path, local: LocalSpec | None = None, why_not: str = ""
) -> tuple[BackendSpec, str]:
    """What runs when nothing is connected, and what the user is told: a OneReward model on this
    machine if there is one, else fal if a key is set, else the preview model.

    Args:
        folder: the pack's user folder.
        local: the model that this machine can run.
        why_not: why one that is there is not used, for the user.

    Raises:
        CredentialsError: there is a key, and it cannot be used.
    """
    if local is not None:
        return local, f"{LOCAL_NOTE} {local.transformer}."
    spec, note = (FalSpec(), FAL_NOTE) if find_key(folder) else (PREVIEW, PREVIEW_NOTE)
    return spec, f"{note} {why_not}".strip()


def resolve_backend(spec: BackendSpec, folder: Path) -> Backend:
    """The backend a spec names. Loads no weights, reads no key and sends nothing: that is done by
    its first run.

    Raises:
        InputError: the spec names no backend of this version of the pack, or no known server.
        ModelNotFoundError, CheckpointError: a model file is not there, or is something else.
        MissingDependencyError: a package the backend needs is not installed.
    """
    if isinstance(spec, FalSpec):
        return resolve_fal(spec, folder)
    if isinstance(spec, LocalSpec):
        return _resolve_local(spec)
    if isinstance(spec, ModelSpec):
        return _resolve_model(spec)
    if spec == PREVIEW:
        return resolve_preview()
    raise InputError(
        f'This version of the pack has no backend "{spec.kind}". Connect OneReward Preview '
        "Backend, or update the pack."
    )


def resolve_preview() -> Backend:
    """The preview model as a backend; MissingDependencyError if a package is not installed."""
    with _packages():
        from ..local_backend.backend import PreviewBackend
    return PreviewBackend()


def _resolve_local(spec: LocalSpec) -> Backend:
    # Inside ComfyUI only: names of files mean something in its model folders alone.
    from .local_models import find_files

    with _packages():
        from ..local_backend.backend import LocalBackend
    found = find_files(spec)
    return LocalBackend(found.files, found.transformer)


def _resolve_model(spec: ModelSpec) -> Backend:
    with _packages():
        from ..local_backend.comfy_model import ComfyModelBackend
    backend: Backend = ComfyModelBackend(spec)
    return backend


@contextmanager
def _packages() -> Iterator[None]:
    """Tells a package that is not installed, or does not go with the others, from a fault, and
    names the command. For imports alone: diffusers says so by a RuntimeError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The package {error.name} is not installed. Run: "
            f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
        ) from error
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"A package cannot be imported: {' '.join(str(error).split())}. Run: "
            f'"{sys.executable}" -m pip install --upgrade diffusers transformers accelerate'
        ) from error


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


def describe_backend(
    folder: Path, local: LocalSpec | None = None, why_not: str = ""
) -> dict[str, str]:
    """In words: what runs when nothing is connected, where fal's key comes from, whether fal knows
    it and what it asks for a megapixel. Costs nothing; the key itself is not in it.

    Args: those of auto_backend.
    """
    try:
        key = find_key(folder)
        spec, note = auto_backend(folder, local, why_not)
        if key is None:
            found = {"key": "none", "test": "There is no key to test."}
        else:
            said = resolve_fal(FalSpec(), folder).test_key()
            found = {"key": f"from {key.source}", "test": said}
    except OneRewardError as error:
        found = {"key": "not usable", "test": str(error)}
        spec, note = (FalSpec(), FAL_NOTE) if local is None else auto_backend(folder, local)
    return {"backend": spec.kind, "note": note, **found}


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
