"""Random FLUX.1-Fill models held in the machine's memory, and the plain pipeline around them."""

from __future__ import annotations

from time import perf_counter

import torch
from benchmarks.local_memory_watch import Sink
from onereward_pack.local_backend.bench.random_flux import (
    RandomFlux,
    published_settings,
    tiny_settings,
)
from onereward_pack.local_backend.bench.reference import Reference, plain_components
from onereward_pack.local_backend.offload.flux_parts import flux_parts
from onereward_pack.local_backend.offload.memory_plan import VramEstimate
from onereward_pack.local_backend.offload.vram_estimate import estimate_vram
from onereward_pack.nodes.contracts import EditRequest
from torch import Tensor

CPU = torch.device("cpu")


def full_flux(device: torch.device) -> RandomFlux:
    """The full-size models, made on a device and kept on the host."""
    return RandomFlux(published_settings, device, keep=True)


def tiny_flux() -> RandomFlux:
    """The tiny models, stored in the same types."""
    return RandomFlux(tiny_settings, CPU, keep=True)


def sizes_of(flux: RandomFlux, dtype: torch.dtype, request: EditRequest) -> VramEstimate:
    """What the models and a run take, from their shapes alone."""
    return estimate_vram(flux_parts(flux.open(), dtype), request, CPU)


class PlainPipeline(Reference):
    """The bench's reference, whose last latents can be looked at.

    Attributes:
        latents: packed, float32 on the CPU.
    """

    def __init__(self, flux: RandomFlux, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(plain_components(flux.open(), device, dtype), device)
        self.latents = torch.empty(0)

    def paint(self, request: EditRequest) -> dict[str, float]:
        """Seconds of each stage."""
        return dict(self.run(request, Sink([], deadline=perf_counter() + 3600)).timings)

    def _decode(self, latents: Tensor, request: EditRequest) -> Tensor:
        self.latents = latents.to("cpu", torch.float32)
        return super()._decode(latents, request)
