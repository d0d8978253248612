"""Endpoints: where a server is, which URLs of its answers are trusted, the servers of the user."""

from __future__ import annotations

import json
import os
import re
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError
from ..loopback import is_loopback

QUEUE_URL_VARIABLE = "ONEREWARD_FAL_QUEUE_URL"
SERVERS_FILE = "servers.json"
FAL_NAME = "fal"
ENDPOINT = "fal-ai/onereward"
FAL_MEDIA = ("fal.media", "storage.googleapis.com")
FIELDS = {"url", "key_env", "ca"}
REMEDY = (
    f'Write {SERVERS_FILE} as {{"name": {{"url": "https://...", "key_env": "VARIABLE", '
    f'"ca": "FILE"}}}}, where key_env and ca may be left out.'
)
# Scheme, host and port with nothing that two programs could read in two ways: no user, no
# backslash, no blank, ASCII only.
PLAIN = re.compile(r"(?i:https?)://[A-Za-z0-9.:\[\]-]+(?:[/?][\x21-\x5b\x5d-\x7e]*)?")


@dataclass(frozen=True)
class Server:
    """One server that speaks fal's queue protocol.

    Attributes:
        name: what the user calls it.
        queue_url, storage_url, api_url: bases without a trailing slash: jobs, uploads, prices.
        media_hosts: where results may lie, besides the queue's own origin.
        key_env: the environment variable with its key; None for fal's own rules.
        priced: it sends bills, so an unknown price is a reason to stop at a spend limit.
        ca: the certificates (PEM) that it is checked against, for a server whose authority the
            machine does not know; None for those it knows.
    """

    name: str
    queue_url: str
    storage_url: str
    api_url: str
    media_hosts: tuple[str, ...] = ()
    key_env: str | None = None
    priced: bool = False
    ca: Path | None = None

    def trusts(self, url: str) -> bool:
        """Whether the key may go to `url`: the queue's own scheme, host and port only."""
        origin = _origin(url)
        return origin is not None and origin == _origin(self.queue_url)

    def holds_file(self, url: str) -> bool:
        """Whether a file may be fetched from `url` or put there, without the key."""
        if self.trusts(url):
            return True
        origin = _origin(url)
        if origin is None or origin.scheme != "https":
            return False
        return any(origin.host == h or origin.host.endswith("." + h) for h in self.media_hosts)


def find_server(name: str, folder: Path) -> Server:
    """The server of that name: fal, or an entry of servers.json in `folder`.

    Raises:
        InputError: no such server, or its entry breaks a rule.
    """
    if name == FAL_NAME:
        gateway = os.environ.get(QUEUE_URL_VARIABLE)
        if gateway:
            return _at(gateway, QUEUE_URL_VARIABLE, name=name, media_hosts=FAL_MEDIA, priced=True)
        return Server(
            name,
            "https://queue.fal.run",
            "https://rest.fal.ai",
            "https://api.fal.ai/v1",
            FAL_MEDIA,
            priced=True,
        )
    entries = _read(folder / SERVERS_FILE)
    if name not in entries:
        known = ", ".join([FAL_NAME, *entries])
        raise InputError(f'There is no server "{name}". Choose one of {known}, or name it in '
                         f"{folder / SERVERS_FILE}.")  # fmt: skip
    entry, place = entries[name], f'{SERVERS_FILE}, "{name}"'
    server = _at(entry["url"], place, name=name, key_env=entry.get("key_env"))
    return replace(server, ca=_authority(folder / entry["ca"], place)) if "ca" in entry else server


def server_names(folder: Path) -> list[str]:
    """What a user may choose from: fal first, then the names in servers.json.

    Raises:
        InputError: the file breaks a rule.
    """
    return [FAL_NAME, *_read(folder / SERVERS_FILE)]


def _at(url: str, place: str, *, name: str, media_hosts: tuple[str, ...] = (),
        key_env: str | None = None, priced: bool = False) -> Server:  # fmt: skip
    base = _checked(url, place)
    return Server(name, base, base, base + "/v1", media_hosts, key_env, priced)


def _checked(url: str, place: str) -> str:
    """`url` as a base; InputError unless it is https, or http to this machine."""
    origin = _origin(url)
    safe = origin and (origin.scheme == "https" or is_loopback(origin.host))
    if not safe or "?" in url or "#" in url:
        raise InputError(
            f'"{_without_secrets(url)}" ({place}) cannot be used as a server. Give an https:// '
            "address without name, password or query; http:// is for this machine only, such as "
            "http://127.0.0.1:8000."
        )
    return url.rstrip("/")


def _authority(file: Path, place: str) -> Path:
    """The file, if certificates can be read from it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError) as error:  # ssl's own errors are some of these
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{file} ({place}) holds no certificates that can be used ({why}). "
            "Let ca name the PEM file of the authority that signed the server's certificate; a "
            f"name without a folder is looked for beside {SERVERS_FILE}."
        ) from error
    return file


def _without_secrets(url: str) -> str:
    return url.rsplit("@", 1)[-1].split("?")[0]


class Origin(NamedTuple):
    """Scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int


def host_of(url: object) -> str:
    """The host of a URL, in quotes, for a message."""
    origin = _origin(url) if isinstance(url, str) else None
    return f'"{origin.host}"' if origin else "no address that can be used"


def _origin(url: str) -> Origin | None:
    """None for a URL that is not plain http or https."""
    if not PLAIN.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    except ValueError:  # a port that is no number, brackets that hold no address
        return None
    return Origin(parts.scheme, parts.hostname, port) if parts.hostname else None


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        entries = json.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}). {REMEDY}") from error
    if not isinstance(entries, dict):
        raise InputError(f"{file} holds no object. {REMEDY}")
    for name, entry in entries.items():
        _check_entry(file, name, entry)
    return entries


def _check_entry(file: Path, name: str, entry: object) -> None:
    if name == FAL_NAME:
        raise InputError(f'{file} names a server "{FAL_NAME}", which is fal itself. Rename it.')
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise InputError(f'{file}: "{name}" has no url. {REMEDY}')
    if set(entry) - FIELDS or not all(isinstance(value, str) for value in entry.values()):
        raise InputError(f'{file}: "{name}" may hold url, key_env and ca, all text. {REMEDY}')
