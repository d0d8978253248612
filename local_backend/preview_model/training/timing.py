"""The time stage: how long the exported model takes on this machine's CPU, and its size."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from .sampling import fill, load_pipeline

log = logging.getLogger("onereward")

PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


def time_sampling(weights: Path, steps: int) -> None:
    """Log seconds for 256 x 256 px with true CFG, by length of the T5 caption."""
    start = time.time()
    pipe = load_pipeline(weights)
    log.info("load %.2f s, %d threads", time.time() - start, torch.get_num_threads())
    image = torch.rand(1, 3, 256, 256)
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 64:192, 64:192] = 1
    for length in (32, 128, 512):
        fill(pipe, image, mask, ["a cat"], steps=2, length=length)
        start = time.time()
        fill(pipe, image, mask, ["a cat"], steps=steps, length=length)
        log.info("%d steps, %d text tokens: %.2f s", steps, length, time.time() - start)
    for name in PARTS:
        count = sum(p.numel() for p in getattr(pipe, name).parameters())
        log.info("%s: %.2f M parameters", name, count / 1e6)
