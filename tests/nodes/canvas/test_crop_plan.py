from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from onereward_pack.nodes.canvas import crop_box, crop_regions, masks
from onereward_pack.nodes.canvas.crop_plan import CropPlan, plan_crops
from onereward_pack.nodes.canvas.geometry import Box, Crop
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.canvas.sizes import parse_target
from onereward_pack.nodes.contracts import Capabilities
from onereward_pack.nodes.errors import InputError
from torch import Tensor

LARGE = Capabilities(max_pixels=1024 * 1024, min_side=512, max_aspect=4.0)
SMALL = Capabilities(max_pixels=64 * 64, min_side=32, max_aspect=5 / 3)
HARD = CanvasOptions(grow=0, blend=0, clean=False)


def painted_mask(height: int, width: int, *boxes: tuple[int, int, int, int]) -> Tensor:
    mask = torch.zeros(height, width)
    for box in boxes:
        mask[Box(*box).slices] = 1
    return mask


def only_crop(plan: CropPlan) -> Crop:
    assert len(plan.crops) == 1
    return plan.crops[0]


def frame(inner: Box, picture: tuple[int, int], target: str = "auto", **caps: float) -> Crop:
    numbers = {"max_pixels": 1024**2, "min_side": 16, "max_aspect": 100.0} | caps
    limits = Capabilities(**numbers)
    return crop_box.frame_crop(inner, picture, 1.0, parse_target(target), limits)


def check_sound(crop: Crop, picture: tuple[int, int]) -> None:
    """What holds for every crop, whatever the options."""
    box = crop.box
    assert 0 <= box.top < box.bottom <= picture[0] and 0 <= box.left < box.right <= picture[1]
    assert crop.painted.shape == crop.blend.shape == (box.height, box.width)
    assert crop.painted.dtype == torch.bool and crop.blend.dtype == torch.float32
    assert all(side % 16 == 0 for side in crop.size)
    assert all(0 < scaled <= side for scaled, side in zip(crop.scaled, crop.size, strict=True))
    assert 0 <= crop.blend.min() and crop.blend.max() == 1
    # One scale for both axes, within a pixel on each.
    lows, highs = zip(
        *(((s - 1) / side, (s + 1) / side) for s, side in zip(crop.scaled, (box.height, box.width),
                                                              strict=True)), strict=True
    )  # fmt: skip
    assert max(lows) <= min(highs)


def random_case(seed: int) -> tuple[Tensor, CanvasOptions, Capabilities]:
    pick = random.Random(seed)
    height, width = pick.choice([1, 5, 15, 16, 40, 200, 333]), pick.choice([1, 7, 16, 130, 400])
    mask = torch.zeros(height, width)
    for _ in range(pick.choice([1, 1, 2, 3, 8])):
        top, left = pick.randrange(height), pick.randrange(width)
        mask[top : top + pick.randint(1, 60), left : left + pick.randint(1, 60)] = pick.random()
    options = CanvasOptions(
        grow=pick.choice([-3, 0, 0, 1, 8, 40]),
        blend=pick.choice([0, 1, 3, 16, 50]),
        context=pick.choice([1.0, 1.5, 4.0]),
        target=pick.choice(["auto", "auto", "auto", "native", "0.01 MP", "100", "48x112"]),
        regions=pick.choice(["per region", "per region", "one crop"]),
        clean=pick.random() < 0.5,
        invert=pick.random() < 0.1,
    )
    return mask, options, pick.choice([LARGE, SMALL])


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_every_plan_is_sound(first: int) -> None:
    for seed in range(first, first + 50):
        mask, options, limits = random_case(seed)
        painted = masks.painted_area(mask, options)
        if options.grow < 0 and painted.any():
            continue  # some of it may vanish; has its own tests
        plan = plan_crops(mask, options, limits)
        assert plan.size == tuple(mask.shape)
        covered, union = torch.zeros_like(mask), torch.zeros_like(painted)
        painted_and_filled = torch.zeros_like(painted)
        blend = torch.zeros_like(mask)
        for crop in plan.crops:
            check_sound(crop, plan.size)
            check_target(crop, options.target, limits)
            covered[crop.box.slices] += 1
            filled = crop.painted.new_zeros(()) if crop.filled is None else crop.filled
            assert bool(crop.pinholes) == bool(filled.any())
            union[crop.box.slices] |= crop.painted & ~filled
            painted_and_filled[crop.box.slices] |= crop.painted
            blend[crop.box.slices] = crop.blend
        assert covered.max() <= 1
        assert torch.equal(union, painted)
        assert bool(plan.crops) == bool(painted.any())
        # The crops together hold the whole picture's blend: none is cut off, none counted twice.
        whole = masks.blend_mask(painted_and_filled, options.grow, options.blend)
        assert torch.equal(blend, whole)
        assert (blend[painted] == 1).all()


