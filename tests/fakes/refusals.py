"""Checks that a file is refused in one sentence, before any weight is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest
from onereward_pack.local_backend.checkpoints.readers.types import TensorFiles
from onereward_pack.nodes.errors import CheckpointError
from safetensors.torch import load_file, save_file
from torch import Tensor


def refusal(opener: Callable[[Path], object], path: Path, may_read: bool = False) -> str:
    """What the opener says about this file; unless it may, it fails if it reads a weight first."""

    def read(self: TensorFiles, name: str) -> Tensor:
        raise AssertionError(f"{name} was read")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckpointError) as refused:
        if not may_read:
            patch.setattr(TensorFiles, "read", read)
        opener(path)
    said = str(refused.value)
    assert path.name in said
    assert said.endswith(".") and "\n" not in said
    return said


def rewrite(path: Path, put: Mapping[str, Tensor], drop: Collection[str] = ()) -> Path:
    """The same safetensors file with some tensors in place of others."""
    tensors = {name: value for name, value in load_file(path).items() if name not in drop}
    save_file(tensors | dict(put), path)
    return path
