"""Quantisation metadata: the scales and notes beside quantised weights, in ComfyUI's formats.

What is understood is a plain product of data and scale: one scale for a tensor, or one a row. All
else is refused, never dropped. So is int8 with rotation ("convrot"): its weights were multiplied by
a Hadamard matrix before they were rounded (as in QuaRot), and no scale alone dequantises them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ...nodes.errors import CheckpointError
from .readers.types import TensorFiles, TensorInfo

# What ComfyUI names a weight's scale in older and in newer files.
_SCALES = (".scale_weight", ".weight_scale")
# Scales of activations: they steer how a product is computed in fp8 and change no weight, so a
# product of the weights themselves has no use for them.
_ACTIVATION_SCALES = (".scale_input", ".input_scale")
_NOTE = ".comfy_quant"
_MARKER = "scaled_fp8"
_NOTES_IN_HEADER = "_quantization_metadata"

# Formats of a layer that are a plain product of data and scale.
_PLAIN_FORMATS = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8_tensorwise": "I8",
}
# The end of a name that only this format has.
_FOREIGN = {
    ".weight_scale_2": "NVFP4",
    ".pre_quant_scale": "NVFP4",
    ".weight_s_rel": "W4A8",
    ".weight_scale_inv": "block-scaled fp8",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes NF4",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes FP4",
    ".SCB": "bitsandbytes int8",
    ".wscales": "SVDQuant (nunchaku)",
    ".smooth_factor": "SVDQuant (nunchaku)",
    ".qzeros": "GPTQ or AWQ",
    ".weight_qdata": "torchao",
    "._weight_qdata": "torchao",
    ".weight._data": "quanto",
    ".weight_quantizer._scale": "ModelOpt",
}


@dataclass(frozen=True)
class LayerMetadata:
    """The metadata of one layer's weight: its scale's name, and its format if it is noted."""

    scale: str | None = None
    format: str | None = None


def foreign_format(files: TensorFiles) -> str | None:
    """The name of a quantisation format that this pack cannot read, if the file is in one."""
    for name in files.tensors:
        for end, method in _FOREIGN.items():
            if name.endswith(end):
                return method
    return None


def split_metadata(
    files: TensorFiles, key_map: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, LayerMetadata]]:
    """Separates the weights from their quantisation metadata.

    Args:
        key_map: a model's tensor names -> their names in the file.

    Returns:
        the weights' part of the key map, and the metadata of layers by the names of their weights.

    Raises:
        CheckpointError: metadata belongs to no weight, or is of a format that is not plain.
    """
    weights: dict[str, str] = {}
    scales: dict[str, str] = {}
    formats = _formats_in_header(files, key_map)
    for name, stored in key_map.items():
        layer, _, end = name.rpartition(".")
        if f".{end}" in _SCALES:
            scales[f"{layer}.weight"] = stored
        elif f".{end}" == _NOTE:
            formats[f"{layer}.weight"] = _read_note(files, stored)
        elif name != _MARKER and f".{end}" not in _ACTIVATION_SCALES:
            weights[name] = stored
    for name in sorted(scales.keys() | formats.keys()):
        if name not in weights:
            raise CheckpointError(
                f"{files.path.name} has quantisation data for {name}, which it lacks. "
                "Choose another file."
            )
    layers = {
        name: LayerMetadata(scales.get(name), formats.get(name))
        for name in sorted(scales.keys() | formats.keys())
    }
    return weights, layers


def check_layer(files: TensorFiles, name: str, info: TensorInfo, layer: LayerMetadata) -> None:
    """Raises CheckpointError if data and scale do not multiply plainly."""
    scale = None if layer.scale is None else files.tensors[layer.scale].shape
    if layer.format is not None and info.dtype not in (_PLAIN_FORMATS[layer.format], "U8"):
        raise CheckpointError(
            f"{name} in {files.path.name} is noted as {layer.format} but is {info.dtype}. "
            "Choose another file."
        )
    if info.dtype == "I8" and scale is None:
        raise CheckpointError(
            f"{name} in {files.path.name} is int8 without a scale. Choose another file."
        )
    if scale is None or scale in ((), (1,), (1, 1)):
        return
    if not info.shape or scale not in ((info.shape[0],), (info.shape[0], 1)):
        raise CheckpointError(
            f"{name} in {files.path.name} has scales of the shape {list(scale)}, which is neither "
            "one for all nor one a row. Choose a bf16, plain or scaled fp8, or GGUF file."
        )


def plain_type(layer: LayerMetadata) -> str | None:
    """The type of the data as the layer's note names it; None without a note."""
    return None if layer.format is None else _PLAIN_FORMATS[layer.format]


def _formats_in_header(files: TensorFiles, key_map: Mapping[str, str]) -> dict[str, str]:
    if _NOTES_IN_HEADER not in files.metadata:
        return {}
    try:
        layers = json.loads(files.metadata[_NOTES_IN_HEADER])["layers"]
        notes = {f"{layer}.weight": note for layer, note in layers.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{files.path.name} describes its quantisation in words that make no sense. "
            "Choose another file."
        ) from error
    by_stored = {stored: name for name, stored in key_map.items()}
    # a full checkpoint may note layers of its other models, too
    return {
        by_stored.get(stored, stored): _plain_format(files, note)
        for stored, note in notes.items()
        if stored in by_stored or stored not in files.tensors
    }


def _read_note(files: TensorFiles, stored: str) -> str:
    try:
        note = json.loads(files.read(stored).numpy().tobytes())
    except ValueError as error:
        raise CheckpointError(
            f"{stored} in {files.path.name} makes no sense. Choose another file."
        ) from error
    return _plain_format(files, note)


def _plain_format(files: TensorFiles, note: object) -> str:
    fields = note if isinstance(note, dict) else {}
    name = fields.get("format")
    params = fields.get("params")
    rotated = fields.get("convrot") or (isinstance(params, dict) and params.get("convrot"))
    if name not in _PLAIN_FORMATS or rotated:
        shown = f"{name} with rotation (Hadamard)" if rotated else name
        raise CheckpointError(
            f"{files.path.name} is quantised as {shown}, which only ComfyUI's own loader can read. "
            "Choose a bf16, fp8 or GGUF file, or connect OneReward Model Backend."
        )
    return str(name)
