"""Which model lies on the device at which stage of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import monotonic
from typing import Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from ...nodes.contracts import EditRequest, ProgressSink
from ...nodes.errors import LocalBackendError
from ..acceleration.adaln_table import ModulationInputs
from ..acceleration.kv_cache import Keeping, keepings
from ..checkpoints.lora import open_lora
from ..checkpoints.model_files import ModelFiles, file_stamp
from .devices import holds_fp8, synchronize
from .flux_parts import FluxParts
from .memory_plan import GB, NO_LIMIT, Plan, choose_plan, steady_plan, with_keys
from .model_part import Part
from .residency import Fit
from .runtime_options import Speed
from .vram_estimate import TEXT_TOKENS, key_bytes, work_sizes

logger = logging.getLogger("onereward")

Select = Callable[[int], None]
_NO_LORA, _UNKNOWN = (None, 0.0), "unknown"
TILE_ABOVE = 1024 * 1024  # pixels
_SLOW = 1.0  # seconds a step may take before it is looked into
_STEP_DOWN = 0.9  # of the memory that was not there
_REMEMBERED = 600.0  # seconds
_BLOCKS_AHEAD = 8  # that many blocks may be queued on the device before it is waited for


class Placement(Protocol):
    """Has a run's models on the device when they are needed.

    Attributes:
        keeping: how the kept tokens' keys and values may be remembered; None: not at all.
    """

    @property
    def keeping(self) -> Keeping | None: ...

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
        """Nobody will use the models any more."""


class Resident:
    """All models lie on the device already, and stay."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype`: what they compute in."""
        self.keeping: Keeping | None = keepings(device, dtype)[0]

    def arrange(self, request: EditRequest, progress: ProgressSink) -> None:
        """Nothing to choose."""

    def text_encoders(self, progress: ProgressSink) -> AbstractContextManager[None]:
        return nullcontext()

    def transformer(
        self, inputs: ModulationInputs, progress: ProgressSink
    ) -> AbstractContextManager[Select]:
        return nullcontext(_nothing_to_select)

    def vae(self, progress: ProgressSink) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """They go with the pipeline."""


class Memory(Protocol):
    """A device's memory, shared with others or not."""

    device: torch.device

    def budget(self) -> int:
        """Bytes that our parts and their work may take together."""

    def load(self, parts: Sequence[tuple[Part, Fit]], work: int) -> None:
        """Brings these parts onto the device together, with `work` bytes left to work in."""

    def unload(self, part: Part) -> None:
        """Takes a part off the device."""

    def recover(self) -> None:
        """After an allocation failed: let go of all that is held for later."""


