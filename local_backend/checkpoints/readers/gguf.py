"""The GGUF format: its header, checked before anything is read.

The gguf package's reader makes an array of every value of the header (a second for a tokenizer's
words) and does not end when a damaged one names too many, so only its table of types is used.
"""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path
from typing import BinaryIO

from ....nodes.errors import CheckpointError, MissingDependencyError
from .mmap import mapped_reader
from .types import TensorFiles, TensorInfo

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_LONGEST_TEXT = 1 << 24
_MOST_TENSORS = 1 << 20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_TEXT, _ARRAY = 8, 9
# Whole values that torch has a type for; every other type is packed in blocks.
_WHOLE = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


def gguf_types() -> dict[int, tuple[str, int, int]]:
    """GGUF's types by number: name, values in a block, bytes of a block.

    Raises:
        MissingDependencyError: the gguf package is not installed.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'GGUF files need the package gguf. Run: "{sys.executable}" -m pip install gguf'
        ) from error
    return {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}


def open_gguf(path: Path) -> TensorFiles:
    """Reads the header alone.

    Raises:
        CheckpointError: the header is broken, or the data is not as long as it says.
        MissingDependencyError: the gguf package is not installed.
    """
    types = gguf_types()
    try:
        with path.open("rb") as file:
            header = _Header(file, path.stat().st_size)
            tensors, offsets = header.read(types)
    except (struct.error, ValueError) as error:
        raise CheckpointError(
            f"{path.name} is damaged or cut short: {error}. Download it again."
        ) from error
    return TensorFiles(path, tensors, header.metadata, mapped_reader(path, tensors, offsets))


class _Header:
    """Reads one header from start to end; ValueError or struct.error where it makes no sense."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.metadata: dict[str, str] = {}

    def read(
        self, types: dict[int, tuple[str, int, int]]
    ) -> tuple[dict[str, TensorInfo], dict[str, int]]:
        magic, version = self._file.read(4), self._number("I")
        if magic != MAGIC or version not in _VERSIONS:
            raise ValueError(f"GGUF version {version} is unknown")
        count, fields = self._number("Q"), self._number("Q")
        if count > _MOST_TENSORS or fields > _MOST_TENSORS:
            raise ValueError(f"its header names {count} tensors and {fields} fields")
        for _ in range(fields):
            self._read_field()
        entries = [self._read_entry(types) for _ in range(count)]
        start = self._data_start()
        tensors = {name: info for name, info, _ in entries}
        if len(tensors) < count:
            raise ValueError("it names a tensor twice")
        offsets = {name: start + offset for name, _, offset in entries}
        for name, info in tensors.items():
            if offsets[name] + info.nbytes > self._size:
                end = offsets[name] + info.nbytes
                raise ValueError(f"{name} ends at byte {end} of {self._size}")
        return tensors, offsets

    def _number(self, code: str) -> int:
        size = struct.calcsize("<" + code)
        return int(struct.unpack("<" + code, self._file.read(size))[0])

    def _text(self) -> str:
        length = self._number("Q")
        if length > _LONGEST_TEXT:
            raise ValueError(f"its header holds a text of {length} bytes")
        return self._file.read(length).decode("utf-8", "replace")

    def _read_field(self) -> None:
        name, kind = self._text(), self._number("I")
        if kind == _ARRAY:
            self._skip_array()
        else:
            self.metadata[name] = self._value(kind)

    def _value(self, kind: int) -> str:
        if kind == _TEXT:
            return self._text()
        if kind not in _SCALARS:
            raise ValueError(f"its header holds a value of the unknown kind {kind}")
        code = "<" + _SCALARS[kind]
        return str(struct.unpack(code, self._file.read(struct.calcsize(code)))[0])

    def _skip_array(self) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind == _TEXT and count <= self._size:
            for _ in range(count):
                self._file.seek(self._number("Q"), 1)
        elif kind in _SCALARS and count <= self._size:
            self._file.seek(count * struct.calcsize("<" + _SCALARS[kind]), 1)
        else:
            raise ValueError(f"its header holds {count} values of the kind {kind}")

    def _read_entry(self, types: dict[int, tuple[str, int, int]]) -> tuple[str, TensorInfo, int]:
        name, dimensions = self._text(), self._number("I")
        if dimensions > 8:
            raise ValueError(f"{name} has {dimensions} dimensions")
        # GGUF counts from the innermost dimension
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in types:
            raise ValueError(f"{name} is of the unknown type {kind}")
        dtype, values, size = types[kind]
        if shape and shape[-1] % values:
            raise ValueError(f"{name} has rows of {shape[-1]} values, not whole blocks of {values}")
        return name, TensorInfo(dtype, shape, math.prod(shape) // values * size), offset

    def _data_start(self) -> int:
        alignment = int(self.metadata.get("general.alignment", "32"))
        if alignment < 8 or alignment % 8:
            raise ValueError(f"its alignment is {alignment}")
        return -(-self._file.tell() // alignment) * alignment
