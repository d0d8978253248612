"""Tensor files that are a header only: their data was never written and takes no space on disk."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel
from fakes.layouts_names import to_bfl

Shape = tuple[int, ...]
BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1, "I32": 4}


def write_sparse(
    path: Path,
    shapes: Mapping[str, Shape],
    dtype: str = "BF16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A safetensors file of these tensors, all of one type; reads give zeros."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return write_header(path, json.dumps(header).encode(), end)


def write_header(path: Path, header: bytes, size: int) -> Path:
    """A safetensors file with this header, padded to whole words, and so many bytes of nothing."""
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    return path


def flux_shapes(
    in_channels: int = 384, guidance: bool = True, bfl: bool = True, blocks: int | None = None
) -> dict[str, Shape]:
    """What a full-size FLUX.1 transformer's file holds.

    Args:
        blocks: fewer blocks of each kind than the 19 and 38 of the real one.
    """
    with init_empty_weights():
        model = FluxTransformer2DModel(
            in_channels=in_channels,
            out_channels=64,
            guidance_embeds=guidance,
            num_layers=blocks or 19,
            num_single_layers=blocks or 38,
        )
    state = {name: torch.empty_like(value) for name, value in model.state_dict().items()}
    return {n: tuple(v.shape) for n, v in (to_bfl(state) if bfl else state).items()}
