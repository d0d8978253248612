from __future__ import annotations

import pytest
from onereward_pack.nodes.canvas.batch import pair_batches
from onereward_pack.nodes.errors import InputError


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        (1, 1, [(0, 0)]),
        (1, 3, [(0, 0), (0, 1), (0, 2)]),
        (3, 1, [(0, 0), (1, 0), (2, 0)]),
        (3, 3, [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_one_meets_all_and_equal_batches_go_side_by_side(
    images: int, masks: int, pairs: list[tuple[int, int]]
) -> None:
    assert pair_batches(images, masks) == pairs


@pytest.mark.parametrize(("images", "masks"), [(4, 3), (2, 4), (0, 0), (0, 1), (1, 0)])
def test_other_counts_are_refused_and_both_are_named(images: int, masks: int) -> None:
    with pytest.raises(InputError, match=f"{images} images do not pair with {masks} masks"):
        pair_batches(images, masks)
