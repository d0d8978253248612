from __future__ import annotations

import numpy as np
import pytest
import torch
from onereward_pack.nodes.canvas.components import fill_holes, group, range_pairs
from scipy import ndimage


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.6, 0.8, 0.95])
def test_fill_holes_equals_scipy_on_random_masks(share: float) -> None:
    random = np.random.default_rng(int(share * 100))
    for _ in range(60):
        mask = random.random(random.integers(1, 40, 2)) < share
        filled = fill_holes(torch.from_numpy(mask)).numpy()
        np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))


def test_fill_holes_equals_scipy_on_a_large_ring_with_a_gap_and_islands() -> None:
    rows, columns = np.ogrid[:300, :400]
    radius = np.hypot(rows - 150, columns - 200)
    for gap in (slice(0, 0), slice(199, 202)):
        mask = ((radius > 80) & (radius < 140)) | (radius < 20)
        mask[:120, gap] = False
        expected = ndimage.binary_fill_holes(mask)
        np.testing.assert_array_equal(fill_holes(torch.from_numpy(mask)).numpy(), expected)


def test_a_hole_behind_a_diagonal_chain_is_closed_since_background_connects_by_sides() -> None:
    diamond = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    assert fill_holes(diamond)[1, 1]


def test_the_end_of_one_row_is_no_neighbour_of_the_next_rows_start() -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1, 1] = mask[2, 2] = False
    assert fill_holes(mask).all()


def test_fill_holes_leaves_its_input_alone_and_takes_slices() -> None:
    whole = torch.zeros(9, 9, dtype=torch.bool)
    whole[2:7, 2:7] = True
    whole[4, 4] = False
    before = whole.clone()
    assert fill_holes(whole[1:8, 1:8].T).sum() == 25
    assert torch.equal(whole, before)


def test_a_mask_without_holes_comes_back_uncopied() -> None:
    mask = torch.eye(5, dtype=torch.bool)
    assert fill_holes(mask) is mask


def test_range_pairs_lists_every_pair_and_skips_empty_ranges() -> None:
    owner, member = range_pairs(np.array([0, 5, 2, 7]), np.array([2, 5, 5, 6]))
    assert list(zip(owner.tolist(), member.tolist(), strict=True)) == [
        (0, 0), (0, 1), (2, 2), (2, 3), (2, 4),
    ]  # fmt: skip


def test_group_joins_through_others_in_any_order() -> None:
    labels = group(5, np.array([3, 1]), np.array([0, 3]))
    assert labels[0] == labels[1] == labels[3]
    assert len(set(labels.tolist())) == 3
