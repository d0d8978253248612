"""Placement: which model lies on the device at which stage of a run, which are offloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic
from typing import Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from ...nodes.contracts import EditRequest, ProgressSink
from ...nodes.errors import LocalBackendError
from ..acceleration.adaln_table import ModulationInputs
from ..acceleration.kv_cache import KVCacheFormat, kv_cache_formats
from ..checkpoints.lora import open_lora
from ..checkpoints.model_paths import ModelPaths, file_stamp
from .device_memory import Budget, DeviceMemory
from .devices import holds_fp8, synchronize
from .flux_parts import FluxParts
from .memory_plan import GB, NO_LIMIT, MemoryPlan, choose_plan, steady_plan, with_kv_cache
from .model_part import ModelPart
from .residency import Residency
from .runtime_options import RuntimeOptions
from .vram_estimate import TEXT_TOKENS, estimate_vram

logger = logging.getLogger("onereward")

Select = Callable[[int], None]
_NO_LORA, _UNKNOWN = (None, 0.0), "unknown"
TILE_ABOVE_PIXELS = 1024 * 1024  # pixels
_SLOW = 1.0  # seconds; a longer step can be cancelled between its blocks
_BLOCKS_AHEAD = 8  # that many blocks may be queued on the device before it is waited for


class Placement(Protocol):
    """Has a run's models on the device when they are needed.

    Attributes:
        kv_cache_format: what the unmasked tokens' keys and values are cached in; None: they are
            not cached.
    """

    @property
    def kv_cache_format(self) -> KVCacheFormat | None: ...

    def arrange(self, request: EditRequest, progress: ProgressSink) -> None:
        """Called before the first stage of a run."""

    def text_encoders(self, progress: ProgressSink) -> AbstractContextManager[None]:
        """Both are on the device inside."""

    def transformer(
        self, inputs: ModulationInputs, progress: ProgressSink
    ) -> AbstractContextManager[Select]:
        """The transformer is on the device inside; call what it gives before each step."""

    def vae(self, progress: ProgressSink) -> AbstractContextManager[None]:
        """The VAE is on the device inside."""

    def close(self) -> None:
        """Frees the models at the end of their pipeline."""


class Resident:
    """All models lie on the device already, and stay."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype`: what they compute in."""
        self.kv_cache_format: KVCacheFormat | None = kv_cache_formats(device, dtype)[0]

    def arrange(self, request: EditRequest, progress: ProgressSink) -> None:
        """Does nothing: no plan has to be chosen."""

    def text_encoders(self, progress: ProgressSink) -> AbstractContextManager[None]:
        return nullcontext()

    def transformer(
        self, inputs: ModulationInputs, progress: ProgressSink
    ) -> AbstractContextManager[Select]:
        return nullcontext(_select_nothing)

    def vae(self, progress: ProgressSink) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """Does nothing: the models are freed with the pipeline that holds them."""


