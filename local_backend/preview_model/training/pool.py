"""Encoded scenes that wait on the device and are used several times with new noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .scenes import SceneBank


class Pool:
    """Encoded samples of one picture size; old ones are replaced while training goes on."""

    def __init__(
        self, capacity: int, height: int, width: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """`capacity` in samples, `height` and `width` in px, `dtype` of the stored latents."""
        self.height = height
        self.width = width
        self.capacity = capacity
        self.filled = 0
        self._next = 0
        shape = (capacity, 16, height // 8, width // 8)
        self.target = torch.zeros(shape, device=device, dtype=dtype)
        self.masked = torch.zeros(shape, device=device, dtype=dtype)
        self.mask = torch.zeros(capacity, height, width, device=device, dtype=torch.uint8)
        self.caption = torch.zeros(capacity, device=device, dtype=torch.long)
        self.task = torch.zeros(capacity, device=device, dtype=torch.long)

    def put(
        self, target: Tensor, masked: Tensor, mask: Tensor, caption: Tensor, task: Tensor
    ) -> None:
        """Store a batch over the oldest samples."""
        n = len(caption)
        at = torch.arange(self._next, self._next + n, device=caption.device) % self.capacity
        self.target[at] = target.to(self.target.dtype)
        self.masked[at] = masked.to(self.masked.dtype)
        self.mask[at] = mask[:, 0].byte()
        self.caption[at] = caption
        self.task[at] = task
        self._next = (self._next + n) % self.capacity
        self.filled = min(self.capacity, self.filled + n)


class Producer:
    """Composites scenes, encodes them and puts them into pools, `chunk` at a time."""

    def __init__(self, bank: SceneBank, vae: AutoencoderKL, chunk: int, compiled: bool) -> None:
        self.bank = bank
        self.vae = vae
        self.chunk = chunk
        self.fast: Callable[[Tensor], Tensor]
        self.fast = torch.compile(self._moments) if compiled else self._moments

    def _moments(self, x: Tensor) -> Tensor:
        moments: Tensor = self.vae.encode(x).latent_dist.parameters
        return moments

    @torch.no_grad()
    def produce(self, pool: Pool, main_size: bool) -> None:
        """Add one chunk; only the main size's encoder is compiled."""
        scenes = self.bank.batch(self.chunk, pool.height, pool.width)
        x = scenes.image * 2 - 1
        both = torch.cat([x, x * (1 - scenes.mask)])
        both = both.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type != "cpu"):
            moments = (self.fast if main_size else self._moments)(both).float()
        mean, logvar = moments.chunk(2, 1)
        latents = mean + (0.5 * logvar.clamp(-30, 20)).exp() * torch.randn_like(mean)
        config = self.vae.config
        latents = (latents - config["shift_factor"]) * config["scaling_factor"]
        target, masked = latents.chunk(2)
        pool.put(target, masked, scenes.mask, scenes.caption, scenes.task)
