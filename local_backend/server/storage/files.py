"""The files of a server, uploads and results: in one folder, under names that nobody can guess.

A row of the database says whose a file is and until when. What has no row is not served, whatever
lies in the folder. All of it waits for the disk or the database: call it in a thread.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from ..database import FILES, KEYS
from ..settings import MEGABYTE, Settings

STALE = 6 * 3600.0  # seconds after which a part that nobody has added to is given up
_MOST_UPLOADS = 20_000  # of a key, so that it cannot fill the table with empty ones
_LONGEST_URL = 2048
_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
}
IMAGE_TYPES = frozenset(_EXTENSIONS)
OTHER_TYPE = "application/octet-stream"
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,39}/[a-z0-9!#$&^_.+-]{1,39}", re.ASCII)
_NAME = re.compile(r"(?:in|out)-[A-Za-z0-9_-]{32}\.[a-z]{3,4}", re.ASCII)
_NAME_LENGTHS = range(3 + 32 + 4, 4 + 32 + 5 + 1)


class UploadError(Exception):
    """An upload is refused.

    Attributes:
        status: the HTTP status that says so.
        message: why, in a sentence for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Files:
    """The files and their rows. Names of uploads begin with `in-`, those of results with `out-`."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine, self._settings = engine, settings
        self._folder = settings.files
        self._base = f"{settings.public_url}/files/"
        self._orphans_at = 0.0

    @property
    def largest(self) -> int:
        """Bytes that an uploaded file may have."""
        return self._settings.max_upload_mb * MEGABYTE

    def keep(self, key_id: str, data: bytes, content_type: str, seconds: float) -> str:
        """Store a result whole and return its name.

        Raises:
            OSError: it cannot be written; nothing of it is left.
        """
        row = self._row("out", key_id, content_type, seconds)
        part = self.scratch(row["name"])
        try:
            with open(part, "xb", opener=private) as stream:
                stream.write(data)
            with self._engine.begin() as connection:
                connection.execute(insert(FILES).values({**row, "size": len(data), "whole": True}))
                os.replace(part, self._folder / row["name"])
        finally:
            part.unlink(missing_ok=True)
        return str(row["name"])

    def begin(self, key_id: str, content_type: str, seconds: float) -> str:
        """The name of a file that will be uploaded, once.

        Raises:
            UploadError: the key has as many uploads as it may.
        """
        row = self._row("in", key_id, content_type, seconds)
        with self._engine.begin() as connection:
            _, count = self._usage(connection, key_id)
            if count >= _MOST_UPLOADS:
                raise UploadError(413, f"{count} uploads of this key are live. Wait, or send less.")
            connection.execute(insert(FILES).values({**row, "size": 0, "whole": False}))
        return str(row["name"])

    def is_pending(self, name: str, key_id: str | None = None) -> bool:
        """Whether an upload of that name is awaited: of that key, if one is given. False if it has
        been made.

        Raises:
            UploadError: there is no such upload, or it is another key's.
        """
        row = self._living(name)
        if row is None or key_id not in (None, row.key_id):
            raise UploadError(404, "There is no such upload. Start it again.")
        return not row.whole

    def claim(self, name: str, size: int) -> None:
        """Count bytes, before they are written, as the key's. A name may claim twice what a file
        may have, as a client that heard no answer sends again while the first still counts.

        Raises:
            UploadError: they are too many, or the upload is over.
        """
        awaited = (FILES.c.name == name) & ~FILES.c.whole
        with self._engine.begin() as connection:
            row = connection.execute(select(FILES).where(awaited).with_for_update()).first()
            if row is None:
                raise UploadError(404, "There is no such upload. Start it again.")
            used, _ = self._usage(connection, row.key_id)
            if row.size + size > 2 * self.largest:
                raise too_large(self.largest)
            allowed = self._settings.max_storage_mb
            if used + size > allowed * MEGABYTE:
                raise UploadError(413, f"Live uploads of this key may have {allowed} MB together.")
            connection.execute(update(FILES).where(awaited).values(size=FILES.c.size + size))

    def release(self, name: str, size: int) -> None:
        """Take a claim back."""
        awaited = (FILES.c.name == name) & ~FILES.c.whole
        with self._engine.begin() as connection:
            connection.execute(update(FILES).where(awaited).values(size=FILES.c.size - size))

    def finish(self, name: str, part: Path, size: int) -> bool:
        """Serve `part` under that name from now on; False if another was faster, or it expired."""
        awaited = (FILES.c.name == name) & ~FILES.c.whole & (FILES.c.expires > time.time())
        with self._engine.begin() as connection:
            done = connection.execute(update(FILES).where(awaited).values(whole=True, size=size))
            if done.rowcount != 1:
                return False
            os.replace(part, self._folder / name)  # before the commit: a whole row has its file
        return True

    def url(self, name: str) -> str:
        """Where clients get the file."""
        return self._base + name

    def own(self, url: str) -> str | None:
        """The name in an address of one of this server's files, whether or not it is there."""
        if len(url) > _LONGEST_URL:
            return None
        try:
            given, base = urlsplit(url), urlsplit(self._base)
            here = (base.scheme, base.hostname, base.port or _port(base.scheme))
            same = (given.scheme, given.hostname, given.port or _port(given.scheme)) == here
        except ValueError:
            return None
        name = given.path.removeprefix(base.path)
        same = same and name != given.path and "@" not in given.netloc and not given.query
        return name if same and _NAME.fullmatch(name) else None

    def find(self, name: str) -> tuple[Path, str] | None:
        """Where the file lies, and its content type; None if there is none, or not any more. The
        sweeper may take it the next moment."""
        row = self._living(name)
        return (self._folder / name, row.content_type) if row is not None and row.whole else None

    def read(self, name: str) -> bytes | None:
        """The file's content; None if there is none, or not any more."""
        found = self.find(name)
        with suppress(FileNotFoundError):
            return found[0].read_bytes() if found else None
        return None

    def forget(self, name: str) -> None:
        """Delete the file of that name, or give up the upload that was begun."""
        with self._engine.begin() as connection:
            connection.execute(delete(FILES).where(FILES.c.name == name))
        (self._folder / name).unlink(missing_ok=True)

    def scratch(self, name: str, middle: str = "") -> Path:
        """A path beside the file of that name, to write to before it is moved; without `middle`
        it is like no other."""
        return self._folder / f"{name}.{middle or secrets.token_hex(8)}.part"

    def sweep(self, now: float | None = None) -> int:
        """Delete what has expired, and what no row speaks of. Returns how many rows went."""
        now = time.time() if now is None else now
        over = FILES.c.expires <= now
        with self._engine.begin() as connection:
            rows = connection.execute(select(FILES.c.name, FILES.c.whole).where(over)).all()
            connection.execute(delete(FILES).where(over))
        for row in rows:
            (self._folder / row.name).unlink(missing_ok=True)
        unfinished = {row.name for row in rows if not row.whole}
        if unfinished or now - self._orphans_at > STALE / 6:
            self._orphans_at = now
            self._sweep_folder(unfinished, now)
        return len(rows)

    def _sweep_folder(self, expired: set[str], now: float) -> None:
        """Parts of expired uploads, parts that nobody adds to, and files that have no row."""
        newest: dict[str, float] = {}
        found: dict[str, list[Path]] = {}
        for entry in os.scandir(self._folder):
            ours = _NAME.match(entry.name)
            if ours:
                with suppress(FileNotFoundError):
                    newest[ours[0]] = max(newest.get(ours[0], 0.0), entry.stat().st_mtime)
                    found.setdefault(ours[0], []).append(Path(entry))
        old = {name for name, at in newest.items() if at < now - STALE}
        whole = self._whole(old)
        with self._engine.begin() as connection:
            for batch in _batches(old - whole):
                given_up = FILES.c.name.in_(batch) & ~FILES.c.whole
                connection.execute(delete(FILES).where(given_up))
        for name in (old - whole) | expired:
            for file in found.get(name, ()):
                file.unlink(missing_ok=True)
        for name in whole:  # parts that came after the end
            for file in found[name]:
                if file.name != name:
                    file.unlink(missing_ok=True)

    def _whole(self, names: set[str]) -> set[str]:
        known: set[str] = set()
        for batch in _batches(names):
            asked = select(FILES.c.name).where(FILES.c.name.in_(batch) & FILES.c.whole)
            with self._engine.begin() as connection:
                known.update(connection.execute(asked).scalars())
        return known

    def _living(self, name: str) -> Any:
        if len(name) not in _NAME_LENGTHS or not _NAME.fullmatch(name):
            return None
        asked = select(FILES).where((FILES.c.name == name) & (FILES.c.expires > time.time()))
        with self._engine.begin() as connection:
            return connection.execute(asked).first()

    def _row(self, kind: str, key_id: str, content_type: str, seconds: float) -> dict[str, Any]:
        media_type = content_type.partition(";")[0].strip().lower()
        media_type = media_type if _TYPE.fullmatch(media_type) else OTHER_TYPE
        name = f"{kind}-{secrets.token_urlsafe(24)}.{_EXTENSIONS.get(media_type, 'bin')}"
        expires = time.time() + min(seconds, self._settings.keep_seconds)
        return {"name": name, "key_id": key_id, "content_type": media_type, "expires": expires}

    def _usage(self, connection: Connection, key_id: str) -> tuple[int, int]:
        """Bytes and number of a key's uploads. Holds the key, so that no other adds meanwhile."""
        connection.execute(select(KEYS.c.id).where(KEYS.c.id == key_id).with_for_update())
        live = (FILES.c.key_id == key_id) & FILES.c.name.startswith("in-", autoescape=True)
        sums = (func.coalesce(func.sum(FILES.c.size), 0), func.count())
        asked = select(*sums).where(live & (FILES.c.expires > time.time()))
        used, count = connection.execute(asked).one()
        return int(used), int(count)


def too_large(most: int) -> UploadError:
    """The refusal of a file with more bytes than that."""
    return UploadError(413, f"The file is too large. It may have {most // MEGABYTE} MB.")


def private(path: str, flags: int) -> int:
    """An opener of files that only this user may read."""
    return os.open(path, flags, 0o600)


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _batches(names: Iterable[str], size: int = 500) -> Iterable[list[str]]:
    ordered = sorted(names)
    return (ordered[start : start + size] for start in range(0, len(ordered), size))
