"""Blocks that do not fit the device: each is copied in while the one before it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_ALIGNMENT = 256  # bytes; what a device's kernels like, and every dtype's size divides


class Lane(Protocol):
    """The order of copies and computation on a device. An event is a point in either."""

    def copy(self, target: Tensor, source: Tensor, after: Any | None) -> Any:
        """Starts a copy that waits for `after`; returns the event of its end."""

    def wait(self, event: Any) -> None:
        """Lets the computation go on only when the event has come."""

    def mark(self) -> Any:
        """The event of all computation so far having been done."""


class DirectLane:
    """A device without streams: everything is done when it is asked for."""

    def copy(self, target: Tensor, source: Tensor, after: None) -> None:
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

    def copy(self, target: Tensor, source: Tensor, after: Any | None) -> Any:
        with self._module.stream(self._copies):
            if after is not None:
                self._copies.wait_event(after)
            target.copy_(source, non_blocking=True)
            return self._copies.record_event()

    def wait(self, event: Any) -> None:
        self._module.current_stream(self._device).wait_event(event)

    def mark(self) -> Any:
        return self._module.current_stream(self._device).record_event()


def lane_for(device: torch.device) -> Lane:
    return StreamLane(device) if device.type in ("cuda", "xpu") else DirectLane()


class Slot:
    """A place in a module that holds a tensor: one of its buffers, or a parameter."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name = module, name
        self._empty = module._parameters.get(name)

    def put(self, tensor: Tensor) -> None:
        if self._empty is None:
            self._module._buffers[self._name] = tensor
        else:
            self._module._parameters[self._name] = nn.Parameter(tensor, requires_grad=False)

    def empty(self) -> None:
        """Back to what was there at first: no buffer, or a parameter without data."""
        if self._empty is None:
            self._module._buffers[self._name] = None
        else:
            self._module._parameters[self._name] = self._empty


Contents = Sequence[tuple[Slot, Tensor]]


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """A block's tensors behind one another in the machine's memory, and where they belong.

    Attributes:
        host: uint8 [bytes].
        layout: for each tensor its slot, place, dtype and shape.
    """

    host: Tensor
    layout: tuple[tuple[Slot, slice, torch.dtype, torch.Size], ...]

    def look_into(self, buffer: Tensor) -> None:
        """Makes the slots views of a buffer that is as large as `host`, or larger."""
        for slot, place, dtype, shape in self.layout:
            slot.put(buffer[place].view(dtype).view(shape))


def pack(contents: Contents, pin: bool = False) -> PackedBlock:
    """One block, from tensors on any device.

    Args:
        pin: into page-locked memory, from where copies run beside the computation.
    """
    layout, end = [], 0
    for slot, tensor in contents:
        place = slice(end, end + tensor.nbytes)
        layout.append((slot, place, tensor.dtype, tensor.shape))
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    host = torch.empty(end, dtype=torch.uint8, pin_memory=pin)
    for (_, place, _, _), (_, tensor) in zip(layout, contents, strict=True):
        host[place].copy_(tensor.contiguous().reshape(-1).view(torch.uint8))
    return PackedBlock(host, tuple(layout))


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
        packed: Sequence[PackedBlock],
        device: torch.device,
        lane: Lane | None = None,
    ) -> None:
        """Takes over the blocks, given in the order in which they run."""
        self._lane = lane or lane_for(device)
        self._host = [block.host for block in packed]
        size = max(host.numel() for host in self._host)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self._free: list[Any] = [None, None]  # when the buffer's last block was done
        self._coming: dict[int, Any] = {}  # blocks that were copied, or are on their way
        self.copies = 0
        self.device_bytes = 2 * size
        self._hooks = []
        for index, (block, contents) in enumerate(zip(blocks, packed, strict=True)):
            contents.look_into(self._buffers[index % 2])
            self._hooks += [
                block.register_forward_pre_hook(partial(self._before, index)),
                block.register_forward_hook(partial(self._after, index)),
            ]

    def close(self) -> None:
        """Lets go of the blocks and of both copies of their weights."""
        for hook in self._hooks:
            hook.remove()
        self._host, self._buffers, self._coming = [], [], {}

    def _before(self, index: int, *_: object) -> None:
        if index not in self._coming:  # the first run, or one after a run that was broken off
            self._coming.clear()
            self._fetch(index)
        self._lane.wait(self._coming.pop(index))
        following = (index + 1) % len(self._host)
        if following % 2 != index % 2:
            self._fetch(following)

    def _after(self, index: int, *_: object) -> None:
        self._free[index % 2] = self._lane.mark()
        following = (index + 1) % len(self._host)
        if following % 2 == index % 2:  # an odd number of blocks: the last and the first share one
            self._fetch(following)

    def _fetch(self, index: int) -> None:
        host = self._host[index]
        target = self._buffers[index % 2][: host.numel()]
        self._coming[index] = self._lane.copy(target, host, self._free[index % 2])
        self.copies += 1
