from __future__ import annotations

import numpy as np
import pytest
import torch
from onereward_pack.nodes.canvas import masks
from onereward_pack.nodes.canvas.geometry import Box
from onereward_pack.nodes.canvas.morphology import TILE
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.errors import InputError
from torch import Tensor

PLAIN = CanvasOptions(clean=False)


def nearest(target: Tensor) -> Tensor:
    """By brute force: the squared distance from every pixel to the nearest True one."""
    height, width = target.shape
    grid = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    points = grid[target.flatten()]
    squared = (grid[:, None] - points[None]).square().sum(-1)
    return squared.amin(1).reshape(height, width)


def random_mask(seed: int, height: int, width: int, share: float) -> Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share


def test_a_mask_of_the_pictures_size_is_returned_uncopied() -> None:
    mask = torch.rand(2, 30, 40)
    fitted, note = masks.fit_mask(mask, 30, 40)
    assert fitted is mask and note is None


def test_a_flat_mask_becomes_a_batch_of_one() -> None:
    fitted, _ = masks.fit_mask(torch.ones(30, 40), 30, 40)
    assert fitted.shape == (1, 30, 40)


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (3, 7, 900)])
def test_an_empty_mask_of_any_size_is_empty_at_the_pictures_size(shape: tuple[int, ...]) -> None:
    fitted, note = masks.fit_mask(torch.zeros(shape), 100, 50)
    count = shape[0] if len(shape) == 3 else 1
    assert fitted.shape == (count, 100, 50) and not fitted.any() and note is None


def test_a_mask_of_the_same_aspect_is_resized_and_said() -> None:
    mask = torch.zeros(1, 50, 100)
    mask[:, :, 50:] = 1
    fitted, note = masks.fit_mask(mask, 101, 200)  # 1 % off
    assert fitted.shape == (1, 101, 200)
    assert fitted[0, :, 102:].min() == 1 and fitted[0, :, :98].max() == 0
    assert note is not None and "100x50" in note and "200x101" in note


def test_a_mask_of_another_aspect_is_refused_with_both_sizes_width_first() -> None:
    with pytest.raises(InputError, match=r"Mask is 64x48, .* picture is 512x100 .*Use a mask"):
        masks.fit_mask(torch.ones(1, 48, 64), 100, 512)


@pytest.mark.parametrize("shape", [(5,), (1, 1, 30, 40), (0, 30, 40), (1, 0, 40)])
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="Mask has shape"):
        masks.fit_mask(torch.zeros(shape), 30, 40)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_mask_with_values_that_are_not_finite_is_refused(value: float) -> None:
    mask = torch.zeros(1, 30, 40)
    mask[0, 3, 4] = value
    with pytest.raises(InputError, match="not finite"):
        masks.fit_mask(mask, 30, 40)


def test_nan_does_not_hide_a_row_of_the_painted_area() -> None:
    mask = torch.ones(4, 4)
    mask[2, 1] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        masks.painted_box(mask, PLAIN)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_masks_of_every_type_are_read(dtype: torch.dtype) -> None:
    mask = torch.zeros(1, 20, 20).to(dtype)
    mask[0, 5:9, 6:8] = 1
    fitted, _ = masks.fit_mask(mask, 20, 20)
    assert masks.painted_box(fitted[0], PLAIN) == Box(5, 6, 9, 8)


def test_clean_counts_grey_in_full_and_drops_what_is_nearly_black() -> None:
    mask = torch.tensor([[0.0, 0.05, 0.099, 0.1, 0.3, 0.5, 0.98, 1.0]])
    painted = masks.painted_area(mask, CanvasOptions())
    assert painted.tolist() == [[False, False, False, True, True, True, True, True]]


def test_without_clean_half_counts() -> None:
    mask = torch.tensor([[0.0, 0.1, 0.499, 0.5, 1.0]])
    assert masks.painted_area(mask, PLAIN).tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize("clean", [True, False])
def test_invert_comes_before_the_threshold(clean: bool) -> None:
    mask = torch.rand(20, 30, generator=torch.Generator().manual_seed(3))
    inverted = masks.painted_area(mask, CanvasOptions(clean=clean, invert=True))
    assert torch.equal(inverted, masks.painted_area(1 - mask, CanvasOptions(clean=clean)))


