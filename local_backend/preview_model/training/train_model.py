"""The model stage: trains transformer and text encoders together on encoded scenes."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .held_out import Sheet, draw_held_out
from .models import Denoiser, load_denoiser, load_vae, save_half
from .muon import Muon
from .objective import Loss, Objective
from .pool import Pool, Producer
from .scenes import MAIN_MIX, TASKS, TEXT_MIX, SceneBank
from .tokenizers import CAPTION_LENGTH, CaptionIds, caption_ids
from .train_vae import SEED

log = logging.getLogger("onereward")

SAVE_EVERY = 90.0
#: steps after which compilation is over and the learning-rate schedule begins
WARM_STEPS = 20
SMOKE_STEPS = 4


@dataclass(frozen=True)
class ModelOptions:
    """What the command line decides; `seconds` of wall clock, `schedule` as shares of a run."""

    assets: Path
    work: Path
    out: Path
    device: torch.device
    seconds: float
    batch: int
    rate: float
    ema: float
    reuse: int
    schedule: tuple[float, float]
    init: Path | None
    resume: bool
    text: bool
    cfg: float
    muon: bool
    compile: bool
    smoke: bool


@dataclass(frozen=True)
class ModelScale:
    """Sizes of a run. Of sizes, pools and fills the first is the main one."""

    per_class: int
    held_per_class: int
    bg_size: int
    #: (height, width, share); the first is compiled, the rest run eagerly
    sizes: tuple[tuple[int, int, float], ...]
    pools: tuple[int, int]
    fills: tuple[int, int]
    chunk: int
    sheet: tuple[tuple[str, int], ...]
    sheet_size: int
    sheet_steps: int


FULL = ModelScale(
    per_class=192,
    held_per_class=12,
    bg_size=384,
    sizes=(
        (256, 256, 0.85),
        (192, 256, 0.03),
        (256, 192, 0.03),
        (192, 320, 0.03),
        (320, 192, 0.03),
        (320, 320, 0.03),
    ),
    pools=(24576, 3072),
    fills=(6144, 512),
    chunk=256,
    sheet=(("fill", 16), ("text", 10), ("remove", 10), ("extend", 8), ("extend_free", 4)),
    sheet_size=256,
    sheet_steps=28,
)
SMOKE = ModelScale(
    per_class=1,
    held_per_class=1,
    bg_size=64,
    sizes=((64, 64, 0.7), (48, 64, 0.3)),
    pools=(8, 8),
    fills=(8, 8),
    chunk=4,
    sheet=(("fill", 2), ("remove", 2)),
    sheet_size=64,
    sheet_steps=2,
)
SMOKE_BATCH = 4


def _model(ids: CaptionIds, device: torch.device) -> Denoiser:
    return Denoiser(ids.clip_size, ids.t5_size, ids.clip_start, ids.clip_end).to(device)


class ModelTraining:
    """The model, its running average, its pools of scenes and its optimizer."""

    def __init__(self, options: ModelOptions) -> None:
        low, self.high = options.schedule
        stage = int(1000 * low)
        torch.manual_seed(SEED + 1 + stage)
        self.options = options
        self.scale = scale = SMOKE if options.smoke else FULL
        self.batch = SMOKE_BATCH if options.smoke else options.batch
        self.device = device = options.device
        self.compiled = device.type != "cpu" and options.compile
        mix = TEXT_MIX if options.text else MAIN_MIX
        self.bank = SceneBank(
            options.assets, device, scale.per_class, scale.bg_size, SEED + 2 + stage, mix
        )
        self.ids = caption_ids(options.work, self.bank.captions.texts, device)
        self.vae = load_vae(options.work, device)
        self.model = _model(self.ids, device)
        self.average = _model(self.ids, device).requires_grad_(False)
        self.low = self._begin(low)
        self.optimizer = Muon(self.model, options.rate, options.muon)
        self.objective = Objective(self.model, self.ids, self.bank.captions)
        self.producer = Producer(self.bank, self.vae, scale.chunk, self.compiled)
        if self.compiled:
            self.model.transformer.compile_repeated_blocks(fullgraph=False, dynamic=False)
        self.pools = self._fill_pools()
        self.shares = torch.tensor([share for _, _, share in scale.sizes])
        self.steps = 0
        self.seen = 0

    def _begin(self, low: float) -> float:
        """Start anew or from --init; returns where in the schedule."""
        init = self.options.init
        if init is None:
            self.average.load_state_dict(self.model.state_dict())
            return low
        load_denoiser(self.model, init / "model_raw.safetensors")
        load_denoiser(self.average, init / "model_ema.safetensors")
        if self.options.resume:
            with safe_open(init / "model_ema.safetensors", "pt") as file:
                low = float(file.metadata()["progress"])
        log.info("continuing from %s at %.3f", init, low)
        return low

    def _fill_pools(self) -> list[Pool]:
        dtype = torch.float32 if self.device.type == "cpu" else torch.float16
        pools = []
        for k, (height, width, _) in enumerate(self.scale.sizes):
            capacity = self.scale.pools[min(k, 1)]
            pools.append(Pool(capacity, height, width, self.device, dtype))
        for k, pool in enumerate(pools):
            for _ in range(self.scale.fills[min(k, 1)] // self.scale.chunk):
                self.producer.produce(pool, k == 0)
        return pools

    def _eager(self, wanted: bool) -> AbstractContextManager[object]:
        """Sizes and lengths other than the main ones run without the compiler."""
        if wanted and self.compiled:
            eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
            return eager
        return contextlib.nullcontext()

    def _choose(self) -> tuple[int, int, int]:
        """Which pool, how many T5 tokens, how many samples."""
        k = int(torch.multinomial(self.shares, 1))
        length, count = CAPTION_LENGTH, self.batch
        if k == 0 and torch.rand(()) < 0.04:
            longer = ((64, 2), (128, 2), (512, 4))
            length, divisor = longer[int(torch.randint(0, 3, (1,)))]
            count = max(self.batch // divisor, 2)
        if k and self.pools[k].height * self.pools[k].width > 256 * 256:
            count = max(2, self.batch // 2)
        return k, length, count

    def _rate(self, progress: float) -> float:
        """Warm-up, a plateau for a quarter of the schedule, then a cosine to nearly nothing."""
        rate = self.options.rate * min(1, (self.steps + 1) / 200)
        if progress < 0.25:
            return rate
        return rate * (0.5 * (1 + math.cos(math.pi * (progress - 0.25) / 0.75)) + 0.003)

    def step(self, progress: float) -> Loss:
        """One update; `progress` 0..1 sets the learning rate."""
        k, length, count = self._choose()
        pool = self.pools[k]
        index = torch.randint(0, pool.filled, (count,), device=self.device)
        with self._eager(k > 0 or length != CAPTION_LENGTH):
            loss = self.objective(pool, index, length)
            torch.autograd.backward(loss.total)
        parameters: list[Tensor] = list(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step(self._rate(progress))
        self.model.zero_grad(set_to_none=True)
        keep = self.options.ema
        if self.options.init is None:
            keep = min(keep, (self.steps + 1) / (self.steps + 10))
        torch._foreach_lerp_(list(self.average.parameters()), parameters, 1 - keep)
        self.steps += 1
        self.seen += count
        if self.steps % self.options.reuse == 0:
            with self._eager(k > 0):
                self.producer.produce(pool, k == 0)
        if self.steps % 100 == 0:
            self.bank.backgrounds.refresh(32)
        return loss

    def save(self, progress: float) -> None:
        """Write model_raw and model_ema, the second with how far the schedule has come."""
        out = self.options.out
        out.mkdir(parents=True, exist_ok=True)
        counts = {"steps": self.steps, "samples": self.seen, "progress": progress}
        meta = {name: str(value) for name, value in counts.items()}
        save_half(self.model, out / "model_raw.safetensors")
        save_half(self.average, out / "model_ema.safetensors", meta)

    def _report(self, loss: Loss, progress: float) -> None:
        inside = (loss.error * loss.coverage).sum(1) / loss.coverage.sum(1).clamp(min=1e-6)
        tasks = {
            name: round(inside[loss.task == i].mean().item(), 3)
            for i, name in enumerate(TASKS)
            if bool((loss.task == i).any())
        }
        values = (self.steps, progress, self.seen // 1000, loss.in_mask().item(), tasks)
        log.info("step %d p=%.2f seen %dk in-mask loss %.4f %s", *values)
        log.info("out of mask %.4f", loss.out_of_mask().item())

    def run(self) -> None:
        """Train until the time is over, saving on the way."""
        start = saved = time.time()
        seconds = self.options.seconds
        while (elapsed := time.time() - start) <= seconds:
            progress = self.low + (self.high - self.low) * elapsed / seconds
            loss = self.step(progress)
            if self.steps == WARM_STEPS:
                now = time.time()
                seconds -= now - start
                start = now
            if self.steps % 500 == 0 or self.steps in (100, 200, 300, SMOKE_STEPS):
                self._report(loss, progress)
            if time.time() - saved > SAVE_EVERY:
                self.save(progress)
                saved = time.time()
            if self.options.smoke and self.steps >= SMOKE_STEPS:
                break
        self.save(self.high)
        log.info("trained %d steps, %d samples", self.steps, self.seen)

    def draw_sheet(self) -> None:
        """Write out/sheet.png from scenes of a seed that training never used."""
        scale = self.scale
        held = SceneBank(
            self.options.assets, self.device, scale.held_per_class, scale.bg_size, SEED + 777
        )
        tasks = tuple(name for name, count in scale.sheet for _ in range(count))
        sheet = Sheet(tasks, scale.sheet_size, scale.sheet_steps, self.options.cfg)
        path = self.options.out / "sheet.png"
        with self._eager(True):
            draw_held_out(self.average.eval(), self.vae, self.ids, held, sheet, path)


def train_model(options: ModelOptions) -> None:
    """Write out/model_raw.safetensors, out/model_ema.safetensors and out/sheet.png."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.benchmark = True
    training = ModelTraining(options)
    training.run()
    training.draw_sheet()
