"""The quality gate in small: a few held-out scenes, each level beside fewer steps."""

from __future__ import annotations

from statistics import fmean

import pytest
from benchmarks.quality import choose_scenes
from benchmarks.quality_runs import Painter
from benchmarks.quality_scores import FIDELITY, LEAD
from benchmarks.quality_variants import variants
from fakes.quality import HeldOutScene, psnr_in
from torch import Tensor

SCENES = 8
STEPS_OF_THE_TIME = {"regular": 14, "high": 10}  # of none, that take longer than the level


@pytest.fixture(scope="module")
def paint() -> Painter:
    chosen = variants()
    return Painter({name: chosen[name] for name in FIDELITY})


@pytest.fixture(scope="module")
def full(paint: Painter) -> list[tuple[HeldOutScene, Tensor]]:
    """Every scene with none's picture of it."""
    return [(scene, paint(scene)[0]) for scene in choose_scenes(SCENES)]


@pytest.mark.parametrize("level", FIDELITY)
def test_a_level_is_closer_to_none_than_fewer_steps_that_take_longer(
    paint: Painter, full: list[tuple[HeldOutScene, Tensor]], level: str
) -> None:
    own, rival = [], []
    for scene, picture in full:
        mask = scene.mask[None]
        own.append(psnr_in(paint(scene, level)[0], picture, mask))
        fewer = paint(scene, steps=STEPS_OF_THE_TIME[level])[0]
        rival.append(psnr_in(fewer, picture, mask))
    assert fmean(own) > FIDELITY[level] - 3  # eight scenes tell no more; the gate runs all of them
    assert fmean(own) > fmean(rival) + LEAD - 2
