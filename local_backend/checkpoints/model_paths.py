"""Which files a FLUX.1-Fill pipeline on this machine is made of."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ModelPaths:
    """Each path is a file, the index of its shards, or a folder as diffusers keeps that part.

    Attributes:
        transformer: FLUX.1-Fill, OneReward's or any other.
        text_encoder: CLIP-L.
        text_encoder_2: T5-XXL.
        vae: FLUX's.
        lora_strength: how much of the LoRA is added; may be negative.
        precision, compile, attention: see LocalSpec.
    """

    transformer: Path
    text_encoder: Path
    text_encoder_2: Path
    vae: Path
    lora: Path | None = None
    lora_strength: float = 1.0
    precision: str = "auto"
    compile: bool = False
    attention: str = "default"

    def models(self) -> Hashable:
        """The four models, as they are on the disk now: other files, or a file that was written
        anew, are other models. A LoRA and how the models compute are not part of it.
        """
        paths = (self.transformer, self.text_encoder, self.text_encoder_2, self.vae)
        return tuple(file_stamp(path) for path in paths)


def file_stamp(path: Path) -> Hashable:
    """Which file it is, when it or the newest of its folder's was written, and their size. A folder
    counts for a model's folder, and for the index of shards.
    """
    shards = path.parent if path.name.endswith(".index.json") else path
    files = [path, *shards.iterdir()] if shards.is_dir() else [path]
    stats = [file.stat() for file in files if file.exists()]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return path, newest, sum(stat.st_size for stat in stats)
