"""Cards of any size, and what is looked at while the local backend runs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from onereward_pack.local_backend.acceleration.adaln_table import ModulationTable
from onereward_pack.local_backend.offload.device_memory import _RESERVE, OwnMemory
from onereward_pack.local_backend.offload.devices import synchronize
from onereward_pack.local_backend.offload.memory_plan import MemoryPlan
from onereward_pack.local_backend.offload.model_part import ModelPart
from onereward_pack.local_backend.offload.placement import FluxPlacement
from onereward_pack.local_backend.offload.residency import Residency
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from onereward_pack.nodes.contracts import EditRequest
from torch import Tensor


def now(device: torch.device) -> float:
    """Seconds, all that the device was asked for having been done."""
    synchronize(device)
    return perf_counter()


class Enough(Exception):
    """All that was to be seen of a run has been seen."""


class OutOfTime(Exception):
    """The program's seconds are spent."""


class Card(OwnMemory):
    """A card with this many bytes for us; None for all that there is. Inside the `with` block torch
    is held to them. A CPU counts what its parts hold and their work is said to take.
    """

    def __init__(self, device: torch.device, size: int | None) -> None:
        super().__init__(device)
        self._size = size
        self._counted = 0

    def __enter__(self) -> Card:
        self._hold_torch_to(self._size)
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        self._hold_torch_to(None)

    def budget(self) -> int:
        """As OwnMemory's, with a size that the driver knows nothing of."""
        if self._size is None:
            return super().budget()
        held = sum(part.device_bytes for part in self._parts)
        others = self.held() - held if self._is_cuda else 0
        return self._size - others - _RESERVE

    def load(self, parts: Sequence[tuple[ModelPart, Residency]], work: int) -> None:
        super().load(parts, work)
        if self._is_cuda:
            return
        counted = self.held() + work
        self._counted = max(self._counted, counted)
        if self._size is not None and counted > self._size - _RESERVE:
            raise torch.OutOfMemoryError("the card is full")

    def reset(self) -> None:
        """Peaks begin anew."""
        self._counted = 0
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            torch.cuda.reset_accumulated_memory_stats(self.device)

    def peaks(self) -> tuple[int | None, int | None]:
        """Bytes allocated and reserved at most; None where nobody counts."""
        if self._is_cuda:
            allocated = torch.cuda.max_memory_allocated(self.device)
            return allocated, torch.cuda.max_memory_reserved(self.device)
        return self._counted or None, None

    def held(self) -> int:
        """Bytes in use now."""
        if self._is_cuda:
            return torch.cuda.memory_allocated(self.device)
        return sum(part.device_bytes for part in self._parts)

    def outside(self) -> int:
        """Bytes of the device that are taken, but not by torch's tensors."""
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free - torch.cuda.memory_reserved(self.device)

    def retries(self) -> int:
        """How often torch had to let go of what it kept for later to find room."""
        if not self._is_cuda:
            return 0
        return int(torch.cuda.memory_stats(self.device).get("num_alloc_retries", 0))

    @property
    def _is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def _hold_torch_to(self, size: int | None) -> None:
        if self._is_cuda:
            total = torch.cuda.get_device_properties(self.device).total_memory
            share = 1.0 if size is None else min(1.0, size / total)
            torch.cuda.set_per_process_memory_fraction(share, self.device)


class Sink:
    """A ProgressSink that keeps what it is told, ends a run after a step, and knows the time."""

    def __init__(self, said: list[str], deadline: float, stop_at: int | None = None) -> None:
        """Adds what it is told to `said`."""
        self._said, self._deadline, self._stop_at = said, deadline, stop_at

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        if value == self._stop_at:
            raise Enough

    def status(self, text: str) -> None:
        self._said.append(text)

    def check_interrupted(self) -> None:
        if perf_counter() > self._deadline:
            raise OutOfTime("the time is up")


@dataclass
class Watch:
    """The last run's.

    Attributes:
        latents: packed, float32 on the CPU.
        seconds: of encoding the prompts ("prompt") and of the modulation's table ("table").
    """

    latents: Tensor = field(default_factory=lambda: torch.empty(0))
    plan: MemoryPlan | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    placement: FluxPlacement | None = None

    def page_locked(self) -> bool | None:
        """Whether streamed blocks of the transformer lie where copies run beside the computation;
        None where there are none.
        """
        assert self.placement is not None
        streamer = self.placement._parts.transformer.streamer
        return None if streamer is None else streamer._pairs[0][0][1].is_pinned()


@contextmanager
def watching(device: torch.device) -> Iterator[Watch]:
    """Looks at every run inside."""
    watch = Watch()
    decode, arrange = OneRewardPipeline.decode, FluxPlacement.arrange

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = now(device)
            result = function(*args)
            watch.seconds[name] = now(device) - start
            return result

        return call

    def seen_decode(self: OneRewardPipeline, latents: Tensor, request: EditRequest) -> Tensor:
        watch.latents = latents.to("cpu", torch.float32)
        return decode(self, latents, request)

    def seen_arrange(self: FluxPlacement, *args: Any) -> None:
        arrange(self, *args)
        watch.plan, watch.placement = self.plan, self

    encode = timed(OneRewardPipeline.encode_prompt, "prompt")
    prepare = timed(ModulationTable.prepare, "table")
    with (
        patch.object(OneRewardPipeline, "decode", seen_decode),
        patch.object(OneRewardPipeline, "encode_prompt", encode),
        patch.object(ModulationTable, "prepare", prepare),
        patch.object(FluxPlacement, "arrange", seen_arrange),
    ):
        yield watch
