"""Memory-mapped files (mmap) as tensors: read-only maps, which take no memory of their own.

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

from ....nodes.errors import CheckpointError
from .types import TORCH_TYPES, TensorInfo


def mapped_reader(
    path: Path, tensors: Mapping[str, TensorInfo], offsets: Mapping[str, int]
) -> Callable[[str], Tensor]:
    """Reads tensors by name; the file is mapped at the first read.

    Args:
        offsets: where in the file each tensor begins. One of a type torch has no name for becomes
            uint8 [rows, bytes of a row].
    """
    whole: list[mmap.mmap] = []

    def read(name: str) -> Tensor:
        if not whole:
            whole.append(_map(path))
        info, dtype = tensors[name], TORCH_TYPES.get(tensors[name].dtype)
        values = _view(whole[0], offsets[name], info.nbytes, dtype or torch.uint8)
        return values.view(info.shape if dtype else (*info.shape[:-1], -1))

    return read


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error


def _view(mapping: mmap.mmap, start: int, nbytes: int, dtype: torch.dtype) -> Tensor:
    """Also where the values do not start at a multiple of their size, as in some files."""
    if not nbytes:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():  # torch has no tensors that refuse to be written to
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        count = nbytes // dtype.itemsize
        return torch.frombuffer(mapping, dtype=dtype, count=count, offset=start)