class FluxPlacement:
    """Fits a FLUX pipeline to a card's VRAM; see memory_plan.

    Attributes:
        plan: the last run's.
        notes: for the user: a summary of the plan, and notes on the files and the runtime options.
    """

    def __init__(self, parts: FluxParts, memory: DeviceMemory) -> None:
        self._parts, self._memory = parts, memory
        self._precision = "auto"
        self._lora: tuple[Hashable, float] = _NO_LORA
        self._lora_notes: tuple[str, ...] = ()
        self._budget = Budget(memory)
        self.plan: MemoryPlan | None = None
        self._plan_notes: tuple[str, ...] = ()
        self._options = RuntimeOptions(parts.transformer, memory.device)
        parts.transformer.on_unload = parts.table.forget

    @property
    def kv_cache_format(self) -> KVCacheFormat | None:
        return self._plan().kv_cache_format

    def adapt(self, files: ModelPaths) -> None:
        """Takes over the LoRA, the precision and the choices for speed of these files for the next
        runs; what is loaded stays, so that another strength costs no time.

        Raises:
            CheckpointError, ModelNotFoundError: the LoRA's file is not what it should be.
            LocalBackendError: there is nothing to compile with.
        """
        self._options.adapt(files, self._memory.unload)
        precision = files.precision
        if precision != "file" and not holds_fp8(self._memory.device):
            precision = "file"
        if precision != self._precision:
            self._precision, self.plan = precision, None
        chosen = files.lora if files.lora_strength else None
        wanted = (file_stamp(chosen), files.lora_strength) if chosen else _NO_LORA
        if wanted == self._lora:
            return
        lora = open_lora(chosen, self._parts.layers) if chosen else None
        transformer, table = self._parts.transformer, self._parts.table
        if table.depends_on({*transformer.lora_targets, *(lora.targets if lora else ())}):
            table.forget()
        self._lora = (_UNKNOWN, 0.0)  # until it is on: there may be no memory for it
        transformer.set_lora(lora, files.lora_strength)
        self._lora, self._lora_notes = wanted, lora.notes if lora else ()

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._plan_notes, *self._options.notes)

    def arrange(self, request: EditRequest, progress: ProgressSink) -> None:
        """Chooses the plan for a picture of this size.

        Raises:
            LocalBackendError: even the smallest plan does not fit.
        """
        height, width = request.image.shape[1:3]
        self._tokens = height * width // 256 + TEXT_TOKENS
        self._sizes = estimate_vram(self._parts, request, self._memory.device)
        self._parts.table.clear()  # the estimate counts no rows on the device; the host caches them
        budget = self._budget.bytes()
        tile = height * width > TILE_ABOVE_PIXELS
        plan = choose_plan(self._sizes, budget, self._precision, tile)
        if plan is None:
            self._budget.reset()  # the next run may find more
            raise LocalBackendError(
                f"A picture of {width}x{height} does not fit this card: {budget / GB:.1f} GB are "
                "free for it. Close other programs that use the card, choose a smaller target on "
                "OneReward Canvas, or use OneReward Fal Backend."
            )
        if self.plan is not None and self._parts.transformer.residency is not None:
            plan = steady_plan(plan, self.plan, self._sizes, budget, self._precision)
        self.plan = plan = with_kv_cache(plan, self._sizes, budget)
        for part, residency in (
            (self._parts.transformer, plan.transformer),
            (self._parts.t5, plan.t5),
        ):
            if part.residency not in (None, residency):
                self._memory.unload(part)
        text = plan.summary(self._sizes, self._parts.stored)
        if budget < NO_LIMIT:
            text = f"{budget / GB:.0f} GB free: {text}"
        self._plan_notes = (text, *self._lora_notes)
        logger.info("%s (peak %.1f GB)", text, plan.peak / GB)
        progress.status(text)

    def step_down(self, progress: ProgressSink) -> None:
        """After an allocation failed: the next plan takes less than the last one did, or `arrange`
        says that there is none.
        """
        self.close()
        self._memory.recover()
        # only now: before, the failed run's tensors are still there
        self._budget.reduce(None if self.plan is None else self.plan.peak)
        progress.status("The card's memory ran out; trying with less.")

    def close(self) -> None:
        parts = self._parts
        for part in (parts.transformer, parts.t5, parts.clip, parts.vae):
            self._memory.unload(part)

    @contextmanager
    def text_encoders(self, progress: ProgressSink) -> Iterator[None]:
        plan, parts = self._plan(), self._parts
        try:
            with _interruptible(progress, parts.clip, parts.t5):
                wanted = [(parts.clip, Residency()), (parts.t5, plan.t5)]
                self._memory.load(wanted, self._sizes.encoding)
                yield
        finally:
            if plan.t5.streamed:
                self._memory.unload(parts.t5)
                self._memory.unload(parts.clip)

    @contextmanager
    def transformer(self, inputs: ModulationInputs, progress: ProgressSink) -> Iterator[Select]:
        plan, parts = self._plan(), self._parts
        part = parts.transformer
        with _interruptible(progress, part):
            work = (
                self._sizes.denoising
                + self._sizes.table
                + self._sizes.kv_cache(plan.kv_cache_format)
            )
            self._memory.load([(part, plan.transformer)], work)
            parts.table.prepare(inputs, part.layer, progress.check_interrupted)
            monitor = _StepMonitor(self._memory.device, progress)
            part.check = monitor.before_block

            def select(step: int) -> None:
                monitor.before_step()
                parts.table.select(step)

            with self._options.running(self._tokens, progress):
                yield select

    @contextmanager
    def vae(self, progress: ProgressSink) -> Iterator[None]:
        plan, parts = self._plan(), self._parts
        work = self._sizes.tiled_decoding if plan.tile else self._sizes.decoding
        with _interruptible(progress, parts.vae):
            self._memory.load([(parts.vae, Residency())], work)
            with _tiles(parts.vae.module, plan.tile):
                yield

    def _plan(self) -> MemoryPlan:
        assert self.plan is not None, "arrange comes first"
        return self.plan


class _StepMonitor:
    """Lets a long step be cancelled between two blocks. A device runs behind the program that
    fills its queue; so in a long step it is waited for now and then.
    """

    def __init__(self, device: torch.device, progress: ProgressSink) -> None:
        self._device, self._progress = device, progress
        self._started: float | None = None
        self._slow = False
        self._blocks = 0

    def before_step(self) -> None:
        now = monotonic()
        self._slow = self._started is not None and now - self._started > _SLOW
        self._started = now

    def before_block(self) -> None:
        self._blocks += 1
        if self._slow and self._blocks % _BLOCKS_AHEAD == 0:
            synchronize(self._device)
        self._progress.check_interrupted()


@contextmanager
def _interruptible(progress: ProgressSink, *parts: ModelPart) -> Iterator[None]:
    """The parts ask for an interruption while they load and run inside."""
    before = [part.check for part in parts]
    for part in parts:
        part.check = progress.check_interrupted
    try:
        yield
    finally:
        for part, check in zip(parts, before, strict=True):
            part.check = check


@contextmanager
def _tiles(vae: AutoencoderKL, tile: bool) -> Iterator[None]:
    """The VAE works in tiles of 512 pixels inside; its own settings are put back."""
    names = ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names}
    if tile:
        vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size = True, 512, 64
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


def _select_nothing(step: int) -> None:
    """Does nothing: the blocks compute their modulation themselves, without a table."""
