"""One model of the pipeline, loaded from its file when it is needed and offloaded after.

Its home is the file, mapped into memory: an offloaded part holds nothing but its layers' names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic

import torch
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints.load import ModelFile
from ..checkpoints.lora import Lora
from ..checkpoints.module_weights import Model_co
from ..quantization.fused_qkv import FusedAttention, can_fuse
from ..quantization.stored_weight import Stored
from .block_streaming import BlockStreamer, Contents, HostBlocks, StreamedBlock
from .devices import empty_cache
from .lora_adapter import LoraAdapter
from .parameter_slots import buffer_slots
from .part_weights import PartWeights
from .residency import PartSizes, Residency


class ModelPart(Generic[Model_co]):
    """A model that can be loaded and unloaded.

    Attributes:
        module: the model; empty while unloaded.
        dtype: what it computes in.
        weights: its file's.
        check: called between tensors while it loads, and before each block that runs; may raise.
        on_unload: called when it is emptied.
        residency: how it lies on its device; None while it is empty.
        loads: how often it was loaded.
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
            block_lists: the paths of its lists of blocks, in the order in which they run.
            keep_stored: linear layers unpack their weights as they run; else all becomes `dtype`.
            left_out: layers that are not loaded; `layer` gives them.
            run_often: a streamed block is worth its bytes of pinned memory.
        """
        self.module, self.dtype, self._run_often = file.module, dtype, run_often
        self.weights = PartWeights(
            file, dtype, block_lists=block_lists, keep_stored=keep_stored, left_out=left_out
        )
        self._lora = LoraAdapter(self.module, dtype)
        self._buffers = buffer_slots(self.module)
        for block in self.blocks:
            block.register_forward_pre_hook(lambda *_: self.check())
        self.module.register_forward_hook(self.weights.fp8_inputs.clear, always_call=True)
        self._fused: list[FusedAttention] = []
        self._held: dict[str, Stored] = {}  # of the layers that were left out
        self._device = torch.device("cpu")
        self.residency: Residency | None = None
        self.check: Callable[[], None] = _do_nothing
        self.on_unload: Callable[[], None] = _do_nothing
        self.streamer: BlockStreamer | None = None
        self.loads = self.device_bytes = 0

    @property
    def blocks(self) -> list[nn.Module]:
        """In the order in which they run."""
        return self.weights.blocks

    @property
    def lora_targets(self) -> Collection[str]:
        """The names of the layers that the LoRA changes."""
        return self._lora.targets

    def sizes(self, fp8: bool = False) -> PartSizes:
        """What it takes on a device, before it is there."""
        sizes = self.weights.sizes(fp8)
        return replace(sizes, rest=sizes.rest + self._lora.device_bytes)

    def required_bytes(self, residency: Residency) -> int:
        """What it takes on a device in this residency."""
        return self.sizes(residency.fp8).device_bytes(residency)

    def set_lora(self, lora: Lora | None, strength: float = 1.0) -> None:
        """Puts a LoRA, or none, in the place of the one before; a loaded part stays loaded."""
        if self.residency is not None:
            self._lora.detach()
            self.device_bytes -= self._lora.device_bytes
        self._lora.replace(lora, strength)
        if self.residency is None:
            return
        try:
            self._attach_lora()
        except BaseException:  # lack of memory: half a LoRA must not stay
            self.unload()
            raise

    @torch.inference_mode(False)
    @torch.no_grad()
    def load(self, device: torch.device, residency: Residency) -> None:
        """Fills the module, unless it lies there like that already."""
        if self.residency == residency and self._device == device:
            return
        self.unload()
        self.loads += 1
        self.residency, self._device = residency, device
        try:
            self._load(residency)
        except BaseException:  # an interruption, too: half a model must not pass for a whole one
            self.unload()
            raise

    def unload(self) -> None:
        """Empties the module; its file stays open."""
        if self.residency is None:
            return
        pinned = self._run_often and bool(self.residency.streamed)  # also of a load broken off
        if self.streamer is not None:
            self.streamer.close()
        for fused in self._fused:
            fused.undo()
        self.weights.clear()
        for slot, tensor in self._buffers:
            slot.put(tensor)
        self._lora.detach()
        self.streamer, self.residency, self._held, self._fused = None, None, {}, []
        self.device_bytes = 0
        self.on_unload()
        if pinned:
            empty_cache(self._device)

    def layer(self, name: str) -> Callable[[Tensor], Tensor]:
        """A layer that was left out, on the part's device."""
        weight, bias = (
            (self._held.get(leaf) or self.weights.read(leaf, self._device)).dense(self.dtype)
            for leaf in (f"{name}.weight", f"{name}.bias")
        )
        linear = partial(functional.linear, weight=weight, bias=bias)
        return self._lora.extended(name, linear, self._device)

    def _load(self, residency: Residency) -> None:
        for slot, tensor in self._buffers:
            slot.put(tensor.to(self._device))
        for name in self.weights.names_in(None):
            self.check()
            self._put(self.weights.content(name, self._device, residency))
        streamed = self._load_blocks(residency)
        self._fused = [FusedAttention(layer) for layer in self._fusible(residency)]
        self._attach_lora()
        if residency.hold_left_out:
            left_out = self.weights.left_out
            self._held = {name: self.weights.read(name, self._device) for name in left_out}
            self.device_bytes += sum(stored.data.nbytes for stored in self._held.values())
        if streamed:
            blocks = [self.blocks[number] for number in sorted(residency.streamed)]
            self.streamer = BlockStreamer(blocks, streamed, self._device)
            self.device_bytes += self.streamer.device_bytes

    def _load_blocks(self, residency: Residency) -> list[StreamedBlock]:
        """Puts the resident blocks on the device; returns the others, in order."""
        sizes = self.weights.sizes(residency.fp8).blocks
        pin = self._run_often and self._device.type == "cuda"
        host = HostBlocks([sizes[number] for number in residency.streamed], pin)
        streamed = []
        for number in range(len(self.blocks)):
            self.check()
            contents = [
                content
                for name in self.weights.names_in(number)
                for content in self.weights.content(name, self._device, residency)
            ]
            if number in residency.streamed:
                streamed.append(host.add(contents, converted=residency.fp8))
            else:
                self._put(contents)
        return streamed

    def _put(self, contents: Contents) -> None:
        for slot, tensor in contents:
            tensor = tensor.to(self._device)
            slot.put(tensor)
            self.device_bytes += tensor.nbytes

    def _fusible(self, residency: Residency) -> list[FluxAttention]:
        """The attentions of the resident blocks whose projections may be one layer."""
        resident = [block for n, block in enumerate(self.blocks) if n not in residency.streamed]
        layers = [layer for block in resident for layer in block.modules()]
        return [layer for layer in layers if isinstance(layer, FluxAttention) and can_fuse(layer)]

    def _attach_lora(self) -> None:
        self._lora.attach(self._device)
        self.device_bytes += self._lora.device_bytes
        for fused in self._fused:
            fused.update()


def _do_nothing() -> None:
    """The default of a part's callbacks."""
