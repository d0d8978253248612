"""Where a key comes from: the environment, or a file only its owner can read. Never a workflow."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CredentialsError

KEY_FILE = "fal_key"


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
    if os.environ.get("FAL_KEY", "").strip():
        return _key(os.environ["FAL_KEY"], "FAL_KEY")
    parts = [os.environ.get(name, "").strip() for name in ("FAL_KEY_ID", "FAL_KEY_SECRET")]
    if all(parts):
        return _key(":".join(parts), "FAL_KEY_ID and FAL_KEY_SECRET")
    return _from_file(folder / KEY_FILE)


def need_key(folder: Path) -> ApiKey:
    """fal's key; CredentialsError if there is none."""
    key = find_key(folder)
    if key is None:
        raise CredentialsError(
            "There is no fal key. Make one at https://fal.ai/dashboard/keys, then set the "
            f"environment variable FAL_KEY and restart ComfyUI, or write it into "
            f"{folder / KEY_FILE} (readable by you alone)."
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
