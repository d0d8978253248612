"""Block streaming with prefetch: while one block computes, the next one's weights are copied in.

diffusers calls it group offloading (diffusers.hooks.apply_group_offloading with use_stream). Ours
differs in three ways. Two buffers are allocated once and used in turn, so that nothing is allocated
while the model runs and the peak is known before. A block is one copy, and is copied once a step,
for both branches of the guidance. And a block may lie in its mapped file, where group offloading
holds all of them in the machine's memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn

Pairs = Sequence[tuple[Tensor, Tensor]]  # a view on the device, and what is copied to it

_ALIGNMENT = 256  # bytes; what a device's kernels like, and every dtype's size divides
# Of the machine's memory, and of what is free of it: nobody else can use pinned memory.
_MOST_PINNED = 0.45
_MOST_AVAILABLE = 0.8

logger = logging.getLogger("onereward")


class CopyQueue:
    """The order of copies and computation on a device. An event is a point in either.

    This is the queue of a device without streams, which does everything when it is asked for.
    """

    def copy(self, pairs: Pairs, after: Any) -> Any:
        """Starts copies that wait for the event `after`; returns the event of their end."""
        for target, source in pairs:
            target.copy_(source)

    def wait(self, event: Any) -> None:
        """Lets the computation go on only when the event has come."""

    def mark(self) -> Any:
        """The event of all computation so far having been done."""


class StreamCopyQueue(CopyQueue):
    """Copies on a stream of their own (CUDA, XPU), beside the computation."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._module = device, torch.get_device_module(device)
        self._copies = self._module.Stream(device)

    def copy(self, pairs: Pairs, after: Any) -> Any:
        with self._module.stream(self._copies):
            self._copies.wait_event(after)
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
            return self._copies.record_event()

    def wait(self, event: Any) -> None:
        self._module.current_stream(self._device).wait_event(event)

    def mark(self) -> Any:
        return self._module.current_stream(self._device).record_event()


def copy_queue_for(device: torch.device) -> CopyQueue:
    return StreamCopyQueue(device) if device.type in ("cuda", "xpu") else CopyQueue()


class TensorSlot:
    """A module's buffer or parameter, or those of several modules that share one tensor."""

    def __init__(self, *owners: tuple[nn.Module, str]) -> None:
        self._owners = owners
        module, name = owners[0]
        self._empty = module._parameters.get(name)

    def put(self, tensor: Tensor) -> None:
        if self._empty is None:
            self._set("_buffers", tensor)
        else:
            self._set("_parameters", nn.Parameter(tensor, requires_grad=False))

    def clear(self) -> None:
        """Back to what was there at first: no buffer, or a parameter without data."""
        self._set("_buffers" if self._empty is None else "_parameters", self._empty)

    def _set(self, kind: str, value: Tensor | None) -> None:
        for module, name in self._owners:
            getattr(module, kind)[name] = value


Contents = Sequence[tuple[TensorSlot, Tensor]]


@dataclass(frozen=True, eq=False)
class StreamedBlock:
    """A block's tensors on the host, and where they belong.

    Attributes:
        size: bytes that they take in a buffer.
        sources: the tensors, or the one, uint8, that holds all of them.
        packed: which of the two.
        layout: for each tensor its slot, its bytes in a buffer, its dtype and shape.
    """

    size: int
    sources: tuple[Tensor, ...]
    layout: tuple[tuple[TensorSlot, slice, torch.dtype, torch.Size], ...]
    packed: bool = False

    def bind(self, buffer: Tensor) -> Pairs:
        """Makes the slots views of a buffer; returns what has to be copied to fill it."""
        views = [buffer[span].view(dtype).view(shape) for _, span, dtype, shape in self.layout]
        for (slot, *_), view in zip(self.layout, views, strict=True):
            slot.put(view)
        if self.packed:
            return [(buffer[: self.size], self.sources[0])]
        return list(zip(views, self.sources, strict=True))