def holed(*holes: tuple[int, int, int, int]) -> Tensor:
    """bool [80, 100], painted but for an edge and boxes of (top, left, bottom, right)."""
    area = torch.zeros(80, 100, dtype=torch.bool)
    area[5:75, 5:95] = True
    for top, left, bottom, right in holes:
        area[top:bottom, left:right] = False
    return area


SPECK, LINE = (20, 20, 28, 28), (40, 10, 41, 74)  # both of 64 px, the most


@pytest.mark.parametrize("hole", [SPECK, LINE])
def test_pinholes_that_the_blend_touches_are_filled(hole: tuple[int, int, int, int]) -> None:
    area, options = holed(hole), CanvasOptions(grow=0, blend=16)
    filled, count = masks.pinholes(area, masks.blend_mask(area, 0, 16), options)
    assert torch.equal(area | filled, holed()) and count == 1


@pytest.mark.parametrize(
    ("hole", "options"),
    [
        ((20, 20, 28, 29), CanvasOptions()),  # 72 px: somebody means it
        (SPECK, CanvasOptions(grow=1, blend=3)),  # its middle lies beyond grow + blend
        (SPECK, CanvasOptions(grow=0, blend=0)),
        (SPECK, CanvasOptions(clean=False)),
        (SPECK, CanvasOptions(invert=True)),
        ((40, 40, 41, 41), CanvasOptions(grow=-1)),
        ((5, 20, 8, 28), CanvasOptions()),  # open to the outside
    ],
)
def test_every_other_hole_stays(hole: tuple[int, int, int, int], options: CanvasOptions) -> None:
    area = holed(hole)
    blend = masks.blend_mask(area, options.grow, options.blend)
    filled, count = masks.pinholes(area, blend, options)
    assert not filled.any() and count == 0


@pytest.mark.parametrize("seed", range(40))
def test_filling_a_pinhole_changes_no_weight_beside_it(seed: int) -> None:
    area = random_mask(seed, 40, 50, 0.8)
    grow, blend = [(0, 2), (0, 16), (1, 2), (8, 0), (3, 5)][seed % 5]
    weights = masks.blend_mask(area, grow, blend)
    filled, _ = masks.pinholes(area, weights, CanvasOptions(grow=grow, blend=blend))
    assert filled.any()
    again = masks.blend_mask(area | filled, grow, blend)
    assert torch.equal(again, weights.masked_fill(filled, 1.0))


@pytest.mark.parametrize("value", [1 / 255, 0.0039, 0.0])
@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 20, 33), (2, 30, 40)])
def test_a_mask_of_one_255th_is_empty_whatever_its_size(
    value: float, shape: tuple[int, ...]
) -> None:
    fitted, note = masks.fit_mask(torch.full(shape, value), 30, 40)
    assert note is None and fitted.shape == (shape[0], 30, 40)
    assert not masks.painted_area(fitted[0], CanvasOptions()).any()
    assert masks.painted_area(fitted[0], CanvasOptions(invert=True)).all()


def test_an_unpainted_corner_of_a_painted_picture_is_no_hole() -> None:
    mask = torch.ones(10, 10)
    mask[0, 0] = 0
    assert masks.painted_area(mask, CanvasOptions()).sum() == 99


def test_boxes_are_tight_and_absent_where_nothing_is_painted() -> None:
    for seed in range(50):
        mask = random_mask(seed, 9, 13, 0.03)
        box = masks.bounding_box(mask)
        assert box == masks.painted_box(mask.float(), PLAIN)
        if box is None:
            assert not mask.any()
            continue
        inside = mask[box.slices]
        assert inside.sum() == mask.sum()
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


@pytest.mark.parametrize("grow", [0, 1, 2, 5, 13])
@pytest.mark.parametrize("blend", [0, 1, 2, 7, 16])
def test_grow_and_blend_are_exact_distances(grow: int, blend: int) -> None:
    for seed in range(4):
        painted = random_mask(seed, 41, 37, 0.004 * (seed + 1))
        painted[20, 3 * seed] = True
        squared = nearest(painted)
        weights = masks.blend_mask(painted, grow, blend)
        assert torch.equal(weights == 1, squared <= grow**2)
        assert torch.equal(weights > 0, (squared <= grow**2) | (squared < (grow + blend) ** 2))
        ramp = ((grow + blend - squared.double().sqrt()) / max(blend, 1)).clamp(0, 1)
        fading = (squared > grow**2).double() * ramp
        expected = (squared <= grow**2) + fading**2 * (3 - 2 * fading)
        torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("px", [1, 2, 3, 6])
