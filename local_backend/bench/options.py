"""The options of the benchmark. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = ("auto", "random", "preview", "tiny")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and how.

    Attributes:
        weights: one of WEIGHTS; see models_under_test.choose_model.
        models: a folder with a FLUX.1-Fill's files.
        size: a side of the picture in pixels; None for what the model is good at.
        mask: share of the picture that is painted.
        rows: names of configurations.CONFIGURATIONS; empty for all that apply.
        compiled: also the rows that are compiled; None where it is worth it, on CUDA.
        attention: see LocalSpec; the reference has torch's own choice.
        out: a folder for bench.json and bench.png.
        limit: seconds after which no further row is begun.
    """

    weights: str = "auto"
    models: Path | None = None
    size: int | None = None
    steps: int = 28
    mask: float = 0.2
    rows: Sequence[str] = ()
    compiled: bool | None = None
    attention: str = "default"
    out: Path | None = None
    limit: float = 450.0