def lay_out(contents: Contents) -> StreamedBlock:
    """A block that is streamed from where its tensors lie, such as a memory-mapped file: slow, and
    takes no memory.
    """
    layout, end = [], 0
    for slot, tensor in contents:
        layout.append((slot, slice(end, end + tensor.nbytes), tensor.dtype, tensor.shape))
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return StreamedBlock(end, tuple(tensor for _, tensor in contents), tuple(layout))


def pack(contents: Contents, pin: bool = False) -> StreamedBlock:
    """A block that is streamed from one allocation in the machine's memory.

    Args:
        contents: on any device.
        pin: into pinned (page-locked) memory, from where copies run beside the computation;
            RuntimeError if the machine has none left.
    """
    block = lay_out(contents)
    host = torch.empty(block.size, dtype=torch.uint8, pin_memory=pin)
    for (_, span, _, _), tensor in zip(block.layout, block.sources, strict=True):
        host[span].copy_(tensor.contiguous().reshape(-1).view(torch.uint8))
    return replace(block, sources=(host,), packed=True)


class HostBlocks:
    """Where streamed blocks lie on the host: in pinned memory as long as there is enough of it."""

    def __init__(self, sizes: Sequence[int], pin: bool) -> None:
        """`sizes`: bytes of the blocks to come; `pin`: they run often enough to be worth it."""
        # torch rounds each allocation of pinned memory up to a power of two
        size = sum(1 << block.bit_length() for block in sizes)
        memory = psutil.virtual_memory()
        most = min(_MOST_PINNED * memory.total, _MOST_AVAILABLE * memory.available)
        self._pin = pin and size <= most

    def add(self, contents: Contents, converted: bool) -> StreamedBlock:
        """A block with these contents; without pinned memory it stays in its file, unless it was
        `converted` to something else.
        """
        if self._pin:
            try:
                return pack(contents, pin=True)
            except RuntimeError as error:  # drivers differ in what they call it
                logger.warning("no page-locked memory is left; streaming is slower: %s", error)
                self._pin = False
        return pack(contents) if converted else lay_out(contents)


class BlockStreamer:
    """Runs blocks from two buffers on the device, in turn: while one block computes in the first,
    the next one is prefetched into the second. A block is copied once each time it runs.

    Attributes:
        copies: how many blocks were copied so far.
        device_bytes: the size of both buffers.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        contents: Sequence[StreamedBlock],
        device: torch.device,
        queue: CopyQueue | None = None,
    ) -> None:
        """Takes over the blocks, given in the order in which they run."""
        self._queue = queue or copy_queue_for(device)
        size = max(block.size for block in contents)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self._pairs = [block.bind(self._buffers[index % 2]) for index, block in enumerate(contents)]
        # When each buffer was last read. At first: when its memory's former owner was done with it.
        self._free: list[Any] = [self._queue.mark()] * 2
        self._prefetched: dict[int, Any] = {}  # blocks that were copied, or are on their way
        self.copies = 0
        self.device_bytes = 2 * size
        self._hooks = []
        for index, block in enumerate(blocks):
            self._hooks += [
                block.register_forward_pre_hook(partial(self._before, index)),
                block.register_forward_hook(partial(self._after, index)),
            ]

    def close(self) -> None:
        """Lets go of the blocks and of both copies of their weights."""
        for hook in self._hooks:
            hook.remove()
        for event in self._prefetched.values():  # nobody may get the buffers while they are written
            self._queue.wait(event)
        self._pairs, self._buffers, self._prefetched = [], [], {}

    def _before(self, index: int, *_: object) -> None:
        if index not in self._prefetched:  # the first run, or one after a run that was broken off
            self._prefetched.clear()
            self._prefetch(index)
        self._queue.wait(self._prefetched.pop(index))

    def _after(self, index: int, *_: object) -> None:
        # The block's work is queued by now, so that even a copy that holds the program up runs
        # beside it; the next block's buffer was read last by the block before this one.
        self._free[index % 2] = self._queue.mark()
        self._prefetch((index + 1) % len(self._pairs))

    def _prefetch(self, index: int) -> None:
        self._prefetched[index] = self._queue.copy(self._pairs[index], self._free[index % 2])
        self.copies += 1
