"""The weights of one model's file, and what each becomes on a device: as stored, or in fp8."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..checkpoints.load import ModelFile
from ..quantization.fp8 import QuantisedOnce, fits, row_scale, to_fp8
from ..quantization.linear import store_linears
from ..quantization.stored_weight import Stored
from .block_streaming import TensorSlot
from .parameter_slots import block_list, parameter_holders, parameter_slots
from .residency import PartSizes, Residency, weight_bytes

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)

Content = list[tuple[TensorSlot, Tensor]]


class PartWeights:
    """A file's weights by the module's slots. They stay in the file until they are asked for.

    Attributes:
        blocks: the module's blocks, in the order in which they run.
        left_out: the names of the weights that have no slot, and are read one by one.
        fp8_products: linear layers of the blocks multiply in fp8 where they can; counts for what
            is made from now on.
        fp8_inputs: what is multiplied with them, quantised once for all layers that share it.
    """

    def __init__(
        self,
        file: ModelFile[nn.Module],
        dtype: torch.dtype,
        *,
        block_lists: Sequence[str],
        keep_stored: bool,
        left_out: Collection[str],
    ) -> None:
        """Prepares the file's module; see ModelPart."""
        module, self._file, self._dtype = file.module, file.weights, dtype
        holders = parameter_holders(module)
        if keep_stored:
            store_linears(module)
        nn.Module.to(module, dtype)  # diffusers' own warns that there may be exceptions
        blocks = block_list(module, block_lists)
        self.blocks = [block for _, block in blocks]
        leaves = {f"{layer}.{leaf}" for layer in left_out for leaf in ("weight", "bias")}
        self.left_out = [name for name in self._file.sizes if name in leaves]
        filled = [name for name in self._file.sizes if name not in leaves]
        self._slots = parameter_slots(module, filled, holders, blocks)
        self._names_in: dict[int | None, list[str]] = defaultdict(list)
        for name, slot in self._slots.items():
            self._names_in[slot.block].append(name)
        self.fp8_products = False
        self.fp8_inputs = QuantisedOnce()

    @property
    def has_fp8(self) -> bool:
        """Whether the file holds 8-bit floats."""
        return any(self._file.read(name).data.dtype in _FP8 for name in self._file.sizes)

    def count_fp8_products(self) -> tuple[int, int]:
        """How many of the blocks' linear layers can multiply in fp8, and how many there are."""
        held = [
            self._file.read(name)
            for name, slot in self._slots.items()
            if slot.linear is not None and slot.block is not None
        ]
        able = [fits(s.shape, s.data.dtype) or (not s.quantized and fits(s.shape)) for s in held]
        return sum(able), len(held)

    def sizes(self, fp8: bool) -> PartSizes:
        """What they take on a device."""
        rest, blocks = 0, [0] * len(self.blocks)
        for name, slot in self._slots.items():
            info, linear = self._file.sizes[name], slot.linear is not None
            if slot.block is None:
                rest += weight_bytes(info, self._dtype, linear=linear, fp8=False)
            else:
                blocks[slot.block] += weight_bytes(info, self._dtype, linear=linear, fp8=fp8)
        left_out = sum(self._file.sizes[name].nbytes for name in self.left_out)
        return PartSizes(rest=rest, blocks=tuple(blocks), left_out=left_out)

    def names_in(self, block: int | None) -> Sequence[str]:
        """The weights of a block; None: those outside the blocks."""
        return self._names_in[block]

    def content(self, name: str, device: torch.device, residency: Residency) -> Content:
        """What goes into a weight's slots; on the device only if it is converted there."""
        stored, slot = self._file.read(name), self._slots[name]
        linear = slot.linear
        if linear is None:
            return [(slot.tensor, stored.dense(self._dtype))]
        if residency.fp8 and slot.block is not None and not stored.quantized:
            stored = to_fp8(stored.data.to(device))
        linear.gguf_type = stored.gguf_type
        data = stored.data
        if not stored.quantized and data.dtype != self._dtype:
            data = self._converted(data, device, streamed=slot.block in residency.streamed)
        scale = stored.scale
        if self.fp8_products and slot.block is not None and fits(stored.shape, data.dtype):
            linear.quantised = self.fp8_inputs
            scale = row_scale(scale, stored.shape[0], data.device)
        content = [(slot.tensor, data)]
        if scale is not None and slot.scale is not None:
            content.append((slot.scale, scale))
        return content

    def read(self, name: str, device: torch.device) -> Stored:
        """A weight as the file has it, on the device."""
        stored = self._file.read(name)
        scale = None if stored.scale is None else stored.scale.to(device)
        return replace(stored, data=stored.data.to(device), scale=scale)

    def clear(self) -> None:
        """Empties all slots."""
        self.fp8_inputs.clear()
        for slot in self._slots.values():
            slot.clear()

    def _converted(self, data: Tensor, device: torch.device, streamed: bool) -> Tensor:
        """Casts a stored weight to the compute dtype where that takes no more memory.

        A weight in a narrower dtype stays as it is, and its layer casts it in each call. A streamed
        weight is cast on the host, and only if it gets smaller: a cast on the device would take
        memory that no estimate has.
        """
        change = data.dtype.itemsize - self._dtype.itemsize
        if streamed:
            return data.to(self._dtype) if change > 0 else data
        return data.to(device).to(self._dtype) if change >= 0 else data