def check_target(crop: Crop, target: str, limits: Capabilities) -> None:
    rows, columns = crop.size
    sides = (crop.box.height, crop.box.width)
    if target == "auto":
        assert rows * columns <= limits.max_pixels
    if target == "0.01 MP":
        assert rows * columns <= 10485
    if target in ("auto", "0.01 MP", "native"):
        assert all(scaled <= side for scaled, side in zip(crop.scaled, sides, strict=True))
    if target == "native":
        assert crop.scaled == sides
    if target == "100":
        assert max(crop.scaled) == 100 and max(crop.size) == 112
    if target == "48x112":
        assert crop.size == (112, 48)
        assert crop.scaled[0] in (111, 112) or crop.scaled[1] in (47, 48)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (1, 5000), (300, 200)])
def test_an_empty_mask_needs_no_crop_and_says_so(size: tuple[int, int]) -> None:
    plan = plan_crops(torch.zeros(size), CanvasOptions(), LARGE)
    assert plan.size == size and plan.crops == ()
    assert plan.notes == ("Mask is empty: the picture is returned untouched.",)


def test_specks_below_the_noise_floor_are_an_empty_mask() -> None:
    assert not plan_crops(torch.full((50, 50), 0.05), CanvasOptions(), LARGE).crops


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (1, 3000), (3000, 1), (700, 900), (1500, 2000)])
def test_a_full_mask_takes_the_whole_picture(size: tuple[int, int]) -> None:
    crop = only_crop(plan_crops(torch.ones(size), CanvasOptions(), LARGE))
    check_sound(crop, size)
    assert crop.box == Box(0, 0, *size)
    assert crop.painted.all() and (crop.blend == 1).all()
    assert crop.size[0] * crop.size[1] <= LARGE.max_pixels


@pytest.mark.parametrize("place", [(0, 0), (0, 999), (999, 0), (999, 999), (500, 3)])
def test_a_single_pixel_gets_a_full_crop_moved_inward_at_the_edges(place: tuple[int, int]) -> None:
    mask = torch.zeros(1000, 1000)
    mask[place] = 1
    crop = only_crop(plan_crops(mask, CanvasOptions(), LARGE))
    check_sound(crop, (1000, 1000))
    assert crop.scaled == crop.size == (512, 512) == (crop.box.height, crop.box.width)
    row, column = place[0] - crop.box.top, place[1] - crop.box.left
    assert crop.painted.nonzero().tolist() == [[row, column]]


def test_a_mask_that_touches_all_edges_is_not_shrunk_away_from_them() -> None:
    mask = torch.ones(200, 300)
    mask[80:120, 100:200] = 0
    options = CanvasOptions(grow=-10, blend=0, clean=False)
    crop = only_crop(plan_crops(mask, options, LARGE))
    edge = torch.cat([crop.blend[0], crop.blend[-1], crop.blend[:, 0], crop.blend[:, -1]])
    assert crop.box == Box(0, 0, 200, 300) and (edge == 1).all()
    assert crop.blend[69, 150] == 1 and crop.blend[70, 150] == 0


def test_a_picture_smaller_than_the_crop_is_taken_whole_and_padded() -> None:
    crop = only_crop(plan_crops(painted_mask(10, 30, (2, 3, 5, 6)), CanvasOptions(), LARGE))
    assert crop.box == Box(0, 0, 10, 30)
    assert crop.scaled == (10, 30) and crop.size == (16, 32)


def test_a_shrink_that_leaves_nothing_is_refused_with_size_and_remedy() -> None:
    mask = painted_mask(300, 300, (100, 100, 112, 150))
    with pytest.raises(InputError, match=r"Grow -6 px .* 50x12 px\. Use a grow nearer to 0"):
        plan_crops(mask, CanvasOptions(grow=-6), LARGE)
    assert plan_crops(mask, CanvasOptions(grow=-5), LARGE).crops


