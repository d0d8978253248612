from __future__ import annotations

import pytest
import torch
from onereward_pack.nodes.canvas.image_ops import copy_pictures, empty_mask, pad_reflect, resize


def test_a_picture_of_the_right_size_is_returned_as_it_is() -> None:
    image = torch.rand(7, 9, 3)
    assert resize(image, (7, 9)) is image


def test_half_precision_becomes_float32_without_other_change() -> None:
    image = torch.rand(7, 9, 3).half()
    assert torch.equal(resize(image, (7, 9)), image.float())


@pytest.mark.parametrize("size", [(20, 31), (61, 83), (20, 83)])
def test_a_ramp_keeps_its_values_at_every_scale(size: tuple[int, int]) -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    image = torch.stack(((y + 0.5) / 40, (x + 0.5) / 50, torch.full_like(x, 0.3)), dim=-1)
    resized = resize(image, size)
    rows, columns = (torch.arange(float(n)) + 0.5 for n in size)
    inner = slice(4, -4)
    ramp = (rows / size[0])[inner, None].expand(-1, size[1] - 8)
    assert torch.allclose(resized[inner, inner, 0], ramp, atol=2e-3)
    ramp = (columns / size[1])[None, inner].expand(size[0] - 8, -1)
    assert torch.allclose(resized[inner, inner, 1], ramp, atol=2e-3)
    assert torch.allclose(resized[..., 2], torch.tensor(0.3), atol=1e-5)


def test_shrinking_averages_detail_away_instead_of_aliasing() -> None:
    image = (torch.arange(64) % 2).float()[None, :, None].expand(64, 64, 3)
    middle = resize(image, (16, 16))[4:-4, 4:-4]
    assert (middle - 0.5).abs().max() < 0.02


def test_more_levels_survive_than_eight_bits_hold() -> None:
    ramp = torch.linspace(0.4, 0.6, 1024)[None, :, None].expand(8, 1024, 3)
    assert len(resize(ramp, (8, 512)).unique()) > 400


@pytest.mark.parametrize("source", [(1, 1), (1, 5), (2, 3), (6, 7)])
def test_padding_reflects_as_often_as_it_takes(source: tuple[int, int]) -> None:
    image = torch.rand(*source, 3)
    padded = pad_reflect(image, (32, 48))
    assert padded.shape == (32, 48, 3)
    assert torch.equal(padded[: source[0], : source[1]], image)
    for row in range(32):
        for column in range(48):
            assert torch.equal(
                padded[row, column], image[_at(row, source[0]), _at(column, source[1])]
            )


def _at(index: int, length: int) -> int:
    """Walks to and fro over the picture."""
    place, step = 0, 1
    for _ in range(index if length > 1 else 0):
        if not 0 <= place + step < length:
            step = -step
        place += step
    return place


def test_padding_to_the_same_size_does_no_work() -> None:
    image = torch.rand(16, 16, 3)
    assert pad_reflect(image, (16, 16)) is image


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
