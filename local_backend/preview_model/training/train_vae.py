"""The vae stage: trains the autoencoder on scenes, then gives its latents unit channels."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .grid import save_grid
from .models import VAE_CONFIG, make_vae, save_half
from .scenes import SceneBank

log = logging.getLogger("onereward")

SEED = 20251
RATE = 1e-3
Losses = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class VaeOptions:
    """What the command line decides; `seconds` of wall clock, `batch` in scenes."""

    assets: Path
    work: Path
    device: torch.device
    seconds: float
    batch: int
    compile: bool
    smoke: bool


@dataclass(frozen=True)
class VaeScale:
    """Sizes of a run: backgrounds per class and their px, scene and crop px, rounds of tests."""

    per_class: int
    held_per_class: int
    bg_size: int
    image: int
    crop: int
    statistics: int
    scores: int


FULL = VaeScale(128, 24, 384, 256, 128, 16, 8)
SMOKE = VaeScale(1, 1, 64, 64, 64, 1, 1)
SMOKE_STEPS = 3
SMOKE_BATCH = 4


def vae_images(bank: SceneBank, n: int, size: int, holes: bool = True) -> Tensor:
    """Scenes in -1..1; with `holes` a quarter as FLUX Fill sees them, the masked area mid grey."""
    scenes = bank.batch(n, size, size)
    hole = (bank.draws.rand(n) < (0.25 if holes else 0.0)).view(n, 1, 1, 1).float()
    return (scenes.image * 2 - 1) * (1 - scenes.mask * hole)


def psnr(y: Tensor, x: Tensor) -> list[float]:
    """PSNR of every picture in dB; values in -1..1, so peak to peak is 2."""
    values: list[float] = (10 * torch.log10(4 / ((y - x) ** 2).mean((1, 2, 3)))).tolist()
    return values


class VaeTraining:
    """The model, its running average, its data and its optimizer."""

    def __init__(self, options: VaeOptions) -> None:
        torch.manual_seed(SEED)
        self.options = options
        self.scale = SMOKE if options.smoke else FULL
        self.batch = SMOKE_BATCH if options.smoke else options.batch
        self.on_gpu = options.device.type != "cpu"
        scale = self.scale
        self.bank = SceneBank(options.assets, options.device, scale.per_class, scale.bg_size, SEED)
        self.vae = make_vae()
        module: torch.nn.Module = self.vae  # diffusers' own `to` is typed as a function
        module.to(options.device).to(memory_format=torch.channels_last)
        self.parameters = list(self.vae.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=self.on_gpu
        )
        self.average = [p.detach().clone() for p in self.parameters]
        compiled = self.on_gpu and options.compile
        self.loss: Callable[[Tensor], Losses]
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.steps = 0
        log.info("vae: %.2f M parameters", sum(p.numel() for p in self.parameters) / 1e6)

    def _loss(self, x: Tensor) -> Losses:
        """Reconstruction with gradients at three scales, a little KL; also mse and KL alone."""
        posterior = self.vae.encode(x).latent_dist
        difference = self.vae.decode(posterior.sample()).sample.float() - x
        loss = difference.abs().mean() + 2.0 * (difference**2).mean()
        for scale in (1, 2, 4):
            e = F.avg_pool2d(difference, scale) if scale > 1 else difference
            along_x = (e[..., 1:] - e[..., :-1]).abs().mean()
            loss = loss + 0.5 * (along_x + (e[..., 1:, :] - e[..., :-1, :]).abs().mean())
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean**2 + posterior.var.float() - 1 - logvar).mean()
        return loss + 2e-4 * kl, (difference**2).mean(), kl

    @torch.no_grad()
    def _crops(self) -> Tensor:
        """Two crops of every scene of a batch."""
        full = vae_images(self.bank, self.batch, self.scale.image)
        crop = self.scale.crop
        room = full.shape[-1] - crop + 1
        crops = []
        for _ in range(2):
            y = int(torch.randint(0, room, (1,)))
            x = int(torch.randint(0, room, (1,)))
            crops.append(full[..., y : y + crop, x : x + crop])
        return torch.cat(crops).contiguous(memory_format=torch.channels_last)

    def step(self, progress: float) -> Losses:
        """One update; `progress` 0..1 sets the learning rate."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1, progress))) + 0.005
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1, (self.steps + 1) / 100) * cosine
        x = self._crops()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.on_gpu):
            losses = self.loss(x)
        torch.autograd.backward(losses[0])
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        keep = min(0.999, (self.steps + 1) / (self.steps + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
        self.steps += 1
        return losses

    def run(self) -> None:
        """Train until the time is over; the first step, which compiles, is not counted."""
        seconds = self.options.seconds
        start = time.time()
        while (elapsed := time.time() - start) <= seconds:
            loss, mse, kl = self.step(elapsed / seconds)
            if self.steps == 1:
                start = time.time()
            if self.steps % 500 == 0 or self.steps == 2:
                db = 10 * math.log10(4 / mse.item())
                values = (self.steps, elapsed, loss.item(), db, kl.item())
                log.info("vae %d t=%.0f loss %.4f psnr %.2f kl %.3f", *values)
            if self.steps % 50 == 0:
                self.bank.backgrounds.refresh(16)
            if self.options.smoke and self.steps >= SMOKE_STEPS:
                break
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=True):
                parameter.copy_(average)


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, held: SceneBank, scale: VaeScale) -> dict[str, float]:
    """Fold a scale per channel into the weights; returns the one shift and scale left."""
    rounds = range(scale.statistics)
    images = (vae_images(held, 16, scale.image) for _ in rounds)
    latents = torch.cat([vae.encode(x).latent_dist.mean for x in images])
    deviation = latents.std((0, 2, 3))
    channels = VAE_CONFIG["latent_channels"]
    last = vae.encoder.conv_out
    weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
    weight[:channels] /= deviation.view(-1, 1, 1, 1)
    bias[:channels] /= deviation
    bias[channels:] -= 2 * deviation.log()
    vae.decoder.conv_in.weight *= deviation.view(1, -1, 1, 1)
    latents = latents / deviation.view(1, -1, 1, 1)
    return {
        "shift_factor": latents.mean().item(),
        "scaling_factor": 1 / latents.std().item(),
    }