def test_a_shrink_that_leaves_one_of_three_areas_says_what_vanished() -> None:
    areas = (50, 50, 54, 54), (50, 950, 54, 954), (800, 400, 900, 500)
    plan = plan_crops(painted_mask(1000, 1000, *areas), CanvasOptions(grow=-6), SMALL)
    assert only_crop(plan).painted.sum() == 100 * 100
    assert (only_crop(plan).blend == 1).sum() == 88 * 88
    assert plan.notes == ("2 painted areas vanish when shrunk by 6 px and will not be repainted.",)


def test_a_shrink_with_a_hard_edge_eats_from_every_side_inside_the_picture() -> None:
    mask = painted_mask(400, 400, (100, 100, 200, 220))
    crop = only_crop(plan_crops(mask, CanvasOptions(grow=-10, blend=0), LARGE))
    assert (crop.blend == 1).sum() == 80 * 100 and crop.painted.sum() == 100 * 120


def test_the_mask_is_left_alone() -> None:
    mask = torch.rand(60, 80, generator=torch.Generator().manual_seed(0))
    before = mask.clone()
    plan_crops(mask, CanvasOptions(invert=True), LARGE)
    assert torch.equal(mask, before)


def test_context_is_a_factor_and_at_least_64_px_on_each_side() -> None:
    large = painted_mask(2000, 2000, (800, 700, 1200, 1300))
    crop = only_crop(plan_crops(large, CanvasOptions(grow=0, blend=0, target="native"), SMALL))
    assert (crop.box.height, crop.box.width) == (608, 912)  # 1.5 times, up to multiples of 16
    small = painted_mask(2000, 2000, (900, 900, 916, 916))
    crop = only_crop(plan_crops(small, CanvasOptions(grow=0, blend=0, target="native"), SMALL))
    assert crop.box == Box(836, 836, 980, 980)


def test_grow_and_blend_widen_the_crop() -> None:
    mask = painted_mask(2000, 2000, (900, 900, 1000, 1000))
    options = CanvasOptions(grow=20, blend=11, context=1.0, target="native")
    crop = only_crop(plan_crops(mask, options, SMALL))
    assert masks.bounding_box(crop.model_mask) == Box(64, 64, 224, 224)
    assert crop.box == Box(806, 806, 1094, 1094)  # 160 px and 2 x 64, which is 288


def test_the_short_side_grows_until_the_backends_aspect_is_kept() -> None:
    crop = frame(Box(500, 100, 510, 900), (1000, 1000), "native", max_aspect=2.0)
    assert (crop.box.height, crop.box.width) == (464, 928)
    strip = frame(Box(0, 100, 10, 900), (20, 1000), "native", max_aspect=2.0)
    assert (strip.box.height, strip.box.width) == (20, 928)  # the picture does not allow more


def test_a_crop_over_the_budget_is_scaled_down_to_it_and_no_further() -> None:
    crop = frame(Box(0, 0, 2000, 3000), (2000, 3000))
    assert crop.scaled == crop.size == (832, 1248)
    assert frame(Box(0, 0, 1024, 1024), (1024, 1024)).scaled == (1024, 1024)


def test_a_target_in_megapixels_may_exceed_the_backends_budget() -> None:
    crop = frame(Box(0, 0, 2000, 2000), (2000, 2000), "2.25 MP")
    assert crop.scaled == crop.size == (1536, 1536)


@pytest.mark.parametrize(("side", "size"), [("1024", 1024), ("100", 112), ("40", 48)])
def test_the_longest_side_becomes_exactly_the_target_up_or_down(side: str, size: int) -> None:
    for inner in (Box(0, 0, 10, 90), Box(300, 400, 900, 500), Box(0, 0, 999, 999)):
        crop = frame(inner, (1000, 1000), side)
        assert max(crop.scaled) == int(side) and max(crop.size) == size


def test_an_exact_target_is_filled_by_growing_the_box() -> None:
    crop = frame(Box(400, 400, 528, 528), (1000, 1000), "1024x512")
    assert crop.scaled == crop.size == (512, 1024)
    assert crop.box == Box(336, 208, 592, 720)  # 256 px with the context, twice as wide


def test_an_exact_target_that_the_picture_cannot_fill_is_padded() -> None:
    crop = frame(Box(0, 0, 100, 100), (100, 100), "1000x500")
    assert crop.scaled == (500, 500) and crop.size == (512, 1008)


