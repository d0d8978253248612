from __future__ import annotations

import pytest
import torch
from onereward_pack.nodes.canvas.copies import copy_pictures, empty_mask


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pictures_are_copied_in_order_into_memory_of_their_own(dtype: torch.dtype) -> None:
    pictures = torch.rand(2, 5, 4, 3).to(dtype)
    copies = copy_pictures(pictures, [1, 0, 1])
    assert torch.equal(copies, pictures[[1, 0, 1]])
    assert copies.dtype == dtype
    copies.zero_()
    assert pictures.all()


def test_a_picture_that_is_a_view_is_copied_as_seen() -> None:
    pictures = torch.rand(1, 8, 8, 4)[:, ::2, :, :3]
    assert torch.equal(copy_pictures(pictures, [0]), pictures)


def test_an_empty_mask_is_zero() -> None:
    mask = empty_mask(2, 3, 4)
    assert mask.shape == (2, 3, 4)
    assert not mask.any()
