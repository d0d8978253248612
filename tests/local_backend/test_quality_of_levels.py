"""The quality gate in small: a few held-out scenes, each level beside fewer steps."""

from __future__ import annotations

from statistics import fmean

import pytest
from benchmarks.quality import choose_scenes
from benchmarks.quality_runs import Painter
from benchmarks.quality_scores import FIDELITY, LEAD, band
from benchmarks.quality_variants import variants
from fakes.quality import HeldOutScene, psnr_in
from torch import Tensor

SCENES = 12
EQUAL_TIME = {"regular": (9, 12, 14), "high": (7, 9, 10)}  # steps of none, by band of the mask


@pytest.fixture(scope="module")
def paint() -> Painter:
    chosen = variants()
    return Painter({name: chosen[name] for name in FIDELITY})


@pytest.fixture(scope="module")
def full(paint: Painter) -> list[tuple[HeldOutScene, Tensor]]:
    """Every scene with none's picture of it."""
    return [(scene, paint(scene)[0]) for scene in choose_scenes(SCENES)]


@pytest.mark.parametrize("level", FIDELITY)
def test_a_level_is_closer_to_none_than_fewer_steps_of_the_same_time(
    paint: Painter, full: list[tuple[HeldOutScene, Tensor]], level: str
) -> None:
    own, rival = [], []
    for scene, picture in full:
        mask = scene.mask[None]
        own.append(psnr_in(paint(scene, level)[0], picture, mask))
        fewer = paint(scene, steps=EQUAL_TIME[level][band(scene.share)])[0]
        rival.append(psnr_in(fewer, picture, mask))
    # twelve scenes tell no more; the gate runs all of them
    assert fmean(own) > FIDELITY[level] - 2
    assert fmean(own) > fmean(rival) + 0.5 * LEAD
