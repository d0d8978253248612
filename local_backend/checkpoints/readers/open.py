"""Opens tensor files by what they contain; reads headers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ....nodes.errors import CheckpointError, ModelNotFoundError
from .gguf import MAGIC, open_gguf
from .safetensors import open_safetensors
from .types import TensorFiles, TensorInfo

__all__ = ["INDEX_SUFFIX", "TensorFiles", "TensorInfo", "open_tensors", "read_json"]

INDEX_SUFFIX = ".safetensors.index.json"

_ZIP = b"PK\x03\x04"
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_STRANGERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the model. Fetch the file itself",
    b"<!DOCTYPE": "is a web page, not a model. Download the file itself",
    b"<html": "is a web page, not a model. Download the file itself",
}


def open_tensors(path: Path) -> TensorFiles:
    """What a .safetensors or .gguf file, or the index of a model's shards, contains.

    The content decides, not the name. Reads headers only.

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: it is damaged, cut short or a pickle, or shards do not fit together.
        MissingDependencyError: it is a GGUF file and the gguf package is not installed.
    """
    if not path.exists():
        raise ModelNotFoundError(f"{path} is not there. Choose the file again.")
    try:
        if path.name.endswith(".index.json"):
            return _open_shards(path)
        return _open_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in this file.

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: it is not JSON, or no object.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not there. Download the model again.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON. Download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object. Download it again.")
    return value


def _open_file(path: Path) -> TensorFiles:
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(MAGIC):
        return open_gguf(path)
    # a safetensors header's length may look like another format's first bytes, its "{" may not
    if start[8:9] != b"{":
        for first, description in _STRANGERS.items():
            if start.startswith(first):
                raise CheckpointError(f"{path.name} {description}.")
        if start.startswith((_ZIP, *_PICKLES)):
            raise CheckpointError(
                f"{path.name} is a pickle or a zip file, which can run code when it is opened. "
                "Choose a .safetensors or .gguf file."
            )
    return open_safetensors(path)


def _open_shards(path: Path) -> TensorFiles:
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise CheckpointError(f"{path.name} names no shards. Download it again.")
    homes: dict[str, TensorFiles] = {}
    metadata: dict[str, str] = {}
    for name in sorted(set(places.values())):
        shard = _open_shard(path, name)
        metadata |= shard.metadata
        for tensor in shard.tensors:
            if tensor in homes:
                raise CheckpointError(
                    f"{tensor} is in {homes[tensor].path.name} and in {name}. "
                    "Keep the shards of one model only."
                )
            homes[tensor] = shard
    for tensor, name in places.items():
        if tensor not in homes or homes[tensor].path.name != name:
            raise CheckpointError(f"{tensor} is not in {name}, as {path.name} says it is.")

    def read(tensor: str) -> Tensor:
        return homes[tensor].read(tensor)

    tensors = {tensor: shard.tensors[tensor] for tensor, shard in homes.items()}
    return TensorFiles(path, tensors, metadata, read)


def _open_shard(index: Path, name: str) -> TensorFiles:
    path = index.parent / name
    if Path(name).name != name or not path.is_file():
        raise CheckpointError(f"{name}, a part of {index.name}, is missing. Download it again.")
    return _open_file(path)
