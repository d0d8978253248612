"""One model of the pipeline, filled from its file when it is needed and emptied after.

Its home is the file, mapped into memory: an empty part holds nothing but its layers' names.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Generic

import psutil
import torch
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints.load import ModelFile
from ..checkpoints.lora import Lora, LowRank
from ..checkpoints.module_weights import Model_co
from ..quantization.fp8 import QuantisedOnce, fits, row_scale
from ..quantization.fused_qkv import FusedAttention, can_fuse
from ..quantization.linear import StoredLinear, low_rank, scaled, store_linears
from ..quantization.stored_weight import Stored, to_fp8
from .block_streaming import BlockStreamer, Contents, Slot, StreamedBlock, lay_out, pack
from .devices import empty_cache
from .parameter_slots import Place, block_list, constants, moved, owners
from .residency import Fit, PartSizes

# Of the machine's memory, and of what is free of it: page-locked memory is nobody else's.
_MOST_PINNED = 0.45
_MOST_AVAILABLE = 0.8
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)

logger = logging.getLogger("onereward")


class Part(Generic[Model_co]):
    """A model that can be loaded and unloaded.

    Attributes:
        module: the model; empty while unloaded.
        dtype: what it computes in.
        check: called between tensors while it loads, and before each block that runs; may raise.
        on_unload: called when it is emptied.
        multiply: what of the blocks can, computes in 8 bits; read when it is filled.
        loads: how often it was filled.
        device_bytes: what it holds on its device now.
        streamer: runs the streamed blocks; None if there are none.
    """

    def __init__(
        self,
        file: ModelFile[Model_co],
        dtype: torch.dtype,
        *,
        block_lists: Sequence[str] = (),
        keep_stored: bool = True,
        left_out: Collection[str] = (),
        run_often: bool = False,
    ) -> None:
        """Takes over the file's module.

        Args:
            block_lists: the names of its lists of blocks, in the order in which they run.
            keep_stored: linear layers unpack their weights as they run; else all becomes `dtype`.
            left_out: layers that are not filled; `layer` gives them.
            run_often: a streamed block is worth a place in page-locked memory.
        """
        self.module, self.dtype, self._run_often = file.module, dtype, run_often
        self._weights = file.weights
        owned = owners(self.module)
        if keep_stored:
            store_linears(self.module)
        nn.Module.to(self.module, dtype)  # diffusers' own warns that there may be exceptions
        self._blocks = block_list(self.module, block_lists)
        leaves = {f"{layer}.{leaf}" for layer in left_out for leaf in ("weight", "bias")}
        self._left_out = [name for name in self._weights.sizes if name in leaves]
        self._places = {
            name: self._place(owned[name]) for name in self._weights.sizes if name not in leaves
        }
        self._names_in: dict[int | None, list[str]] = defaultdict(list)
        for name, place in self._places.items():
            self._names_in[place.block].append(name)
        self._constants = constants(self.module)
        self._pins = False
        for _, block in self._blocks:
            block.register_forward_pre_hook(lambda *_: self.check())
        self._quantised = QuantisedOnce()
        self.module.register_forward_hook(self._quantised.clear, always_call=True)
        self._fused: list[FusedAttention] = []
        self._lora: Mapping[str, LowRank] = {}
        self._kept: dict[str, Stored] = {}
        self._fit: Fit | None = None
        self._device = torch.device("cpu")
        self.check: Callable[[], None] = _nothing
        self.on_unload: Callable[[], None] = _nothing
        self.streamer: BlockStreamer | None = None
        self.loads = self.device_bytes = 0
        self.multiply = False

    def set_lora(self, lora: Lora | None, strength: float = 1.0) -> None:
        """Puts a LoRA, or none, in the place of the one before; a loaded part stays loaded."""
        self._take_lora_off()
        targets = {} if lora is None else lora.targets
        self._lora = {name: scaled(factors, strength) for name, factors in targets.items()}
        if self._fit is None:
            return
        try:
            self._put_lora(self._device)
        except BaseException:  # lack of memory: half a LoRA must not stay
            self.unload()
            raise

    @property
    def has_fp8(self) -> bool:
        """Whether its file holds 8-bit floats."""
        return any(self._weights.read(n).data.dtype in _FP8 for n in self._weights.sizes)

    @property
    def blocks(self) -> list[nn.Module]:
        """In the order in which they run."""
        return [block for _, block in self._blocks]

    def multipliable(self) -> tuple[int, int]:
        """How many of the blocks' linear layers can multiply in 8 bits, and how many there are."""
        held = [
            self._weights.read(name)
            for name, place in self._places.items()
            if place.linear is not None and place.block is not None
        ]
        able = [fits(s.shape, s.data.dtype) or (not s.quantized and fits(s.shape)) for s in held]
        return sum(able), len(held)

    @property
    def lora_targets(self) -> Collection[str]:
        """The layers that the LoRA changes."""
        return self._lora.keys()

    @property
    def fit(self) -> Fit | None:
        """How it lies on its device; None while it is empty."""
        return self._fit

    def sizes(self, fp8: bool = False) -> PartSizes:
        """What it takes on a device, before it is there."""
        blocks = [0] * len(self._blocks)
        numbers = (f.down.numel() + f.up.numel() for _, f in self._lora_layers())
        rest = sum(numbers) * self.dtype.itemsize
        for name, place in self._places.items():
            if place.block is None:
                rest += self._size(name, place, False)
            else:
                blocks[place.block] += self._size(name, place, fp8)
        left_out = sum(self._weights.sizes[name].nbytes for name in self._left_out)
        return PartSizes(rest=rest, blocks=tuple(blocks), left_out=left_out)

    def needs(self, fit: Fit) -> int:
        """Bytes that it takes on a device in this fit."""
        return self.sizes(fit.fp8).held(fit)

    @torch.inference_mode(False)
    @torch.no_grad()
    def load(self, device: torch.device, fit: Fit) -> None:
        """Fills the module, unless it lies there like that already."""
        if self._fit == fit and self._device == device:
            return
        self.unload()
        self.loads += 1
        self._fit, self._device = fit, device
        try:
            self._fill(device, fit)
        except BaseException:  # an interruption, too: half a model must not pass for a whole one
            self.unload()
            raise

    def unload(self) -> None:
        """Empties the module; its file stays open."""
        if self._fit is None:
            return
        page_locked = self._run_often and bool(self._fit.streamed)  # also of a load broken off
        if self.streamer is not None:
            self.streamer.close()
        self._quantised.clear()
        for fused in self._fused:
            fused.undo()
        for place in self._places.values():
            place.slot.empty()
            if place.linear is not None and place.scale is not None:
                place.scale.empty()
                place.linear.quantised = None
        for slot, tensor in self._constants:
            slot.put(tensor)
        self._take_lora_off()
        self.streamer, self._fit, self._kept, self._fused = None, None, {}, []
        self.device_bytes = 0
        self.on_unload()
        if page_locked:
            empty_cache(self._device)

    def layer(self, name: str) -> Callable[[Tensor], Tensor]:
        """A layer that was left out, on the part's device."""
        weight = self._read(f"{name}.weight").dense(self.dtype)
        bias = self._read(f"{name}.bias").dense(self.dtype)
        factors = self._lora.get(name)
        if factors is None:
            return lambda inputs: functional.linear(inputs, weight, bias)
        down, up = factors.down.to(weight), factors.up.to(weight)
        return lambda inputs: functional.linear(inputs, weight, bias) + low_rank(inputs, down, up)

    def _read(self, name: str) -> Stored:
        return self._kept.get(name) or moved(self._weights.read(name), self._device)

    def _place(self, held_by: Sequence[tuple[str, str]]) -> Place:
        path, leaf = held_by[0]
        block = self._block_of(path)
        linear = self.module.get_submodule(path)
        if isinstance(linear, StoredLinear) and leaf == "weight":
            return Place(Slot((linear, "data")), block, linear, Slot((linear, "scale")))
        return Place(Slot(*((self.module.get_submodule(p), name) for p, name in held_by)), block)

    def _block_of(self, path: str) -> int | None:
        for number, (name, _) in enumerate(self._blocks):
            if path.startswith(name + "."):
                return number
        return None

    def _size(self, name: str, place: Place, fp8: bool) -> int:
        info = self._weights.sizes[name]
        whole = prod(info.shape) * self.dtype.itemsize
        if place.linear is None:
            return whole
        if info.quantized:
            return info.nbytes
        if fp8:
            return prod(info.shape) + 4 * info.shape[0]
        return min(whole, info.nbytes)

    def _fill(self, device: torch.device, fit: Fit) -> None:
        for slot, tensor in self._constants:
            slot.put(tensor.to(device))
        for name in self._names_in[None]:
            self.check()
            self._put_all(self._content(name, device, fit), device)
        self._pins = self._may_pin(device, fit)
        streamed: list[StreamedBlock] = []
        for number in range(len(self._blocks)):
            self.check()
            contents = [c for n in self._names_in[number] for c in self._content(n, device, fit)]
            if number in fit.streamed:
                streamed.append(self._on_host(contents, fit))
            else:
                self._put_all(contents, device)
        self._fused = [FusedAttention(layer) for layer in self._fusible(fit)]
        self._put_lora(device)
        if fit.keep:
            self._kept = {n: moved(self._weights.read(n), device) for n in self._left_out}
            self.device_bytes += sum(stored.data.nbytes for stored in self._kept.values())
        if streamed:
            blocks = [self.blocks[number] for number in sorted(fit.streamed)]
            self.streamer = BlockStreamer(blocks, streamed, device)
            self.device_bytes += self.streamer.device_bytes

    def _on_host(self, contents: Contents, fit: Fit) -> StreamedBlock:
        """Page-locked as long as there is such memory; else in the file, if it is as there."""
        if self._pins:
            try:
                return pack(contents, pin=True)
            except RuntimeError as error:  # drivers differ in what they call it
                logger.warning("no page-locked memory is left; streaming is slower: %s", error)
                self._pins = False
        return pack(contents) if fit.fp8 else lay_out(contents)

    def _may_pin(self, device: torch.device, fit: Fit) -> bool:
        sizes = self.sizes(fit.fp8).blocks
        # torch rounds each piece up to a power of two
        size = sum(1 << sizes[number].bit_length() for number in fit.streamed)
        memory = psutil.virtual_memory()
        most = min(_MOST_PINNED * memory.total, _MOST_AVAILABLE * memory.available)
        return self._run_often and device.type == "cuda" and size <= most

    def _content(self, name: str, device: torch.device, fit: Fit) -> list[tuple[Slot, Tensor]]:
        """What goes into a weight's slots; on the device only if it is converted there."""
        stored, place = self._weights.read(name), self._places[name]
        linear = place.linear
        if linear is None:
            return [(place.slot, stored.dense(self.dtype))]
        if fit.fp8 and place.block is not None and not stored.quantized:
            stored = to_fp8(stored.data.to(device))
        linear.gguf_type = stored.gguf_type
        data = stored.data
        if not stored.quantized and data.dtype != self.dtype:
            data = self._converted(data, device, streamed=place.block in fit.streamed)
        scale = stored.scale
        if self.multiply and place.block is not None and fits(stored.shape, data.dtype):
            linear.quantised = self._quantised
            scale = row_scale(scale, stored.shape[0], data.device)
        content = [(place.slot, data)]
        if scale is not None and place.scale is not None:
            content.append((place.scale, scale))
        return content

    def _fusible(self, fit: Fit) -> list[FluxAttention]:
        """The attentions of the resident blocks whose projections may be one layer."""
        resident = [block for n, block in enumerate(self.blocks) if n not in fit.streamed]
        layers = [layer for block in resident for layer in block.modules()]
        return [layer for layer in layers if isinstance(layer, FluxAttention) and can_fuse(layer)]

    def _converted(self, data: Tensor, device: torch.device, streamed: bool) -> Tensor:
        """A weight in the dtype that it is computed in, unless that is the wider one: then it is
        made as the layer runs, and so is a streamed one's, which would only take place here.
        """
        change = data.dtype.itemsize - self.dtype.itemsize
        if streamed:
            return data.to(self.dtype) if change > 0 else data
        return data.to(device).to(self.dtype) if change >= 0 else data

    def _put_all(self, contents: Contents, device: torch.device) -> None:
        for slot, tensor in contents:
            tensor = tensor.to(device)
            slot.put(tensor)
            self.device_bytes += tensor.nbytes

    @torch.inference_mode(False)
    @torch.no_grad()
    def _put_lora(self, device: torch.device) -> None:
        for linear, factors in self._lora_layers():
            linear.down = factors.down.to(device, self.dtype)
            linear.up = factors.up.to(device, self.dtype)
            self.device_bytes += linear.down.nbytes + linear.up.nbytes
        for fused in self._fused:
            fused.update()

    def _take_lora_off(self) -> None:
        for linear, _ in self._lora_layers():
            if linear.down is not None and linear.up is not None:
                self.device_bytes -= linear.down.nbytes + linear.up.nbytes
            linear.down = linear.up = None

    def _lora_layers(self) -> Iterator[tuple[StoredLinear, LowRank]]:
        """The layers the LoRA is for, but for those that were left out."""
        for name, factors in self._lora.items():
            layer = self.module.get_submodule(name)
            if isinstance(layer, StoredLinear):
                yield layer, factors


def _nothing() -> None:
    """Nobody has to be told."""