class FluxPlacement:
    """Fits a FLUX pipeline to a card: see plans.

    Attributes:
        plan: the last run's.
        notes: the plan in words, and what is to be known of the files and of the choices for speed.
    """

    def __init__(self, parts: FluxParts, memory: Memory) -> None:
        self._parts, self._memory = parts, memory
        self._precision = "auto"
        self._lora: tuple[Hashable, float] = _NO_LORA
        self._lora_notes: tuple[str, ...] = ()
        self._lesson: _Lesson | None = None
        self.plan: Plan | None = None
        self._plan_notes: tuple[str, ...] = ()
        self._speed = Speed(parts.transformer, memory.device)
        parts.transformer.on_unload = parts.table.forget

    @property
    def keeping(self) -> Keeping | None:
        return self._plan().keeping

    def adapt(self, files: ModelFiles) -> None:
        """Takes over the LoRA, the precision and the choices for speed of these files for the next
        runs; what is loaded stays, so that another strength costs no time.

        Raises:
            CheckpointError, ModelNotFoundError: the LoRA's file is not what it should be.
            LocalBackendError: there is nothing to compile with.
        """
        self._speed.adapt(files, self._memory.unload)
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
        return (*self._plan_notes, *self._speed.notes)

    def arrange(self, request: EditRequest, progress: ProgressSink) -> None:
        """Chooses the plan for a picture of this size.

        Raises:
            LocalBackendError: even the smallest plan does not fit.
        """
        height, width = request.image.shape[1:3]
        self._tokens = height * width // 256 + TEXT_TOKENS
        keys = key_bytes(self._parts, request, self._memory.device)
        self._sizes = replace(work_sizes(self._parts, request), keys=keys)
        self._parts.table.clear()  # its rows are kept on the host; on the device nobody counts them
        budget = self._budget()
        tile = height * width > TILE_ABOVE
        plan = choose_plan(self._sizes, budget, self._precision, tile)
        if plan is None:
            self._lesson = None  # the next run may find more
            raise LocalBackendError(
                f"A picture of {width}x{height} does not fit this card: {budget / GB:.1f} GB are "
                "free for it. Close other programs that use the card, choose a smaller target on "
                "OneReward Canvas, or use OneReward Fal Backend."
            )
        if self.plan is not None and self._parts.transformer.fit is not None:
            plan = steady_plan(plan, self.plan, self._sizes, budget, self._precision)
        self.plan = plan = with_keys(plan, self._sizes, budget)
        for part, fit in ((self._parts.transformer, plan.transformer), (self._parts.t5, plan.t5)):
            if part.fit not in (None, fit):
                self._memory.unload(part)
        text = plan.words(self._sizes, self._parts.stored)
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
        said = self._memory.budget()  # only now: before, the failed run's tensors are still there
        # A LoRA may be too much before there is a plan at all.
        most = said if self.plan is None else min(said, self.plan.peak)
        self._lesson = _Lesson(int(most * _STEP_DOWN), said, monotonic())
        progress.status("The card's memory ran out; trying with less.")

    def close(self) -> None:
        parts = self._parts
        for part in (parts.transformer, parts.t5, parts.clip, parts.vae):
            self._memory.unload(part)

    @contextmanager
    def text_encoders(self, progress: ProgressSink) -> Iterator[None]:
        plan, parts = self._plan(), self._parts
        try:
            with _checked(progress, parts.clip, parts.t5):
                wanted = [(parts.clip, Fit()), (parts.t5, plan.t5)]
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
        with _checked(progress, part):
            keys = self._sizes.keys[plan.keeping] if plan.keeping else 0
            work = self._sizes.denoising + self._sizes.table + keys
            self._memory.load([(part, plan.transformer)], work)
            parts.table.prepare(inputs, part.layer, progress.check_interrupted)
            watch = _StepWatch(self._memory.device, progress)
            part.check = watch.before_block

            def select(step: int) -> None:
                watch.before_step()
                parts.table.select(step)

            with self._speed.running(self._tokens, progress):
                yield select

    @contextmanager
    def vae(self, progress: ProgressSink) -> Iterator[None]:
        plan, parts = self._plan(), self._parts
        work = self._sizes.tiled_decoding if plan.tile else self._sizes.decoding
        with _checked(progress, parts.vae):
            self._memory.load([(parts.vae, Fit())], work)
            with _tiles(parts.vae.module, plan.tile):
                yield

    def _budget(self) -> int:
        """What the memory says, or what was learned of late about what it says."""
        said, lesson = self._memory.budget(), self._lesson
        if lesson is None or lesson.is_over(said):
            self._lesson = None
            return said
        return min(said, lesson.limit)

    def _plan(self) -> Plan:
        assert self.plan is not None, "arrange comes first"
        return self.plan


@dataclass(frozen=True)
class _Lesson:
    """A card had less than it said: often because of somebody who is gone a while later.

    Attributes:
        limit: bytes to make do with.
        said: bytes that it said it had.
        learned: when, on the monotonic clock.
    """

    limit: int
    said: int
    learned: float

    def is_over(self, said: int) -> bool:
        return said > 1.1 * self.said or monotonic() - self.learned > _REMEMBERED


class _StepWatch:
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
def _checked(progress: ProgressSink, *parts: Part) -> Iterator[None]:
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


def _nothing_to_select(step: int) -> None:
    """The blocks have their modulation's weights."""
