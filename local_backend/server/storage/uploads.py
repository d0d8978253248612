"""Takes uploads off the wire: whole files, and files in parts that come in any order."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from asyncio import to_thread
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..settings import MEGABYTE
from .files import Files, UploadError, private, too_large

MOST_PARTS = 10_000
_BLOCK = 4096  # a part counts as that much at least, which is what it takes of a disk
_ETAG = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?', re.ASCII)
_MADE = "This upload was made before. Start another."
_Result = TypeVar("_Result")


@dataclass
class _Writing:
    """One file that grows, and what it counts for so far."""

    files: Files
    name: str
    path: Path
    size: int = 0
    claimed: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes | bytearray, least: int = 0) -> None:
        self.size += len(data)
        if self.size > self.files.largest:
            raise too_large(self.files.largest)
        missing = max(self.size, least) - self.claimed
        if missing > 0:
            self.files.claim(self.name, missing)
            self.claimed += missing
        self.digest.update(data)
        with open(self.path, "ab", opener=private) as stream:
            stream.write(data)

    def undo(self) -> None:
        self.path.unlink(missing_ok=True)
        if self.claimed:
            self.files.release(self.name, self.claimed)


async def store(files: Files, name: str, chunks: AsyncIterator[bytes]) -> None:
    """The upload of that name, whole. If it breaks off, the name still awaits it.

    Raises:
        UploadError: it was made before, it is too large, or the key has no room for it.
    """
    if not await to_thread(files.is_pending, name):
        raise UploadError(403, _MADE)
    writing = _Writing(files, name, files.scratch(name))

    def end() -> None:
        if not files.finish(name, writing.path, writing.size):
            files.is_pending(name)  # raises if it expired
            raise UploadError(403, _MADE)

    await _write(writing, chunks)
    await _or_undo(writing, to_thread(end))


async def store_part(
    files: Files, name: str, number: int, chunks: AsyncIterator[bytes], key_id: str | None = None
) -> str:
    """One part of an upload; a second one of that number is another. Returns its ETag, in quotes.

    Raises:
        UploadError: the upload is over, it is too large, or the key has no room for it.
    """
    if not await to_thread(files.is_pending, name, key_id):
        raise UploadError(403, _MADE)
    writing = _Writing(files, name, files.scratch(name))

    def end() -> str:
        etag = writing.digest.hexdigest()
        place = _part(files, name, number, etag)
        if place.exists():  # a client that tried again
            writing.undo()
        else:
            os.replace(writing.path, place)
        return f'"{etag}"'

    await _write(writing, chunks, _BLOCK)
    return await _or_undo(writing, to_thread(end))


def complete(files: Files, name: str, key_id: str | None, parts: Sequence[tuple[int, str]]) -> None:
    """Put an upload together from its parts, given as number and ETag in any order. A
    repeated call succeeds: the client may not have heard the first answer. Call it in a thread.

    Raises:
        UploadError: a part is missing, or its ETag is another.
    """
    if not files.is_pending(name, key_id):
        return
    whole = files.scratch(name)
    try:
        places = _places(files, name, parts)
        size = _join(places, whole, files.largest)
        if not files.finish(name, whole, size):
            raise FileNotFoundError
    except (FileNotFoundError, UploadError) as error:
        if not files.is_pending(name, key_id):
            return  # another call was faster, and took the parts away
        if isinstance(error, UploadError):
            raise
        raise UploadError(400, "A part of the upload is gone. Start it again.") from error
    finally:
        whole.unlink(missing_ok=True)
    for place in places:
        place.unlink(missing_ok=True)


def _join(places: Sequence[Path], whole: Path, most: int) -> int:
    size = sum(place.stat().st_size for place in places)
    if size > most:
        raise too_large(most)
    with open(whole, "xb", opener=private) as target:
        for place in places:
            with open(place, "rb") as source:
                shutil.copyfileobj(source, target, MEGABYTE)
    return size


def _places(files: Files, name: str, parts: Sequence[tuple[int, str]]) -> list[Path]:
    ordered = sorted(parts)
    numbers = [number for number, _ in ordered]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise UploadError(400, "The parts must be numbered 1, 2, 3, ... without a gap.")
    places = []
    for number, declared in ordered:
        etag = _ETAG.fullmatch(declared.strip())
        place = _part(files, name, number, etag[1]) if etag else None
        if place is None or not place.is_file():
            raise UploadError(400, f"Part {number} was not received with that ETag.")
        places.append(place)
    return places


def _part(files: Files, name: str, number: int, etag: str) -> Path:
    return files.scratch(name, f"{number}.{etag}")


async def _write(writing: _Writing, chunks: AsyncIterator[bytes], least: int = 0) -> None:
    """A megabyte at a time, as every write is a claim on the key's room."""

    async def run() -> None:
        buffer = bytearray()
        async for chunk in chunks:
            buffer += chunk
            if len(buffer) >= MEGABYTE:
                await to_thread(writing.add, buffer, least)
                buffer = bytearray()
        await to_thread(writing.add, buffer, least)

    await _or_undo(writing, run())


async def _or_undo(writing: _Writing, work: Awaitable[_Result]) -> _Result:
    try:
        return await work
    except BaseException:
        await asyncio.shield(to_thread(writing.undo))
        raise