@pytest.mark.parametrize("target", ["16384x10000", "7000x9000", "9999"])
def test_a_large_scale_up_does_not_stretch(target: str) -> None:
    for side in range(1, 40, 3):
        crop = frame(Box(500, 500, 500 + side, 541), (1000, 1000), target)
        scales = [
            s / n for s, n in zip(crop.scaled, (crop.box.height, crop.box.width), strict=True)
        ]
        assert abs(scales[0] - scales[1]) * max(crop.box.height, crop.box.width) <= 1.5


def test_far_regions_get_a_crop_each_and_near_ones_share() -> None:
    far = painted_mask(600, 2000, (100, 100, 120, 120), (400, 1800, 420, 1820))
    first, second = plan_crops(far, CanvasOptions(), LARGE).crops
    assert first.box.right < second.box.left
    assert first.painted.sum() == second.painted.sum() == 400
    near = painted_mask(600, 2000, (100, 100, 120, 120), (400, 400, 420, 420))
    assert only_crop(plan_crops(near, CanvasOptions(), LARGE)).painted.sum() == 800


def test_one_crop_holds_all_regions() -> None:
    mask = painted_mask(600, 2000, (100, 100, 120, 120), (400, 1800, 420, 1820))
    crop = only_crop(plan_crops(mask, CanvasOptions(regions="one crop"), LARGE))
    assert crop.painted.sum() == 800


def test_crops_that_meet_only_after_a_merge_are_merged_too() -> None:
    left, right, below = (0, 0, 8, 8), (0, 130, 8, 138), (216, 60, 224, 68)
    for one in (left, right):
        assert len(plan_crops(painted_mask(900, 900, one, below), HARD, SMALL).crops) == 2
    # The crop round left and right is wide, and so, for the backend's aspect, it is also taller.
    plan = plan_crops(painted_mask(900, 900, left, right, below), HARD, SMALL)
    assert only_crop(plan).painted.sum() == 3 * 64


def test_pixels_that_touch_at_corners_are_one_area() -> None:
    assert crop_regions.near_areas(torch.eye(300, dtype=torch.bool)) == [Box(0, 0, 300, 300)]


def test_a_region_inside_anothers_arms_does_not_leak_into_its_box() -> None:
    ring = torch.zeros(1500, 1500, dtype=torch.bool)
    ring[:8] = ring[:, :8] = True  # an L round a far speck
    ring[1200:1208, 1200:1208] = True
    arms, speck = sorted(crop_regions.near_areas(ring), key=lambda box: box.top)
    assert arms == Box(0, 0, 1500, 1500) and speck == Box(1200, 1200, 1208, 1208)


def test_near_areas_are_the_closure_of_planning_speck_by_speck() -> None:
    def crop(area: Box) -> crop_box.Frame:
        return frame(area, (700, 800), "native")

    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        painted = torch.rand(700, 800, generator=generator) < 2e-5 * (1 + seed)
        specks = [Box(y, x, y + 1, x + 1) for y, x in painted.nonzero().tolist()]
        if not specks:
            continue
        assert boxes(crop_regions.near_areas(painted), crop) == boxes(specks, crop)


def boxes(areas: list[Box], crop: Callable[[Box], crop_box.Frame]) -> set[Box]:
    return {found.box for _, found in crop_regions.share_crops(areas, crop)}


def test_thousands_of_specks_stay_cheap() -> None:
    planned = 0

    def crop(area: Box) -> crop_box.Frame:
        nonlocal planned
        planned += 1
        return frame(area, (4096, 4096))

    painted = torch.rand(4096, 4096, generator=torch.Generator().manual_seed(0)) < 1e-3
    assert painted.sum() > 16000
    assert len(crop_regions.share_crops(crop_regions.near_areas(painted), crop)) == 1
    assert planned < 20


@pytest.mark.parametrize(("rows", "said"), [(17, False), (18, True), (19, True), (20, False)])
def test_a_mask_of_nearly_all_is_asked_about(rows: int, said: bool) -> None:
    mask = painted_mask(20, 30, (0, 0, rows, 30))
    notes = " ".join(plan_crops(mask, CanvasOptions(), LARGE).notes)
    assert ("wrong way round" in notes) == said
    inverted = plan_crops(1 - mask, CanvasOptions(invert=True), LARGE).notes
    assert "wrong way round" not in " ".join(inverted)
