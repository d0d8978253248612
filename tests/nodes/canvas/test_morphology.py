from __future__ import annotations

import numpy as np
import pytest
import torch
from onereward_pack.nodes.canvas.morphology import group, range_pairs, small_holes
from scipy import ndimage
from torch import Tensor


def all_holes(mask: Tensor) -> tuple[Tensor, int]:
    """The holes of any size, anywhere."""
    return small_holes(mask, mask.numel(), torch.ones_like(mask))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.6, 0.8, 0.95])
def test_holes_equal_scipys_on_random_masks(share: float) -> None:
    random = np.random.default_rng(int(share * 100))
    for _ in range(60):
        mask = random.random(random.integers(1, 40, 2)) < share
        found, count = all_holes(torch.from_numpy(mask))
        expected = ndimage.binary_fill_holes(mask) & ~mask
        np.testing.assert_array_equal(found.numpy(), expected)
        assert count == ndimage.label(expected)[1]


@pytest.mark.parametrize("share", [0.6, 0.8, 0.9])
@pytest.mark.parametrize("most", [1, 3, 20])
def test_holes_that_are_too_large_or_reach_beyond_are_left_out_whole(
    share: float, most: int
) -> None:
    random = np.random.default_rng(most)
    for _ in range(40):
        mask = random.random(random.integers(1, 40, 2)) < share
        within = random.random(mask.shape) < 0.8
        found, count = small_holes(torch.from_numpy(mask), most, torch.from_numpy(within))
        expected = np.zeros_like(mask)
        labels, holes = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        kept = 0
        for label in range(1, holes + 1):
            hole = labels == label
            if hole.sum() <= most and within[hole].all():
                expected |= hole
                kept += 1
        np.testing.assert_array_equal(found.numpy(), expected)
        assert count == kept


def test_holes_equal_scipys_on_a_large_ring_with_a_gap_and_islands() -> None:
    rows, columns = np.ogrid[:300, :400]
    radius = np.hypot(rows - 150, columns - 200)
    for gap in (slice(0, 0), slice(199, 202)):
        mask = ((radius > 80) & (radius < 140)) | (radius < 20)
        mask[:120, gap] = False
        expected = ndimage.binary_fill_holes(mask) & ~mask
        np.testing.assert_array_equal(all_holes(torch.from_numpy(mask))[0].numpy(), expected)


def test_a_hole_behind_a_diagonal_chain_is_closed_since_background_connects_by_sides() -> None:
    diamond = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    assert all_holes(diamond)[0].nonzero().tolist() == [[1, 1]]


def test_the_end_of_one_row_is_no_neighbour_of_the_next_rows_start() -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1, 1] = mask[2, 2] = False
    found, count = all_holes(mask)
    assert torch.equal(found, ~mask) and count == 2


def test_holes_are_found_in_slices_and_the_mask_is_left_alone() -> None:
    whole = torch.zeros(9, 9, dtype=torch.bool)
    whole[2:7, 2:7] = True
    whole[4, 4] = False
    before = whole.clone()
    assert all_holes(whole[1:8, 1:8].T)[0].nonzero().tolist() == [[3, 3]]
    assert torch.equal(whole, before)


@pytest.mark.parametrize("shape", [(5, 5), (0, 4), (1, 1)])
def test_a_mask_without_holes_has_none(shape: tuple[int, int]) -> None:
    found, count = all_holes(torch.zeros(shape, dtype=torch.bool))
    assert found.shape == shape and not found.any() and count == 0


def test_range_pairs_lists_every_pair_and_skips_empty_ranges() -> None:
    owner, member = range_pairs(np.array([0, 5, 2, 7]), np.array([2, 5, 5, 6]))
    assert list(zip(owner.tolist(), member.tolist(), strict=True)) == [
        (0, 0), (0, 1), (2, 2), (2, 3), (2, 4),
    ]  # fmt: skip


def test_group_joins_through_others_in_any_order() -> None:
    labels = group(5, np.array([3, 1]), np.array([0, 3]))
    assert labels[0] == labels[1] == labels[3]
    assert len(set(labels.tolist())) == 3
