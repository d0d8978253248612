"""How files keep weights: plain dtypes, ComfyUI's scaled fp8 in its forms, scaled int8."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
Precision = Literal[
    "float32",
    "bfloat16",
    "float16",
    "fp8",
    "fp8_e5m2",
    "fp8_scaled",
    "fp8_scaled_input",
    "fp8_comfy",
    "fp8_comfy_metadata",
    "fp8_rows",
    "int8",
]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PLAIN = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp8": FP8,
    "fp8_e5m2": torch.float8_e5m2,
}


@dataclass(frozen=True, eq=False)
class Encoded:
    """What goes into a file, and what an exact reader gets out of it.

    Attributes:
        tensors: the file's tensors, quantisation metadata among them.
        metadata: of the safetensors header.
        dense: every weight as float32, dequantised.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)


def encode(
    state: Mapping[str, Tensor],
    precision: Precision,
    quantized: Iterable[str] = (),
    prefix: str = "",
) -> Encoded:
    """The state dict at this precision.

    A plain precision casts everything, as the common fp8 files do (norms and biases too). A
    scaled one quantises the named weights and keeps the rest as bfloat16.

    Args:
        quantized: keys of weights [rows, columns] that a scaled precision quantises.
        prefix: before every key of the file; `dense` has none.
    """
    if precision in PLAIN:
        stored = {key: value.to(PLAIN[precision]) for key, value in state.items()}
        dense = {key: value.float() for key, value in stored.items()}
        return Encoded(_prefixed(stored, prefix), {}, dense)
    chosen = set(quantized)
    stored = {k: v.to(torch.bfloat16) for k, v in state.items() if k not in chosen}
    dense = {key: value.float() for key, value in stored.items()}
    for key in chosen:
        data, scale = _quantize(state[key], precision)
        stored[key] = data
        stored |= _side_cars(key.removesuffix(".weight"), precision, scale)
        dense[key] = data.float() * scale
    if precision in ("fp8_scaled", "fp8_scaled_input"):
        # Two elements tell ComfyUI to multiply in full precision; none leaves the choice to it.
        stored["scaled_fp8"] = torch.zeros(2 if precision == "fp8_scaled" else 0).to(FP8)
    return Encoded(_prefixed(stored, prefix), _metadata(chosen, precision, prefix), dense)


def _quantize(weight: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """The data and its float32 scale: a scalar, or [rows, 1]."""
    weight = weight.float()
    if precision == "int8":
        scale = weight.abs().amax() / 127
        return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale
    by_row = precision == "fp8_rows"
    largest = weight.abs().amax(dim=1, keepdim=True) if by_row else weight.abs().amax()
    scale = largest / torch.finfo(FP8).max
    return (weight / scale).to(FP8), scale


def _side_cars(layer: str, precision: Precision, scale: Tensor) -> dict[str, Tensor]:
    if precision in ("fp8_scaled", "fp8_scaled_input"):
        cars = {f"{layer}.scale_weight": scale}
        if precision == "fp8_scaled_input":
            cars[f"{layer}.scale_input"] = torch.tensor(0.25)
        return cars
    cars = {f"{layer}.weight_scale": scale}
    if precision != "int8":
        cars[f"{layer}.input_scale"] = torch.tensor(0.25)
    if precision != "fp8_comfy_metadata":
        tag = json.dumps(_tag(precision)).encode("ascii")
        cars[f"{layer}.comfy_quant"] = torch.tensor(list(tag), dtype=torch.uint8)
    return cars


def _tag(precision: Precision) -> dict[str, str]:
    return {"format": "int8_tensorwise" if precision == "int8" else "float8_e4m3fn"}


def _metadata(chosen: set[str], precision: Precision, prefix: str) -> dict[str, str]:
    if precision in ("fp8_scaled", "fp8_scaled_input"):
        return {}
    layers = {prefix + key.removesuffix(".weight"): _tag(precision) for key in sorted(chosen)}
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def _prefixed(stored: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in stored.items()}
