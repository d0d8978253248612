"""The pictures of finished jobs as private files beside the database, whose rows name them.

A file is complete before a row names it, and its row is gone before the file is deleted. A crash in
between leaves a file without a row, an orphan, and never a row without a file. Orphans are deleted
at the start of a process, once they are as old as any picture gets. Until then a database of a
backup, or one that was moved away and is put back, still finds its files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterable
from pathlib import Path

from ..config.atomic_file import write_private
from ..errors import JournalError

LOG = logging.getLogger("onereward")
FOLDER = "journal_pictures"
ORPHAN_AGE = 30 * 86400.0  # seconds
# a picture, and what write_private names it before it is whole
_OURS = re.compile(r"\.?[0-9a-f]{32}\.picture(?:\.\w+)?")


class PictureMissingError(JournalError):
    """A file that the journal names is gone or cut short: the user or a cleaner took it."""


class PictureFolder:
    """Pictures by name. The folder is made with the first one, for this user alone (0700, 0600).

    Args:
        folder: where the database lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def write(self, data: bytes) -> str:
        """The new file's name. The bytes are on the disk when this returns, or OSError is raised
        and nothing is left.
        """
        name = f"{uuid.uuid4().hex}.picture"
        write_private(self._folder / name, data)
        _sync(self._folder)
        return name

    def write_all(self, images: Iterable[bytes]) -> list[str]:
        """The names of new files, in order: all of them, or OSError and none."""
        names: list[str] = []
        try:
            for data in images:
                names.append(self.write(data))
        except BaseException:
            self.delete(names)
            raise
        return names

    def read(self, name: str, size: int, crc: int) -> bytes:
        """A file of exactly these bytes.

        Raises:
            PictureMissingError: there is no such file, or it holds something else.
            OSError: it cannot be read, or the whole folder is gone.
        """
        file = self._folder / name
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            if not self._folder.is_dir():  # moved away as a whole: it can be put back
                raise
            raise PictureMissingError(_missing(file, "is gone")) from None
        if len(data) != size:
            raise PictureMissingError(_missing(file, f"has {len(data)} bytes instead of {size}"))
        if zlib.crc32(data) != crc:
            raise PictureMissingError(_missing(file, "is not what was written"))
        return data

    def check(self, names: Iterable[str]) -> None:
        """Raises FileNotFoundError unless all files are there."""
        for name in names:
            (self._folder / name).stat()

    def delete(self, names: Iterable[str]) -> None:
        """Delete files that no row names. One that is still open elsewhere stays, as an orphan."""
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                LOG.warning("A picture could not be deleted: %s", error)

    def old_files(self) -> set[str]:
        """The names of the files of this pack that are no younger than ORPHAN_AGE."""
        if not self._folder.is_dir():
            return set()
        youngest = time.time() - ORPHAN_AGE
        with os.scandir(self._folder) as entries:
            return {
                entry.name
                for entry in entries
                if _OURS.fullmatch(entry.name) and _changed(entry) < youngest
            }


def _changed(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:  # another process has just deleted it
        return time.time()


def _missing(file: Path, what: str) -> str:
    return (
        f"A picture of a paid job {what}: {file}. Put it back, or fetch the job "
        "with OneReward Collect while its service still has it."
    )


def _sync(folder: Path) -> None:
    """Make a rename durable. Not every network drive and no Windows can; there it is left out."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
