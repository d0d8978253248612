"""Where a key comes from: the environment, or a file only its owner can read. Never a workflow."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CredentialsError
from .atomic_file import write_private

KEY_FILE = "fal_key"
VARIABLE, HALVES = "FAL_KEY", ("FAL_KEY_ID", "FAL_KEY_SECRET")


@dataclass(frozen=True)
class ApiKey:
    """A key and where it was found. Printing it shows the place only."""

    value: str = field(repr=False)
    source: str


def find_key(folder: Path) -> ApiKey | None:
    """fal's key: FAL_KEY, or FAL_KEY_ID with FAL_KEY_SECRET, or the key file in `folder`.

    Raises:
        CredentialsError: there is one, and it cannot be used.
    """
    variables = set_variables()
    if variables:
        return _key(":".join(map(_variable, variables)), " and ".join(variables))
    return _from_file(folder / KEY_FILE)


def set_variables() -> tuple[str, ...]:
    """The environment variables that fal's key is in; none if it may come from the key file."""
    if _variable(VARIABLE):
        return (VARIABLE,)
    return HALVES if all(map(_variable, HALVES)) else ()


def store_key(folder: Path, text: str) -> None:
    """Puts fal's key into the key file, readable by this user alone; "" removes the file.

    Raises:
        CredentialsError: the text is no key, the environment has one, which would be used all the
            same, or the file cannot be written. The file is as it was.
    """
    variables = set_variables()
    if variables:
        raise CredentialsError(
            f"The key is in {' and '.join(variables)}, which is used before the key file. Change "
            "it there, or unset it and restart ComfyUI."
        )
    file = folder / KEY_FILE
    try:
        if text.strip():
            write_private(file, _key(text, "this form").value + "\n")
        else:
            file.unlink(missing_ok=True)
    except OSError as error:  # its own text names the file, and nothing that is in it
        raise CredentialsError(
            f"The key file {file} cannot be written ({error.strerror}). Make room, or repair its "
            "rights."
        ) from None


def need_key(folder: Path) -> ApiKey:
    """fal's key; CredentialsError if there is none."""
    key = find_key(folder)
    if key is None:
        raise CredentialsError(
            "There is no fal key. Make one at https://fal.ai/dashboard/keys, then save it in "
            "ComfyUI's Settings > OneReward, or set the environment variable FAL_KEY and restart "
            f"ComfyUI, or write it into {folder / KEY_FILE} (readable by you alone)."
        )
    return key


def key_from(variable: str) -> ApiKey:
    """A named server's key, from the environment variable its entry names."""
    if not os.environ.get(variable, "").strip():
        raise CredentialsError(
            f"The server's key is expected in the environment variable {variable}, which is not "
            "set. Set it and restart ComfyUI."
        )
    return _key(os.environ[variable], variable)


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _from_file(file: Path) -> ApiKey | None:
    try:
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise CredentialsError(
                f'Others on this machine can read the key file {file}. Run: chmod 600 "{file}"'
            )
        text = file.read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(
            f"The key file {file} cannot be read ({type(error).__name__}). Write the key into it "
            "as one line of text."
        ) from None
    return _key(text, str(file)) if text else None


def _key(text: str, source: str) -> ApiKey:
    value = text.strip()
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise CredentialsError(
            f"The key from {source} is no key: it holds spaces, line breaks or special signs. Copy "
            "it again, as one word."
        )
    return ApiKey(value, source)
