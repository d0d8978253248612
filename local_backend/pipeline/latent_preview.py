"""A cheap look at latents: one linear map from latent channels to RGB, without the VAE."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...nodes.errors import CheckpointError


@dataclass(frozen=True, eq=False)
class LatentRgb:
    """The least-squares fit of a VAE's decoder by one matrix.

    Attributes:
        weight: float32 [channels, 3].
        bias: float32 [3].
    """

    weight: Tensor
    bias: Tensor

    def picture(self, latents: Tensor) -> Tensor:
        """Latents [1, channels, h, w], as the transformer sees them, to [h, w, 3] in 0..1."""
        pixels = latents[0].to("cpu", torch.float32).permute(1, 2, 0)
        return (pixels @ self.weight + self.bias).clamp(0, 1)


def load_latent_rgb(path: Path, channels: int) -> LatentRgb:
    """The map stored at this path for a VAE of that many latent channels.

    Raises:
        CheckpointError: the file holds something else.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        weight = torch.tensor(stored["weight"], dtype=torch.float32)
        bias = torch.tensor(stored["bias"], dtype=torch.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a preview map: {error}.") from error
    if weight.shape != (channels, 3) or bias.shape != (3,):
        raise CheckpointError(
            f"{path} maps {tuple(weight.shape)}, but the VAE has {channels} latent channels."
        )
    return LatentRgb(weight, bias)
