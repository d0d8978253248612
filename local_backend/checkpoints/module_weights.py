"""A module on the meta device and its weights, which are read from the file when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from ...nodes.errors import CheckpointError
from ..quantization.stored_weight import Stored, stack, unpackable_types
from .quant_metadata import LayerMetadata, check_layer, plain_type, split_metadata
from .readers.gguf import gguf_types
from .readers.types import FLOAT_TYPES, FP8_TYPES, TORCH_TYPES, TensorFiles, TensorInfo


@dataclass(frozen=True)
class WeightInfo:
    """One parameter: its shape, what it takes in the file, whether it is packed or scaled."""

    shape: tuple[int, ...]
    nbytes: int
    quantized: bool


@dataclass(frozen=True)
class Slice:
    """Where a parameter lies: a tensor of the source, or spans of its rows under each other.

    Attributes:
        shape: of the parameter, if it is not that of the tensor or of its rows.
    """

    source: str
    spans: tuple[tuple[int, int], ...] = ()
    shape: tuple[int, ...] | None = None


Model = TypeVar("Model", bound=nn.Module)
# of a ModelFile or a Part; without a class in brackets, these hold any module
Model_co = TypeVar("Model_co", bound=nn.Module, default=nn.Module, covariant=True)


@dataclass(frozen=True, eq=False)
class ModelFile(Generic[Model_co]):
    """A module on the meta device and the weights that belong into it."""

    module: Model_co
    weights: ModuleWeights


class Source:
    """A model's weights under the names of its layout, with their quantisation metadata."""

    def __init__(self, files: TensorFiles, key_map: Mapping[str, str]) -> None:
        """`key_map`: the layout's names -> the names in the file.

        Raises:
            CheckpointError: a weight is of a type or format that dense() cannot dequantise.
        """
        self.files = files
        self._key_map, self._layers = split_metadata(files, key_map)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: files.tensors[stored] for name, stored in self._key_map.items()}
        )
        self._gguf_types: dict[str, int] = {}
        kinds = {info.dtype for info in self.tensors.values()}
        if not kinds <= TORCH_TYPES.keys():
            self._gguf_types = {names[0]: kind for kind, names in gguf_types().items()}
        for name in self.tensors:
            self._check(name)

    def quantized(self, name: str) -> bool:
        return self.tensors[name].dtype not in FLOAT_TYPES

    def scale_bytes(self, name: str, share: float) -> int:
        """What the weight's scale takes as float32, for this share of the rows."""
        scale = self._layers.get(name, LayerMetadata()).scale
        if scale is None or not self.quantized(name):
            return 0
        count = self.files.tensors[scale].shape[:1]
        return 4 * (max(1, round(count[0] * share)) if count else 1)

    def read(self, name: str) -> Stored:
        """One weight, memory-mapped."""
        info, layer = self.tensors[name], self._layers.get(name, LayerMetadata())
        data = self.files.read(self._key_map[name])
        noted = plain_type(layer)
        if noted is not None and info.dtype == "U8":
            data = data.view(TORCH_TYPES[noted])
        if info.dtype not in TORCH_TYPES:
            return Stored(data, info.shape, None, self._gguf_types[info.dtype])
        scale = None if layer.scale is None else _read_scale(self.files, layer.scale)
        if scale is not None and not self.quantized(name):
            # converters write scales beside weights that they left as they were
            return Stored((data.float() * scale).to(data.dtype), info.shape)
        return Stored(data, info.shape, scale)

    def _check(self, name: str) -> None:
        info, layer = self.tensors[name], self._layers.get(name, LayerMetadata())
        check_layer(self.files, name, info, layer)
        known = FLOAT_TYPES | FP8_TYPES | {"I8"}
        if info.dtype in known or (info.dtype == "U8" and layer.format is not None):
            return
        if info.dtype in TORCH_TYPES or info.dtype not in unpackable_types():
            raise CheckpointError(
                f"{self._key_map[name]} in {self.files.path.name} is stored as {info.dtype}, which "
                "this pack cannot unpack. Choose a bf16, fp16, fp8 or GGUF Q4_K_S to Q8_0 file."
            )


class ModuleWeights:
    """The weights of one module, read when they are asked for.

    Attributes:
        sizes: what is known of every parameter without reading it.
    """

    def __init__(self, sizes: Mapping[str, WeightInfo], read: Callable[[str], Stored]) -> None:
        self.sizes = MappingProxyType(dict(sizes))
        self._read = read

    # ComfyUI runs nodes in inference mode; weights made there could never be compiled.
    @torch.inference_mode(False)
    def read(self, name: str) -> Stored:
        """The parameter of this name, memory-mapped where it lies in one piece.

        Raises:
            CheckpointError: the file cannot be read.
        """
        stored = self._read(name)
        assert stored.shape == self.sizes[name].shape, name
        return stored


def bind(
    module: Model, source: Source, slices: Mapping[str, Slice], unknown: Iterable[str]
) -> ModelFile[Model]:
    """The module with the weights that lie at these places.

    Args:
        unknown: names in the source for which there is no place.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape.
    """
    sizes = {name: _size(source, place) for name, place in slices.items()}
    parameters = {name: tuple(value.shape) for name, value in module.named_parameters()}
    path = source.files.path.name
    strays = [*unknown, *(slices[name].source for name in slices.keys() - parameters.keys())]
    _refuse(path, "unknown", sorted(set(strays)))
    _refuse(path, "missing", sorted(parameters.keys() - sizes.keys()))
    for name, shape in parameters.items():
        if sizes[name].shape != shape:
            raise CheckpointError(
                f"{name} in {path} is {list(sizes[name].shape)}, not {list(shape)}. "
                "The file is damaged or of another model; choose another one."
            )

    def read(name: str) -> Stored:
        place = slices[name]
        stored = source.read(place.source)
        if place.shape is not None:
            return replace(stored, data=stored.data.reshape(place.shape), shape=place.shape)
        if not place.spans:
            return stored
        return stack([stored.rows(start, stop) for start, stop in place.spans])

    return ModelFile(module, ModuleWeights(sizes, read))


def shapes_at(source: Source, slices: Mapping[str, Slice]) -> dict[str, tuple[int, ...]]:
    """The parameters' shapes as the file has them."""
    return {name: _size(source, place).shape for name, place in slices.items()}


def _refuse(path: str, what: str, names: list[str]) -> None:
    if names:
        weights = "1 weight" if len(names) == 1 else f"{len(names)} weights"
        raise CheckpointError(
            f"{path} has {weights} {what}, such as {names[0]}. "
            "The file is damaged or of another model; choose another one."
        )


def _size(source: Source, place: Slice) -> WeightInfo:
    info = source.tensors[place.source]
    shape, share = info.shape, 1.0
    if place.spans and shape:
        rows = sum(max(0, min(stop, shape[0]) - start) for start, stop in place.spans)
        shape, share = (rows, *shape[1:]), rows / shape[0] if shape[0] else 1.0
    if place.shape is not None:
        shape = place.shape
    nbytes = round(info.nbytes * share) + source.scale_bytes(place.source, share)
    return WeightInfo(shape, nbytes, source.quantized(place.source))


def _read_scale(files: TensorFiles, name: str) -> Tensor:
    scale = files.read(name).float()
    return scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, 1)
