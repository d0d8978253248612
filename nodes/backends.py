"""From a BackendSpec to a Backend: the only place that imports a backend, and only when asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.credentials import KEY_FILE, find_key, key_from, need_key
from .config.preferences import ORDER, load
from .contracts import Backend, BackendSpec, EditResult, FalSpec, LocalSpec, ModelSpec
from .errors import CredentialsError, InputError
from .packages import CANVAS, check_floors, imported_packages

if TYPE_CHECKING:
    from ..local_backend.checkpoints.local_spec import FoundFiles, ModelMenus
    from .fal.backend import FalBackend

PREVIEW = BackendSpec("preview")
PREVIEW_NOTE = (
    "No backend connected: using the small preview model that ships with the pack. "
    "It shows how an edit works; it is not OneReward."
)
FAL_NOTE = "No backend connected: using fal, because a key is set."
LOCAL_NOTE = "No backend connected: using this machine's GPU and"
ORDER_NOTE = "The order is the one of Settings > OneReward."
NOT_TESTED = "Not tested. Settings > OneReward tests it, free of charge."
COLLECT_SECONDS = 60  # how long a job that is not finished is waited for


def auto_backend(
    folder: Path, local: LocalSpec | None = None, why_not: str = ""
) -> tuple[BackendSpec, str]:
    """What runs when nothing is connected, and a note on it for the user.

    It is a OneReward model on this machine if there is one, else fal if a key is set, else the
    preview model; in another order if the user set one. What cannot run is passed over.

    Args:
        folder: the pack's user folder.
        local: the model that this machine can run.
        why_not: why one that is there is not used, for the user.

    Raises:
        CredentialsError: it is fal's turn, and its key cannot be used.
        InputError: the stored order cannot be read.
    """
    order = load(folder).auto_order
    order_note = "" if order == ORDER else ORDER_NOTE
    for place, kind in enumerate(order):
        missed = why_not if "local" in order[:place] else ""
        if kind == "local" and local is not None:
            return local, _sentences(f"{LOCAL_NOTE} {local.transformer}.", order_note)
        if kind == "fal" and find_key(folder):
            return FalSpec(), _sentences(FAL_NOTE, missed, order_note)
        if kind == "preview":
            return PREVIEW, _sentences(PREVIEW_NOTE, missed, order_note)
    raise AssertionError("the preview model can always run")


def _sentences(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def resolve_backend(spec: BackendSpec, folder: Path, menus: ModelMenus | None = None) -> Backend:
    """The backend a spec names. Loads no weights, reads no key and sends nothing: that is done by
    its first run.

    Args:
        folder: the pack's user folder.
        menus: the model files that a LocalSpec may name; other specs need none.

    Raises:
        InputError: the spec names no backend of this version of the pack, or no known server.
        ModelNotFoundError, CheckpointError: a model file is not there, or is something else.
        MissingDependencyError: a package is not installed, too old, or does not go with the others.
    """
    check_floors(CANVAS)
    if isinstance(spec, FalSpec):
        return resolve_fal(spec, folder)
    if isinstance(spec, LocalSpec):
        return _resolve_local(spec, menus)
    if isinstance(spec, ModelSpec):
        return _resolve_model(spec)
    if spec == PREVIEW:
        return resolve_preview()
    raise InputError(
        f'This version of the pack has no backend "{spec.kind}". Connect OneReward Preview '
        "Backend, or update the pack."
    )


def resolve_preview() -> Backend:
    """The preview model as a backend; MissingDependencyError as in resolve_backend."""
    with imported_packages():
        from ..local_backend.backends.preview import PreviewBackend
    return PreviewBackend()


def _resolve_local(spec: LocalSpec, menus: ModelMenus | None) -> Backend:
    if menus is None:
        raise InputError("This backend names files of ComfyUI's menus. Run it inside ComfyUI.")
    with imported_packages():
        from ..local_backend.backends.flux import LocalBackend
    found = find_files(spec, menus)
    return LocalBackend(found.files, found.transformer)


def _resolve_model(spec: ModelSpec) -> Backend:
    with imported_packages():
        from ..local_backend.backends.comfy_model import ComfyModelBackend
    backend: Backend = ComfyModelBackend(spec)
    return backend


def find_files(spec: LocalSpec, menus: ModelMenus) -> FoundFiles:
    """The files that a spec names, checked by header; see checkpoints.local_spec.find_files."""
    from ..local_backend.checkpoints.local_spec import find_files

    return find_files(spec, menus)


def auto_spec(menus: ModelMenus) -> tuple[LocalSpec | None, str]:
    """What the auto rule may run on this machine: a OneReward transformer, if all parts are there
    and there is a GPU for it. Else None, and why a OneReward file that is there is not used.
    """
    from ..local_backend.checkpoints.local_spec import auto_spec

    spec, why_not = auto_spec(menus)
    if spec is None:
        return None, why_not
    from ..local_backend.offload.devices import can_run_flux

    if not can_run_flux():
        return None, f"{spec.transformer} is there, but no GPU that can hold it."
    return spec, ""


def no_onereward(menus: ModelMenus) -> str:
    """That there is no OneReward model on this machine, and which file to put where."""
    from ..local_backend.checkpoints.local_spec import lacks
    from ..local_backend.checkpoints.select import TRANSFORMER

    return f"{lacks(TRANSFORMER, 'OneReward model', menus)}."


def resolve_fal(spec: FalSpec, folder: Path) -> FalBackend:
    """The fal backend, with its server looked up and this machine's spend limits applied.

    Raises:
        InputError: there is no such server, or the spend limits cannot be read.
    """
    from .fal.backend import FalBackend
    from .fal.endpoints import FAL_NAME, find_server
    from .fal.spend_limits import limited

    server, stored = find_server(spec.server, folder), load(folder)

    def key() -> str | None:
        if server.name == FAL_NAME:
            return need_key(folder).value
        return key_from(server.key_env).value if server.key_env else None

    spec = limited(spec, stored.run_ceiling, stored.session_ceiling)
    return FalBackend(spec, server, key, folder)


def describe_backend(
    folder: Path, local: LocalSpec | None = None, why_not: str = ""
) -> dict[str, str]:
    """For the settings page: what runs when nothing is connected, where fal's key comes from, and
    how to test it. Nothing is sent; the key itself is not in it.

    Args: those of auto_backend.
    """
    try:
        spec, note = auto_backend(folder, local, why_not)
    except CredentialsError:  # a run would end with this message, which _describe_key has as well
        spec, note = FalSpec(), FAL_NOTE
    except InputError as error:
        spec, note = BackendSpec("none"), str(error)
    return {"backend": spec.kind, "note": note, **_describe_key(folder)}


def _describe_key(folder: Path) -> dict[str, str]:
    try:
        key = find_key(folder)
    except CredentialsError as error:
        return {"key": "not usable", "test": str(error)}
    if key is None:
        return {"key": "none", "test": "There is no key to test."}
    source = "the key file" if key.source == str(folder / KEY_FILE) else key.source
    return {"key": f"from {source}", "test": NOT_TESTED}


def ask_server(name: str, folder: Path) -> str:
    """A sentence about a server that answers, and knows the key if it wants one. Free of charge.

    Raises:
        InputError: there is no such server.
        CredentialsError: there is no key, or the server does not know it.
        RemoteError: the server cannot be reached, or refuses the account.
    """
    return resolve_fal(FalSpec(server=name), folder).test_key()


def view_journal(folder: Path) -> dict[str, Any]:
    """The newest jobs and the totals; see job_history.view.

    Raises:
        JournalError, InputError: the journal, or servers.json, cannot be read.
    """
    from .fal.job_history import view

    return view(folder, _names(folder))


def collect_job(request_id: str, folder: Path) -> EditResult:
    """What a job of the journal made, from there or from its service. Sends no new job.

    Raises:
        InputError: the journal has no such job, or its server is no longer named.
        RemoteError: the service does not have it, it failed, or it was flagged.
    """
    from .fal.job_history import server_of
    from .fal.progress import NoProgress

    url = server_of(folder, request_id)
    if url is None:
        raise InputError(
            f'The journal has no job "{request_id[:40]}". OneReward Collect fetches jobs that '
            "were sent from elsewhere."
        )
    name = _names(folder).get(url)
    if name is None:
        raise InputError("The job's server is no longer named. Name it in servers.json again.")
    fal = resolve_fal(FalSpec(server=name, deadline=COLLECT_SECONDS), folder)
    return fal.collect(request_id, NoProgress())


def clear_pictures(folder: Path) -> int:
    """Drops the images that the journal retains; the freed bytes. JournalError if it cannot be."""
    from .fal.job_history import clear_images

    return clear_images(folder)


def _names(folder: Path) -> dict[str, str]:
    """What the user calls a server, by its queue URL."""
    from .fal.endpoints import find_server, server_names

    return {find_server(name, folder).queue_url: name for name in server_names(folder)}


def server_choices(folder: Path) -> list[str]:
    """The names a user may choose a server by.

    Raises:
        InputError: servers.json breaks a rule.
    """
    from .fal.endpoints import server_names

    return server_names(folder)


def check_server(name: str, folder: Path) -> None:
    """Raises InputError if there is no such server, or servers.json breaks a rule."""
    from .fal.endpoints import find_server

    find_server(name, folder)