def test_shrink_is_an_exact_distance_to_what_is_not_painted(px: int) -> None:
    for seed in range(4):
        painted = ~random_mask(seed, 41, 37, 0.004 * (seed + 1))
        painted[20, 3 * seed] = False
        opaque = nearest(~painted) > px**2
        assert torch.equal(masks.blend_mask(painted, -px, 0) == 1, opaque)
        weights = masks.blend_mask(painted, -px, 9)
        assert torch.equal(weights == 1, opaque)
        assert torch.equal(weights > 0, opaque | (nearest(opaque) < 9**2))


def test_distances_are_exact_across_tiles() -> None:
    painted = torch.zeros(300, 420, dtype=torch.bool)
    painted[100:180, 90:300] = True  # more than a tile, and off its grid
    rows = (torch.arange(300) - torch.arange(300).clamp(100, 179)).abs()
    columns = (torch.arange(420) - torch.arange(420).clamp(90, 299)).abs()
    squared = rows[:, None] ** 2 + columns[None] ** 2
    for grow, blend in ((8, 16), (90, 1), (0, 100)):
        weights = masks.blend_mask(painted, grow, blend)
        assert torch.equal(weights == 1, squared <= grow**2)
        assert torch.equal(weights > 0, (squared <= grow**2) | (squared < (grow + blend) ** 2))


def test_a_shrink_does_not_eat_from_the_pictures_edge() -> None:
    painted = torch.zeros(30, 30, dtype=torch.bool)
    painted[:, :20] = True
    weights = masks.blend_mask(painted, -5, 0)
    assert torch.equal(weights == 1, (torch.arange(30) < 15).expand(30, 30))


def test_a_shrunk_full_mask_stays_full() -> None:
    assert (masks.blend_mask(torch.ones(8, 8, dtype=torch.bool), -100, 4) == 1).all()


def test_a_shrink_beyond_the_mask_leaves_zeros() -> None:
    painted = torch.zeros(30, 30, dtype=torch.bool)
    painted[10:20, 10:20] = True
    assert not masks.blend_mask(painted, -6, 16).any()


def test_the_fade_falls_steadily_from_one_to_zero() -> None:
    painted = torch.zeros(1, 60, dtype=torch.bool)
    painted[0, :10] = True
    weights = masks.blend_mask(painted, 8, 16)[0]
    outside = weights[17:34]
    assert outside[0] == 1 and outside[-1] == 0 and (outside.diff() < 0).all()
    assert np.isclose(outside[8], 0.5)


def test_no_weight_rises_above_one_whatever_the_width_of_the_fade() -> None:
    painted = torch.zeros(1, 600, dtype=torch.bool)
    painted[0, 0] = True
    for blend in range(1, 513, 7):
        weights = masks.blend_mask(painted, 3, blend)
        assert weights.max() == 1 and weights.min() == 0


@pytest.mark.parametrize(
    ("images", "count", "pairs"),
    [
        (1, 1, [(0, 0)]),
        (1, 3, [(0, 0), (0, 1), (0, 2)]),
        (3, 1, [(0, 0), (1, 0), (2, 0)]),
        (3, 3, [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_one_meets_all_and_equal_batches_go_side_by_side(
    images: int, count: int, pairs: list[tuple[int, int]]
) -> None:
    assert masks.pair_batches(images, count) == pairs


@pytest.mark.parametrize(("images", "count"), [(4, 3), (2, 4), (0, 0), (0, 1), (1, 0)])
def test_other_counts_are_refused_and_both_are_named(images: int, count: int) -> None:
    with pytest.raises(InputError, match=f"{images} images do not pair with {count} masks"):
        masks.pair_batches(images, count)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_pixel_at_exactly_the_reach_is_taken_across_the_border_of_two_tiles(sign: int) -> None:
    px = 16
    line = torch.zeros(4, 2 * TILE, dtype=torch.bool)
    line[:, TILE - px] = True
    blend = masks.blend_mask(line if sign > 0 else ~line, sign * px, 0)
    inside = torch.zeros(4, 2 * TILE)
    inside[:, TILE - 2 * px : TILE + 1] = 1.0
    assert torch.equal(blend, inside if sign > 0 else 1 - inside)
