"""Writes a file that only its owner may read: all of it or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_private(file: Path, content: str | bytes) -> None:
    """`content` in place of what `file` held. Its folder is made if it is not there, for this user
    alone as well. No other program ever reads half of it, or may read it for a moment.

    Raises:
        OSError: it cannot be written; what was there is there still.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, scratch = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
        raise
