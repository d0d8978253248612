"""What a finished job made, as the backend hands it on and as the journal keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..contracts import FROM_CACHE
from .schemas import Output


@dataclass(frozen=True)
class Kept:
    """A finished job, from the service or from the journal.

    Attributes:
        images: float [h, w, 3] each, without those that were flagged; empty if all were.
        cost: US dollars spent now; None if the price is unknown.
    """

    request_id: str
    images: list[Tensor]
    seed: int | None
    has_nsfw_concepts: tuple[bool, ...]
    prompt: str | None
    timings: Mapping[str, float]
    billed_units: float | None
    cost: float | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, request_id: str, output: Output, images: list[Tensor], cost: float | None,
        notes: tuple[str, ...],
    ) -> Kept:  # fmt: skip
        """A job that has just finished."""
        return cls(
            request_id, images, output.seed, output.has_nsfw_concepts, output.prompt,
            output.timings, output.billed_units, cost, notes,
        )  # fmt: skip

    @classmethod
    def again(cls, request_id: str, meta: str | None, images: list[Tensor]) -> Kept:
        """A job that was kept before: it costs nothing now."""
        said = json.loads(meta or "{}")
        return cls(
            request_id, images, said.get("seed"), tuple(said.get("has_nsfw_concepts", ())),
            None, {}, said.get("billed_units"), 0.0,
            (FROM_CACHE,),
        )  # fmt: skip

    def meta(self) -> str:
        """What is kept beside the images; neither the prompt nor the times it once
        took, which nobody asks the journal for.
        """
        return json.dumps(
            {
                "seed": self.seed,
                "has_nsfw_concepts": self.has_nsfw_concepts,
                "billed_units": self.billed_units,
            }
        )
