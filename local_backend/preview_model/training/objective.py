"""The training objective: rectified flow with FLUX's shifted times, weighted towards the mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .captions import Captions
from .models import Denoiser
from .packing import image_ids, pack, pack_mask
from .pool import Pool
from .tokenizers import CaptionIds

#: FLUX's base_shift, the shift of a 256-token picture
MU = 0.5
UNIFORM_TIMES = 0.15
DROPPED_CAPTIONS = 0.13


@dataclass(frozen=True)
class Loss:
    """The loss to minimize, and for the log its parts: error and coverage per token, tasks."""

    total: Tensor
    error: Tensor
    coverage: Tensor
    task: Tensor

    def in_mask(self) -> Tensor:
        """Mean error of the masked tokens."""
        return (self.error * self.coverage).sum() / self.coverage.sum()

    def out_of_mask(self) -> Tensor:
        """Mean error of the rest."""
        rest = 1 - self.coverage
        return (self.error * rest).sum() / rest.sum()


def noise_times(n: int, device: torch.device) -> Tensor:
    """Noise levels in 0..1: logit-normal, some uniform, all shifted by MU."""
    u = torch.sigmoid(torch.randn(n, device=device))
    is_uniform = torch.rand(n, device=device) < UNIFORM_TIMES
    u = torch.where(is_uniform, torch.rand(n, device=device), u)
    shift = math.exp(MU)
    return (shift * u / (1 + (shift - 1) * u)).clamp(1e-3, 1)


class Objective:
    """Draws noise, times, guidance and caption dropout for samples of a pool."""

    def __init__(self, model: Denoiser, ids: CaptionIds, captions: Captions) -> None:
        self.model = model
        self.ids = ids
        device = ids.clip.device
        self.unconditional = torch.tensor([captions.empty, captions.negative], device=device)

    def _captions(self, caption: Tensor) -> Tensor:
        """The captions, some of them dropped: half to nothing, half to the negative prompt."""
        r = torch.rand(len(caption), device=caption.device)
        dropped = self.unconditional[(r < DROPPED_CAPTIONS / 2).long()]
        return torch.where(r < DROPPED_CAPTIONS, dropped, caption)

    @staticmethod
    def _guidance(n: int, device: torch.device) -> Tensor:
        """1 or anything up to 40: the model learns to ignore it."""
        is_one = torch.rand(n, device=device) < 0.5
        one = torch.ones(n, device=device)
        return torch.where(is_one, one, 1 + torch.rand(n, device=device) * 39)

    def _velocity(
        self, tokens: Tensor, sigma: Tensor, caption: Tensor, length: int, pool: Pool
    ) -> Tensor:
        device = tokens.device
        guidance = self._guidance(len(sigma), device)
        t5 = self.ids.t5[caption]
        t5 = F.pad(t5, (0, max(0, length - t5.shape[1])))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
            pooled, text = self.model.encode(self.ids.clip[caption], t5)
            velocity: Tensor = self.model.transformer(
                hidden_states=tokens,
                timestep=sigma,
                guidance=guidance,
                pooled_projections=pooled,
                encoder_hidden_states=text,
                txt_ids=torch.zeros(length, 3, device=device),
                img_ids=image_ids(pool.height // 16, pool.width // 16, device),
                return_dict=False,
            )[0]
        return velocity.float()

    def __call__(self, pool: Pool, index: Tensor, length: int) -> Loss:
        """The loss on samples `index` with captions padded to `length` T5 tokens."""
        n = len(index)
        mask = pack_mask(pool.mask[index][:, None].float())
        caption = self._captions(pool.caption[index])
        sigma = noise_times(n, mask.device)
        x0 = pack(pool.target[index].float())
        noise = torch.randn(n, mask.shape[1], 64, device=mask.device)
        s = sigma.view(n, 1, 1)
        noisy = (1 - s) * x0 + s * noise
        tokens = torch.cat([noisy, pack(pool.masked[index].float()), mask], -1)
        velocity = self._velocity(tokens, sigma, caption, length, pool)
        error = ((velocity - (noise - x0)) ** 2).mean(-1)
        coverage = mask.mean(-1)
        weight = 0.15 + coverage
        total = (error * weight).sum() / weight.sum()
        return Loss(total, error.detach(), coverage, pool.task[index])
