"""What a reader returns: tensors known by their header (dtype, shape, bytes), read one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

# What safetensors calls the types of whole bytes, and torch's names for them.
TORCH_TYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
FLOAT_TYPES = frozenset({"BF16", "F16", "F32"})
FP8_TYPES = frozenset({"F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as a header describes it.

    Attributes:
        dtype: safetensors' name of the type ("BF16", "F8_E4M3"), or GGUF's ("Q8_0", "Q4_K").
        shape: of the values, also where they are packed.
        nbytes: what it takes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class TensorFiles:
    """One file, or the shards of one model, as one set of named tensors."""

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, TensorInfo],
        metadata: Mapping[str, str],
        read: Callable[[str], Tensor],
    ) -> None:
        self.path = path
        self.tensors = MappingProxyType(dict(tensors))
        self.metadata = MappingProxyType(dict(metadata))
        self._read = read

    # ComfyUI runs nodes in inference mode; weights made there could never be compiled.
    @torch.inference_mode(False)
    def read(self, name: str) -> Tensor:
        """The tensor's storage as it lies in the file, on the CPU, memory-mapped.

        A packed GGUF tensor is uint8 [rows, bytes of a row].

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: the file cannot be read.
        """
        if name not in self.tensors:
            raise KeyError(name)
        return self._read(name)
