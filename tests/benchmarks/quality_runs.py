"""Paints the held-out scenes with the preview model, and measures every picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from benchmarks.quality_judges import Judges
from benchmarks.quality_scores import STEPS, Sample, band, steps_by_band
from benchmarks.quality_variants import Variant
from fakes.backend import RecordingProgress
from fakes.quality import HeldOutScene, psnr_in, texture_share
from onereward_pack.local_backend.acceleration.levels import NONE
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from onereward_pack.local_backend.pipeline.preview_components import (
    PREVIEW_FOLDER,
    load_preview_model,
)
from torch import Tensor

FULL = "none"
CPU = torch.device("cpu")


class Painter:
    """One preview model, sampled in every way."""

    def __init__(self, variants: Mapping[str, Variant]) -> None:
        self._variants = variants
        levels = {FULL: NONE} | {name: variant.level for name, variant in variants.items()}
        self._pipeline = OneRewardPipeline(load_preview_model(PREVIEW_FOLDER), CPU, levels=levels)

    def __call__(
        self, scene: HeldOutScene, variant: str = FULL, steps: int = STEPS
    ) -> tuple[Tensor, float]:
        """The picture [1, 3, h, w] before it is stitched, and the seconds of its sampling loop."""
        request = scene.request(acceleration=variant, num_inference_steps=steps)
        around = (
            nullcontext() if variant == FULL else self._variants[variant].around(self._pipeline)
        )
        with around:
            result = self._pipeline(request, RecordingProgress())
        return result.images.permute(0, 3, 1, 2), result.timings["denoise"]


@dataclass
class Results:
    """All samples of a run, by variant in the order of the scenes.

    Attributes:
        full: none's.
        variants: by name.
        rivals: none in fewer steps, by the variant they are the rival of.
        clock: seconds of none's second picture of a scene over its first, less 1; the median size.
        repeats: both pictures were equal in all scenes.
    """

    full: list[Sample] = field(default_factory=list)
    variants: dict[str, list[Sample]] = field(default_factory=dict)
    rivals: dict[str, list[Sample]] = field(default_factory=dict)
    clock: float = 0.0
    repeats: bool = True


class Gate:
    """Runs the comparison, one scene after the other."""

    def __init__(self, scenes: Sequence[HeldOutScene], paint: Painter, judges: Judges) -> None:
        self._scenes = scenes
        self._paint = paint
        self._judges = judges
        self._pictures: dict[str, Tensor] = {}
        self._made: dict[tuple[str, int], Sample] = {}

    def run(self, variants: Mapping[str, Variant], say: Callable[[str], None]) -> Results:
        """Every variant on every scene, then their rivals. `say` is told how far it is."""
        results = Results()
        clocks = []
        self._paint(self._scenes[0], steps=2)  # what is made once is not timed
        for number, scene in enumerate(self._scenes, 1):
            clocks.append(self._run_scene(scene, variants, results))
            say(f"{number} of {len(self._scenes)}: {scene.name}")
        results.clock = statistics.median(clocks)
        for name, variant in variants.items():
            if variant.kind != "floor":
                results.rivals[name] = self._rivals(results, variant)
                say(f"rivals of {name}")
        return results

    def _run_scene(
        self, scene: HeldOutScene, variants: Mapping[str, Variant], results: Results
    ) -> float:
        """None before and after the variants, in case the machine slows down meanwhile."""
        first, seconds = self._paint(scene)
        self._pictures[scene.name] = first
        samples = []
        for name in variants:
            picture, took = self._paint(scene, name)
            samples.append(self._measure(scene, name, STEPS, picture, took))
        again, later = self._paint(scene)
        results.repeats &= torch.equal(first, again)
        mean = (seconds + later) / 2
        results.full.append(self._measure(scene, FULL, STEPS, first, mean))
        for sample in samples:
            results.variants.setdefault(sample.variant, []).append(sample)
        return abs(later / seconds - 1)

    def _rivals(self, results: Results, variant: Variant) -> list[Sample]:
        pairs = zip(results.variants[variant.name], results.full, strict=True)
        steps = steps_by_band(
            (own.share, variant.cost or own.seconds / full.seconds) for own, full in pairs
        )
        return [self._fewer(scene, steps[band(scene.share)]) for scene in self._scenes]

    def _fewer(self, scene: HeldOutScene, steps: int) -> Sample:
        if (scene.name, steps) not in self._made:
            picture, seconds = self._paint(scene, FULL, steps)
            self._made[scene.name, steps] = self._measure(scene, FULL, steps, picture, seconds)
        return self._made[scene.name, steps]

    def _measure(
        self, scene: HeldOutScene, variant: str, steps: int, picture: Tensor, seconds: float
    ) -> Sample:
        mask, full = scene.mask[None], self._pictures[scene.name]
        truth = scene.image.permute(0, 3, 1, 2)
        finding = self._judges.judge(scene, picture)
        return Sample(
            scene=scene.name,
            task=scene.task.value,
            share=scene.share,
            variant=variant,
            steps=steps,
            seconds=seconds,
            psnr=psnr_in(picture, full, mask),
            truth=psnr_in(picture, truth, mask),
            texture=texture_share(picture, truth, mask),
            score=finding.score,
            hit=finding.hit,
            seen=finding.seen,
        )
