"""From a BackendSpec to a Backend: the only place that imports a backend, and only when asked."""

from __future__ import annotations

import sys
from pathlib import Path

from .contracts import Backend, BackendSpec
from .errors import InputError, MissingDependencyError

PREVIEW = BackendSpec("preview")
AUTO_NOTE = (
    "No backend connected: using the small preview model that ships with the pack. "
    "It shows how an edit works; it is not OneReward."
)
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


def resolve_backend(spec: BackendSpec | None) -> Backend:
    """The backend a spec names; without one, the preview model (see AUTO_NOTE).

    Loads no weights: a backend does that on its first run.

    Raises:
        InputError: the spec names no backend of this version of the pack.
        MissingDependencyError: a package the backend needs is not installed.
    """
    kind = (spec or PREVIEW).kind
    if kind != "preview":
        raise InputError(
            f'This version of the pack has no backend "{kind}". Connect OneReward Preview Backend, '
            "or update the pack."
        )
    try:
        from ..local_backend.backend import PreviewBackend
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The package {error.name} is not installed. Run: "
            f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
        ) from error
    return PreviewBackend()
