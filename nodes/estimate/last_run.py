"""What a plan remembers: what each task node was last run with, and masks read from files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

NODES = 16
FILES = 16
BYTES = 64 << 20

T = TypeVar("T")


class Shelf(Generic[T]):
    """Keeps the things used last, by count and by bytes. Safe to use from several threads.

    Args:
        count: the most things.
        nbytes: the most bytes of all together; a thing that alone has more is not kept.
        size: how many bytes a thing has.
    """

    def __init__(self, count: int, nbytes: int, size: Callable[[T], int]) -> None:
        self._count, self._nbytes, self._size = count, nbytes, size
        self._things: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, thing: T) -> None:
        """Keep it in place of what was there, and drop what was not used for the longest time."""
        with self._lock:
            self._things.pop(key, None)
            self._things[key] = thing
            while len(self._things) > self._count or self._total() > self._nbytes:
                self._things.popitem(last=False)

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
            return self._things.get(key)

    def _total(self) -> int:
        return sum(map(self._size, self._things.values()))


@dataclass(frozen=True, eq=False)
class Remembered:
    """A node's last run.

    Attributes:
        pictures, height, width: of the batch that went in.
        mask: uint8 [N, h, w]; None if there was none, or if it was too large to keep.
    """

    pictures: int
    height: int
    width: int
    mask: Tensor | None


def _bytes_of(thing: Remembered) -> int:
    return 0 if thing.mask is None else thing.mask.nbytes


_NODES: Shelf[Remembered] = Shelf(NODES, BYTES, _bytes_of)
file_masks: Shelf[Tensor] = Shelf(FILES, BYTES, lambda mask: mask.nbytes)


def remember(node_id: str, image: Tensor, mask: Tensor | None) -> None:
    """What this node is run with: image [B, H, W, C], mask float [N, h, w] or [h, w]."""
    pictures, height, width = image.shape[:3]
    small = None if mask is None or mask.numel() > BYTES else to_uint8(mask)
    _NODES.put(node_id, Remembered(pictures, height, width, small))


def recall(node_id: str) -> Remembered | None:
    """What this node was last run with, unless that was too long ago."""
    return _NODES.get(node_id)


def to_uint8(mask: Tensor) -> Tensor:
    """A mask's values 0..1 as 0..255; what is no number counts as not painted."""
    values = mask.detach().float().mul(255).nan_to_num_(0.0).round_().clamp_(0, 255)
    return values.to(torch.uint8).cpu()
