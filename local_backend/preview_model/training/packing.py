"""FLUX.1-Fill's token layout, as FluxFillPipeline packs it."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """`[n, c, h, w]` to tokens of 2 x 2 latents, `[n, h/2 * w/2, 4c]`."""
    n, c, h, w = latents.shape
    blocks = latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(n, (h // 2) * (w // 2), c * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The way back; `height` and `width` are the latents'."""
    n, _, c = tokens.shape
    blocks = tokens.view(n, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(n, c // 4, height, width)


def pack_mask(mask: Tensor) -> Tensor:
    """A pixel mask `[n, 1, H, W]` as tokens `[n, H/16 * W/16, 256]`, every pixel kept."""
    n, _, height, width = mask.shape
    h = height // 8
    w = width // 8
    cells = mask[:, 0].view(n, h, 8, w, 8).permute(0, 2, 4, 1, 3)
    return pack(cells.reshape(n, 64, h, w))


def image_ids(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of every token, `[height * width, 3]`; sizes in tokens."""
    ids = torch.zeros(height, width, 3, device=device)
    ids[..., 1] += torch.arange(height, device=device)[:, None]
    ids[..., 2] += torch.arange(width, device=device)[None]
    return ids.view(-1, 3)
