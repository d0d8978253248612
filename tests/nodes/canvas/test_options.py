from __future__ import annotations

import dataclasses
import math

import pytest
from onereward_pack.nodes.canvas import options
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.errors import InputError


def test_defaults_are_the_documented_ones() -> None:
    assert dataclasses.astuple(CanvasOptions()) == (
        8, 16, 1.5, "auto", "per region", 1.0, True, False, "keep",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "low", "high", "step"),
    [
        ("grow", options.MIN_GROW, options.MAX_GROW, 1),
        ("blend", options.MIN_BLEND, options.MAX_BLEND, 1),
        ("context", options.MIN_CONTEXT, options.MAX_CONTEXT, 0.01),
        ("seam", options.MIN_SEAM, options.MAX_SEAM, 0.01),
    ],
)
def test_limits_are_allowed_and_what_lies_beyond_is_refused(
    field: str, low: float, high: float, step: float
) -> None:
    for value in (low, high):
        assert getattr(CanvasOptions(**{field: value}), field) == value
    for value in (low - step, high + step):
        with pytest.raises(InputError, match=rf"(?i){field} {value:g} is out of range"):
            CanvasOptions(**{field: value})


def test_not_a_number_is_refused() -> None:
    with pytest.raises(InputError, match="Context nan"):
        CanvasOptions(context=math.nan)


def test_a_target_that_cannot_be_read_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="'huge'"):
        CanvasOptions(target="huge")


def test_an_unknown_region_choice_is_refused_and_the_choices_named() -> None:
    with pytest.raises(InputError, match='"per region" or "one crop"'):
        CanvasOptions(regions="all")


def test_every_region_choice_is_accepted() -> None:
    for choice in options.REGION_CHOICES:
        assert CanvasOptions(regions=choice).regions == choice
