"""The safetensors format: its header, checked before anything is read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from ....nodes.errors import CheckpointError
from .mmap import mapped_reader
from .types import TensorFiles, TensorInfo

# What the format itself allows.
_LONGEST_HEADER = 100_000_000
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
_BITS |= dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8)
_BITS |= dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
_BITS |= dict.fromkeys(("U16", "I16", "F16", "BF16"), 16)
_BITS |= dict.fromkeys(("U32", "I32", "F32"), 32)
_BITS |= dict.fromkeys(("U64", "I64", "F64"), 64)


def open_safetensors(path: Path) -> TensorFiles:
    """Reads the header alone.

    Raises:
        CheckpointError: the header is broken, or the data is not as long as it says.
    """
    header, start = _read_header(path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(path, "its metadata is not a table")
    spans = {name: _read_entry(path, name, entry) for name, entry in header.items()}
    _check_spans(path, spans, path.stat().st_size - start)
    tensors = {name: info for name, (info, _, _) in spans.items()}
    offsets = {name: start + begin for name, (_, begin, _) in spans.items()}
    return TensorFiles(path, tensors, metadata, mapped_reader(path, tensors, offsets))


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _LONGEST_HEADER:
            raise _damaged(path, f"its header would be {length} bytes long")
        text = file.read(length)
    if len(text) < length:
        raise _damaged(path, f"it ends after {len(text)} of its header's {length} bytes")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table")
    return header, 8 + length


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        start, stop = entry["data_offsets"]
        bits = _BITS[dtype] * math.prod(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its header does not describe {name}") from error
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise _damaged(path, f"its header gives {name} a place that no tensor can have")
    if bits != 8 * (stop - start):
        raise _damaged(path, f"{name} would take {bits // 8} bytes but has {stop - start}")
    return TensorInfo(dtype, shape, stop - start), start, stop


def _check_spans(path: Path, spans: dict[str, tuple[TensorInfo, int, int]], size: int) -> None:
    """The format knows no gaps: each tensor starts where another ends, the last ends the file."""
    end = 0
    for name, (_, start, stop) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if start != end:
            wrong = "overlaps another tensor" if start < end else "leaves a gap before it"
            raise _damaged(path, f"{name} {wrong}")
        end = stop
    if size < end:
        raise _damaged(path, f"it holds {size} of the {end} bytes that its header names")
    if size > end:
        raise _damaged(path, f"{size - end} bytes follow its last tensor")


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path.name} is damaged or cut short: {what}. Download it again.")
