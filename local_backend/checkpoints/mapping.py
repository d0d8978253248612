"""A file's bytes as tensors: mapped for reading alone, which takes no memory of its own.

The mappings of torch and safetensors can be written to. So a system without swap refuses them for
files larger than its memory, and Windows counts all of the file as used.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...nodes.errors import CheckpointError
from .tensors import TORCH_TYPES, TensorInfo


def mapped_reader(
    path: Path, tensors: Mapping[str, TensorInfo], offsets: Mapping[str, int]
) -> Callable[[str], Tensor]:
    """Reads tensors by name; the file is mapped at the first read.

    Args:
        offsets: where in the file each tensor begins. One of a type torch has no name for becomes
            uint8 [rows, bytes of a row].
    """
    whole: list[Tensor] = []

    def read(name: str) -> Tensor:
        if not whole:
            whole.append(_map(path))
        info, start = tensors[name], offsets[name]
        raw = whole[0][start : start + info.nbytes]
        dtype = TORCH_TYPES.get(info.dtype)
        if dtype is None:
            return raw.view(*info.shape[:-1], -1)
        # a view of wider values must start at a multiple of their size
        return (raw if start % dtype.itemsize == 0 else raw.clone()).view(dtype).view(info.shape)

    return read


def _map(path: Path) -> Tensor:
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    with warnings.catch_warnings():  # torch has no tensors that refuse to be written to
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.frombuffer(mapping, dtype=torch.uint8)
