"""Blocks that do not fit the device: each is copied in while the one before it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Pairs = Sequence[tuple[Tensor, Tensor]]  # a place on the device, and what is copied to it

_ALIGNMENT = 256  # bytes; what a device's kernels like, and every dtype's size divides


class Lane(Protocol):
    """The order of copies and computation on a device. An event is a point in either."""

    def copy(self, pairs: Pairs, after: Any) -> Any:
        """Starts copies that wait for `after`; returns the event of their end."""

    def wait(self, event: Any) -> None:
        """Lets the computation go on only when the event has come."""

    def mark(self) -> Any:
        """The event of all computation so far having been done."""


class DirectLane:
    """A device without streams: everything is done when it is asked for."""

    def copy(self, pairs: Pairs, after: None) -> None:
        for target, source in pairs:
            target.copy_(source)

    def wait(self, event: None) -> None:
        pass

    def mark(self) -> None:
        return None


class StreamLane:
    """Copies on a stream of their own, beside the computation."""

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


def lane_for(device: torch.device) -> Lane:
    return StreamLane(device) if device.type in ("cuda", "xpu") else DirectLane()


class Slot:
    """A place that holds a tensor: a module's buffer or parameter, or those of several modules that
    share it.
    """

    def __init__(self, *owners: tuple[nn.Module, str]) -> None:
        self._owners = owners
        module, name = owners[0]
        self._empty = module._parameters.get(name)

    def put(self, tensor: Tensor) -> None:
        if self._empty is None:
            self._set("_buffers", tensor)
        else:
            self._set("_parameters", nn.Parameter(tensor, requires_grad=False))

    def empty(self) -> None:
        """Back to what was there at first: no buffer, or a parameter without data."""
        self._set("_buffers" if self._empty is None else "_parameters", self._empty)

    def _set(self, kind: str, value: Tensor | None) -> None:
        for module, name in self._owners:
            getattr(module, kind)[name] = value


Contents = Sequence[tuple[Slot, Tensor]]


@dataclass(frozen=True, eq=False)
class StreamedBlock:
    """A block's tensors on the host, and where they belong.

    Attributes:
        size: bytes that they take in a buffer.
        sources: the tensors, or the one, uint8, that holds all of them.
        packed: which of the two.
        layout: for each tensor its slot, its place in a buffer, its dtype and shape.
    """

    size: int
    sources: tuple[Tensor, ...]
    layout: tuple[tuple[Slot, slice, torch.dtype, torch.Size], ...]
    packed: bool = False

    def look_into(self, buffer: Tensor) -> Pairs:
        """Makes the slots views of a buffer; returns what has to be copied to fill it."""
        views = [buffer[place].view(dtype).view(shape) for _, place, dtype, shape in self.layout]
        for (slot, *_), view in zip(self.layout, views, strict=True):
            slot.put(view)
        if self.packed:
            return [(buffer[: self.size], self.sources[0])]
        return list(zip(views, self.sources, strict=True))


def lay_out(contents: Contents) -> StreamedBlock:
    """A block that is streamed from where its tensors lie, such as a file that is mapped into
    memory: slow, and takes nothing.
    """
    layout, end = [], 0
    for slot, tensor in contents:
        layout.append((slot, slice(end, end + tensor.nbytes), tensor.dtype, tensor.shape))
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return StreamedBlock(end, tuple(tensor for _, tensor in contents), tuple(layout))


def pack(contents: Contents, pin: bool = False) -> StreamedBlock:
    """A block that is streamed from one piece of the machine's memory.

    Args:
        contents: on any device.
        pin: into page-locked memory, from where copies run beside the computation; RuntimeError if
            the machine has none left.
    """
    block = lay_out(contents)
    host = torch.empty(block.size, dtype=torch.uint8, pin_memory=pin)
    for (_, place, _, _), tensor in zip(block.layout, block.sources, strict=True):
        host[place].copy_(tensor.contiguous().reshape(-1).view(torch.uint8))
    return replace(block, sources=(host,), packed=True)


class BlockStreamer:
    """Runs blocks from two buffers on the device, in turn: while one block computes in the first,
    the next one is copied into the second. A block is copied once each time it runs.

    Attributes:
        copies: how many blocks were copied so far.
        device_bytes: the size of both buffers.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        contents: Sequence[StreamedBlock],
        device: torch.device,
        lane: Lane | None = None,
    ) -> None:
        """Takes over the blocks, given in the order in which they run."""
        self._lane = lane or lane_for(device)
        size = max(block.size for block in contents)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self._pairs = [
            block.look_into(self._buffers[index % 2]) for index, block in enumerate(contents)
        ]
        # When each buffer was last read. At first: when its memory's former owner was done with it.
        self._free: list[Any] = [self._lane.mark()] * 2
        self._coming: dict[int, Any] = {}  # blocks that were copied, or are on their way
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
        for event in self._coming.values():  # nobody may get the buffers while they are written
            self._lane.wait(event)
        self._pairs, self._buffers, self._coming = [], [], {}

    def _before(self, index: int, *_: object) -> None:
        if index not in self._coming:  # the first run, or one after a run that was broken off
            self._coming.clear()
            self._fetch(index)
        self._lane.wait(self._coming.pop(index))

    def _after(self, index: int, *_: object) -> None:
        # The block's work is queued by now, so that even a copy that holds the program up runs
        # beside it; the next block's buffer was read last by the block before this one.
        self._free[index % 2] = self._lane.mark()
        self._fetch((index + 1) % len(self._pairs))

    def _fetch(self, index: int) -> None:
        self._coming[index] = self._lane.copy(self._pairs[index], self._free[index % 2])
        self.copies += 1
