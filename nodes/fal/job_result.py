"""A job's result, as the backend hands it on and as it comes out of the journal, the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..contracts import FROM_CACHE
from ..image_io import decode_image
from .schemas import Output

# Pixels of a result: so many times those of its crop, and at least; without a crop, at most.
MOST_TIMES, SMALLEST_LIMIT, LARGEST_RESULT_PIXELS = 16, 4_000_000, 64_000_000


@dataclass(frozen=True)
class JobResult:
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
    ) -> JobResult:  # fmt: skip
        """A job that has just finished."""
        return cls(
            request_id, images, output.seed, output.has_nsfw_concepts, output.prompt,
            output.timings, output.billed_units, cost, notes,
        )  # fmt: skip

    @classmethod
    def cached(cls, request_id: str, meta: str | None, files: Sequence[bytes]) -> JobResult:
        """A job whose image files the journal has: it costs nothing now."""
        payload = json.loads(meta or "{}")
        images = [decode_image(data)[0, ..., :3] for data in files]
        return cls(
            request_id, images, payload.get("seed"), tuple(payload.get("has_nsfw_concepts", ())),
            None, {}, payload.get("billed_units"), 0.0,
            (FROM_CACHE,),
        )  # fmt: skip

    def meta(self) -> str:
        """What the journal retains beside the images, as JSON; neither the prompt nor the times it
        once took, which nobody asks the journal for.
        """
        return json.dumps(
            {
                "seed": self.seed,
                "has_nsfw_concepts": self.has_nsfw_concepts,
                "billed_units": self.billed_units,
            }
        )


def most_pixels(crop: int | None) -> int:
    """The largest result worth opening: a service may answer larger than it was asked, but not by
    any factor. The crop of a job that was sent elsewhere is not known.
    """
    return max(MOST_TIMES * crop, SMALLEST_LIMIT) if crop else LARGEST_RESULT_PIXELS
