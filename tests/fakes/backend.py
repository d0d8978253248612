"""Stand-ins at the Backend seam: the canvas is tested apart from any model."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace

import torch
from onereward_pack.nodes.contracts import (
    Capabilities,
    EditRecipe,
    EditRequest,
    EditResult,
    ProgressSink,
)
from onereward_pack.nodes.errors import InputError, RemoteError
from torch import Tensor


class Interrupted(Exception):
    """Stands for ComfyUI's own exception, which lives outside the pack's tree."""


class RecordingProgress:
    """A ProgressSink that keeps what it is told, and cancels at a given step."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[Tensor] = []
        self.texts: list[str] = []
        self._cancel_at = cancel_at

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        self.steps.append((value, total))
        if preview is not None:
            self.previews.append(preview)

    def status(self, text: str) -> None:
        self.texts.append(text)

    def check_interrupted(self) -> None:
        if self._cancel_at is not None and len(self.steps) >= self._cancel_at:
            raise Interrupted


class ColourBackend:
    """Fills the mask with a colour that the seed decides, and shifts every kept pixel by `drift`.

    A result that is used anywhere it should not be shows at once. Without a drift the whole crop
    takes the colour, so that no interpolation at the mask's edge mixes anything else in.
    """

    name = "colour"

    def __init__(
        self, max_pixels: int = 64 * 64, min_side: int = 32, drift: float | None = 0.01
    ) -> None:
        self.capabilities = Capabilities(max_pixels=max_pixels, min_side=min_side, max_aspect=3.0)
        self.requests: list[EditRequest] = []
        self.admitted: list[int] = []
        self._drift = drift

    def check(self, recipe: EditRecipe) -> None:
        if recipe.acceleration == "high":
            raise InputError(f"No acceleration {recipe.acceleration}. Use none.")

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        self.admitted += [request.seed for request in requests]

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        self.requests.append(request)
        seeds = tuple(request.seed + i for i in range(request.num_images))
        painted = []
        for number, seed in enumerate(seeds, 1):
            progress.check_interrupted()
            painted.append(self._paint(request, seed))
            progress.step(number, len(seeds), painted[-1].clamp(0, 1)[::8, ::8])
        clean = (False,) * len(seeds)
        return EditResult(
            images=torch.stack(painted).clamp(0, 1),
            seeds=seeds,
            has_nsfw_concepts=clean,
            timings={"denoise": 0.001},
        )

    def _paint(self, request: EditRequest, seed: int) -> Tensor:
        if self._drift is None:
            return colour(seed).expand_as(request.image[0])
        hole = request.mask[0, ..., None] > 0
        return torch.where(hole, colour(seed), request.image[0] + self._drift)


class RemoteColourBackend(ColourBackend):
    """The same, as a service: several jobs at once, one image each, some flagged or failing.

    Args:
        flagged, failing: seeds of the jobs that end so.
    """

    def __init__(self, flagged: Set[int] = frozenset(), failing: Set[int] = frozenset()) -> None:
        super().__init__(drift=None)
        self.capabilities = replace(
            self.capabilities, remote=True, parallel_jobs=3, images_per_run=1
        )
        self._flagged, self._failing = flagged, failing

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        if request.seed in self._failing:
            self.requests.append(request)
            raise RemoteError("The wire broke.", may_be_billed=True)
        return replace(
            super().run(request, progress),
            has_nsfw_concepts=(request.seed in self._flagged,),
            request_id=f"job-{request.seed}",
            cost=0.01,
            session_cost=0.1,
        )


def colour(seed: int) -> Tensor:
    """float [3]: far from mid grey, different for neighbouring seeds."""
    return torch.tensor([(seed * 37 % 50) / 100, 0.9, (seed * 11 % 50) / 100])
