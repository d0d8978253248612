"""The packages beside the pack: which versions it needs, which copy Python finds, what to do.

Only looks at files and at what is loaded, so that asking imports nothing.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from .errors import MissingDependencyError

ROOT = Path(__file__).resolve().parent.parent
INSTALL = f'"{sys.executable}" "{ROOT / "install.py"}"'

# Import name -> the oldest version that works. pyproject.toml and install.py's files say the same.
FLOORS = {
    "torch": "2.6.0",  # before, diffusers does not import
    "PIL": "10.1.0",  # before, the built-in font has no sizes
    "pydantic": "2.4.0",  # before, a nested dataclass is not checked strictly; ComfyUI asks for 2.0
    "scipy": "1.11.3",  # before, some connected areas get no number
    "transformers": "4.50.0",
    "diffusers": "0.35.0",  # before, FLUX's attention is another class
}
CANVAS = ("PIL", "scipy")
# What ComfyUI does not bring: install.py may choose another version of these, and of no others.
ADDED = frozenset({"diffusers", "accelerate", "gguf", "cachetools"})
PROJECTS = {"PIL": "pillow"}

_VERSION = re.compile(r"^__version__ *= *[\"']([^\"']+)[\"']", re.MULTILINE)
# What importing a package ends with that meets another version than it was written for.
_IMPORT_FAULTS = (
    ImportError,
    RuntimeError,
    AttributeError,
    TypeError,
    NameError,
    ValueError,
    KeyError,
    OSError,
)


@dataclass(frozen=True)
class Found:
    """The copy of a package that Python imports.

    Attributes:
        version: as the package says it; empty if it does not.
        folder: where Python found it, an entry of its path.
    """

    name: str
    version: str
    folder: Path

    def __str__(self) -> str:
        return f"{PROJECTS.get(self.name, self.name)} {self.version} in {self.folder}"

    @property
    def installed(self) -> bool:
        """Whether it lies where pip installs packages."""
        return self.folder.name in ("site-packages", "dist-packages")


def find_package(name: str) -> Found | None:
    """The copy that Python imports, or has imported; None if there is none."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        spec = find_spec(name)
        origin = spec.origin if spec is not None else None
    if origin is None:
        return None
    file = Path(origin)
    version = getattr(module, "__version__", None) or _stored_version(name, file)
    return Found(name, str(version), file.parent.parent)


def check_floors(names: Iterable[str] = tuple(FLOORS)) -> None:
    """Raises MissingDependencyError for a package that is older than what the pack needs."""
    for sentence in too_old(names):
        raise MissingDependencyError(sentence)


def too_old(names: Iterable[str]) -> Iterator[str]:
    """A sentence for each of these packages that is older than its floor."""
    for name in names:
        found = find_package(name)
        if found and found.version and _numbers(found.version) < _numbers(FLOORS[name]):
            need = f"OneReward needs {FLOORS[name]} or newer"
            yield f"{found} is too old: {need}. {_remedy(found)}"


@contextmanager
def imported_packages() -> Iterator[None]:
    """For imports alone: an error says which package is not installed, too old, or does not go
    with the others, and what to do. A fault of the pack's own stays as it is.
    """
    check_floors()
    try:
        yield
    except ModuleNotFoundError as error:
        found = find_package((error.name or "").partition(".")[0])
        if found is None:
            raise MissingDependencyError(
                f"The package {error.name} is not installed. Run: {INSTALL}"
            ) from error
        raise _broken(found, error) from error
    except _IMPORT_FAULTS as error:
        cause = _first_cause(error)
        found = _at_fault(cause)
        if found is None:
            raise
        raise _broken(found, cause) from error


def _stored_version(name: str, file: Path) -> str:
    """What the package's first file says, else what was installed into the same folder."""
    match = _VERSION.search(file.read_text("utf-8", "replace")) if file.suffix == ".py" else None
    if match:
        return match[1]
    project, folder = PROJECTS.get(name, name), str(file.parent.parent)
    return next((d.version for d in distributions(name=project, path=[folder])), "")


def _numbers(version: str) -> tuple[int, ...]:
    """2.6.0+cu124 as (2, 6, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _first_cause(error: BaseException) -> BaseException:
    """What diffusers and transformers wrap once or twice when they import lazily."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _at_fault(error: BaseException) -> Found | None:
    """The package in which this error was raised; None if that is the pack."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.name == "__getattr__":
            continue  # a package that was asked for what it does not have; who asked is next
        for name in (*FLOORS, *ADDED):
            found = find_package(name)
            if found and Path(frame.filename).is_relative_to(found.folder / name):
                return found
    # our own line asked a package for what it does not have
    asked = error.name if isinstance(error, ImportError) else None
    return find_package(asked.partition(".")[0]) if asked else None


def _broken(found: Found, error: BaseException) -> MissingDependencyError:
    reason = " ".join(str(error).split()).rstrip(".")
    return MissingDependencyError(
        f"{found} does not go with the packages beside it: {reason}. {_remedy(found)}"
    )


def _remedy(found: Found) -> str:
    """What helps and moves none of ComfyUI's own packages."""
    if not found.installed:
        return (
            "That copy is not the installed one: a custom node or PYTHONPATH put it on Python's "
            "path. Switch that custom node off and start ComfyUI again; if the package is missing "
            f"then, run: {INSTALL}"
        )
    if found.name in ADDED:
        return (
            f'Run: "{sys.executable}" -m pip uninstall {found.name}, and then: {INSTALL}, which '
            "chooses a version that goes with ComfyUI's own packages."
        )
    return "It is one of ComfyUI's own packages: update ComfyUI and its requirements."