@torch.no_grad()
def score(vae: AutoencoderKL, held: SceneBank, scale: VaeScale) -> tuple[dict[str, float], Tensor]:
    """PSNR on held-out scenes and on the photos, and pairs of pictures to look at."""
    values: list[float] = []
    pairs: list[Tensor] = []
    for k in range(scale.scores):
        x = vae_images(held, 16, scale.image, holes=False)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        values += psnr(y, x)
        if k == 0:
            pairs.append(torch.stack([x, y], 1).flatten(0, 1))
    photo_values: list[float] = []
    side = (scale.image, scale.image)
    for photo in held.backgrounds.photos:
        x = F.interpolate(photo[None], side, mode="bilinear", antialias=True) * 2 - 1
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        photo_values += psnr(y, x)
        pairs += [x, y]
    scores = {
        "psnr_heldout": sum(values) / len(values),
        "psnr_photos": sum(photo_values) / max(1, len(photo_values)),
    }
    return scores, torch.cat(pairs)


def train_vae(options: VaeOptions) -> None:
    """Write work/vae.safetensors, with its statistics as metadata, and work/vae.png."""
    training = VaeTraining(options)
    training.run()
    vae = training.vae.eval()
    scale = training.scale
    held = SceneBank(
        options.assets, options.device, scale.held_per_class, scale.bg_size, SEED + 999
    )
    statistics = normalize_latents(vae, held, scale)
    statistics["steps"] = training.steps
    scores, pairs = score(vae, held, scale)
    statistics |= scores
    log.info("vae done %s", json.dumps(statistics))
    options.work.mkdir(parents=True, exist_ok=True)
    meta = {name: str(value) for name, value in statistics.items()}
    save_half(vae, options.work / "vae.safetensors", meta)
    save_grid(pairs / 2 + 0.5, 8, options.work / "vae.png", 0.5)
