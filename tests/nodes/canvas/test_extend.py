from __future__ import annotations

import random

import pytest
import torch
from onereward_pack.nodes.canvas.extend import (
    ANCHORS,
    Margins,
    extend_picture,
    extension_steps,
    margins,
    new_area,
)
from onereward_pack.nodes.canvas.sizes import Extension, parse_extend
from onereward_pack.nodes.errors import InputError


@pytest.mark.parametrize(
    ("text", "anchor", "expected"),
    [
        ("256", "top left", Margins(256, 256, 256, 256)),
        ("left 256, right 128", "left", Margins(256, 0, 128, 0)),
        ("1.5x", "center", Margins(16, 12, 16, 13)),
        ("1.5x", "top left", Margins(0, 0, 32, 25)),
        ("1.5x", "bottom right", Margins(32, 25, 0, 0)),
        ("2:1", "center", Margins(18, 0, 18, 0)),
        ("1:1", "top", Margins(0, 0, 0, 14)),
        ("1:1", "bottom", Margins(0, 14, 0, 0)),
        ("101x61", "center", Margins(18, 5, 19, 6)),
        ("101x61", "left", Margins(0, 5, 37, 6)),
        ("101x61", "right", Margins(37, 5, 0, 6)),
        ("64x50", "center", Margins(0, 0, 0, 0)),
    ],
)
def test_margins_follow_the_words_and_the_anchor(text: str, anchor: str, expected: Margins) -> None:
    assert margins(parse_extend(text), anchor, 50, 64) == expected


@pytest.mark.parametrize("text", ["16x", "16384", "left 16384, top 16384"])
def test_a_canvas_that_no_memory_holds_is_refused_with_its_size(text: str) -> None:
    with pytest.raises(InputError, match=r"new canvas is \d+x\d+, \d+ MP; at most 256 MP"):
        margins(parse_extend(text), "center", 1500, 2000)


def test_a_picture_that_is_as_large_already_goes_through() -> None:
    nothing = margins(parse_extend("4:3"), "center", 15000, 20000)
    assert nothing == Margins(0, 0, 0, 0)


@pytest.mark.parametrize("size", [(50, 64), (64, 50), (1, 777), (2160, 3840), (333, 333)])
@pytest.mark.parametrize("aspect", [16 / 9, 9 / 16, 1.0, 2.39, 0.8])
def test_an_aspect_keeps_one_side_and_is_met_to_the_pixel(
    size: tuple[int, int], aspect: float
) -> None:
    height, width = size
    added = margins(Extension(aspect=aspect), "center", height, width)
    new_height = height + added.top + added.bottom
    new_width = width + added.left + added.right
    assert new_height == height or new_width == width
    assert min(abs(new_width - new_height * aspect), abs(new_height - new_width / aspect)) <= 0.5
    assert 0 <= added.right - added.left <= 1 and 0 <= added.bottom - added.top <= 1


@pytest.mark.parametrize("text", ["63x200", "200x49"])
def test_a_canvas_smaller_than_the_picture_is_refused_with_both_sizes(text: str) -> None:
    with pytest.raises(InputError, match=f"{text}.*64x50.*at least"):
        margins(parse_extend(text), "center", 50, 64)


def test_an_unknown_anchor_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'middle'.*center"):
        margins(parse_extend("2x"), "middle", 50, 64)


def test_there_are_nine_anchors_and_each_places_the_picture() -> None:
    assert len(set(ANCHORS)) == 9
    placed = {margins(parse_extend("3x"), anchor, 10, 10) for anchor in ANCHORS}
    assert len(placed) == 9


@pytest.mark.parametrize("seed", range(200))
def test_steps_sum_exactly_and_none_is_longer_than_half_the_picture(seed: int) -> None:
    rng = random.Random(seed)
    height, width = rng.randrange(1, 2000), rng.randrange(1, 2000)
    whole = Margins(*(rng.choice([0, rng.randrange(5), rng.randrange(4000)]) for _ in range(4)))
    steps = extension_steps(whole, height, width)
    for side in ("left", "top", "right", "bottom"):
        assert sum(getattr(step, side) for step in steps) == getattr(whole, side)
    for step in steps:
        assert min(step.left, step.top, step.right, step.bottom) >= 0
        assert max(step.left, step.right) <= max(1, width // 2)
        assert max(step.top, step.bottom) <= max(1, height // 2)
        height += step.top + step.bottom
        width += step.left + step.right


def test_a_short_extension_is_one_step_and_none_is_no_step() -> None:
    whole = Margins(256, 100, 256, 0)
    assert extension_steps(whole, 512, 512) == [whole]
    assert extension_steps(Margins(0, 0, 0, 0), 512, 512) == []


def test_a_long_extension_advances_on_all_sides_in_every_step() -> None:
    steps = extension_steps(Margins(700, 90, 700, 300), 512, 512)
    assert len(steps) == 2
    assert all(min(step.left, step.top, step.right, step.bottom) > 0 for step in steps)
    assert steps[0].left == steps[0].right


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_source_keeps_its_bits_on_the_new_canvas(dtype: torch.dtype) -> None:
    image = (torch.rand(2, 11, 13, 4) * 5 - 2).to(dtype)
    image[0, 3, 3, 0] = float("nan")
    before = image.clone()
    sides = Margins(3, 5, 7, 0)
    pictures, new = extend_picture(image, sides), new_area(sides, 11, 13)
    assert pictures.shape == (2, 16, 23, 4) and pictures.dtype == dtype
    assert new.shape == (16, 23) and new.dtype == torch.bool
    kind = torch.int16 if dtype == torch.float16 else torch.int32
    source = pictures[:, 5:, 3:16].contiguous()
    assert torch.equal(source.view(kind), before.view(kind))
    assert new.sum() == 16 * 23 - 11 * 13 and not new[5:, 3:16].any()
    assert (pictures[:, new][..., :3] == 0.5).all() and (pictures[:, new][..., 3] == 1).all()
    pictures.zero_()
    assert torch.equal(image.view(kind), before.view(kind))


def test_rgb_stays_rgb() -> None:
    pictures = extend_picture(torch.rand(1, 4, 4, 3), Margins(1, 1, 1, 1))
    assert pictures.shape == (1, 6, 6, 3)
