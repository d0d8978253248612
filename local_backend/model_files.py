"""Which files a FLUX.1-Fill pipeline on this machine is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PRECISIONS = ("auto", "file", "fp8")


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Each path is a file, the index of its shards, or a folder as diffusers keeps that part.

    Attributes:
        transformer: FLUX.1-Fill, OneReward's or any other.
        text_encoder: CLIP-L.
        text_encoder_2: T5-XXL.
        vae: FLUX's.
        lora_strength: how much of the LoRA is added; may be negative.
        precision: one of PRECISIONS; see LocalSpec.
    """

    transformer: Path
    text_encoder: Path
    text_encoder_2: Path
    vae: Path
    lora: Path | None = None
    lora_strength: float = 1.0
    precision: str = "auto"
