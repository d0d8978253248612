from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from onereward_pack.nodes.canvas.geometry import Box, Crop
from onereward_pack.nodes.canvas.stitch import cut, paste
from onereward_pack.nodes.errors import InputError, LocalBackendError
from scipy import ndimage
from torch import Tensor


def make_crop(
    box: Box, scaled: tuple[int, int], painted: Box, grow: int = 4, blend: int = 8
) -> Crop:
    """A crop of this box; `painted` is in the box's own pixels."""
    area = torch.zeros(box.height, box.width, dtype=torch.bool)
    area[painted.slices] = True
    distance = torch.from_numpy(ndimage.distance_transform_edt(~area.numpy())).float()
    t = (1 - (distance - grow) / max(blend, 1e-6)).clamp(0.0, 1.0)
    size = tuple(16 * math.ceil(side / 16) for side in scaled)
    return Crop(box, scaled, (size[0], size[1]), area, t * t * (3 - 2 * t))


def random_crop(rng: random.Random, height: int, width: int) -> Crop:
    top, left = rng.randrange(height - 8), rng.randrange(width - 8)
    box = Box(top, left, rng.randrange(top + 8, height + 1), rng.randrange(left + 8, width + 1))
    y, x = rng.randrange(box.height), rng.randrange(box.width)
    painted = Box(y, x, rng.randrange(y, box.height) + 1, rng.randrange(x, box.width) + 1)
    scale = rng.choice([0.5, 1.0, 1.7])
    scaled = (max(1, round(box.height * scale)), max(1, round(box.width * scale)))
    return make_crop(box, scaled, painted, rng.randrange(0, 9), rng.randrange(0, 17))


def reflected(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[h, w] continued to the right and to the bottom by reflection, by numpy."""
    down, right = size[0] - values.shape[0], size[1] - values.shape[1]
    return torch.from_numpy(np.pad(values.numpy(), ((0, down), (0, right)), "reflect"))


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    kind = torch.int16 if a.dtype == torch.float16 else torch.int32
    return a.contiguous().view(kind) == b.contiguous().view(kind)


def whole_blend(crop: Crop, height: int, width: int) -> Tensor:
    blend = torch.zeros(height, width)
    blend[crop.box.slices] = crop.blend
    return blend


@pytest.mark.parametrize("seed", range(60))
def test_nothing_outside_the_blend_changes_by_a_single_bit(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    height, width = rng.randrange(40, 150), rng.randrange(40, 150)
    dtype, channels = rng.choice([torch.float32, torch.float16]), rng.choice([3, 4])
    picture = (torch.rand(height, width, channels) * 4 - 1).to(dtype)
    picture[torch.rand(height, width, channels) < 0.02] = float("nan")
    picture[torch.rand(height, width, channels) < 0.02] = float("inf")
    crop = random_crop(rng, height, width)
    out = picture.clone()
    paste(out, crop, torch.rand(*crop.size, 3), rng.choice([0.0, 0.5, 1.0]))
    same = same_bits(out, picture)
    assert same[whole_blend(crop, height, width) == 0].all()
    assert same[..., 3:].all()
    assert out.dtype == dtype and out.shape == picture.shape
    assert torch.isfinite(out[..., :3][whole_blend(crop, height, width) > 0]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_opaque_pixels_are_the_answer_itself_without_seam_correction(dtype: torch.dtype) -> None:
    picture = torch.rand(90, 100, 4).to(dtype)
    crop = make_crop(Box(10, 20, 74, 84), (64, 64), Box(20, 20, 40, 50))
    generated = torch.rand(64, 64, 3)
    out = picture.clone()
    paste(out, crop, generated, 0.0)
    opaque = crop.blend == 1
    assert opaque.sum() > crop.painted.sum()
    inside = out[crop.box.slices][..., :3][opaque]
    assert torch.equal(inside, generated[opaque].to(dtype))


def test_the_fade_mixes_both_pictures_by_the_blend() -> None:
    picture = torch.full((64, 64, 3), 2.0)
    crop = make_crop(Box(0, 0, 64, 64), (64, 64), Box(20, 20, 40, 40))
    paste(picture, crop, torch.zeros(64, 64, 3), 0.0)
    assert torch.allclose(picture[..., 0], 2 * (1 - crop.blend), atol=1e-6)
    assert ((crop.blend > 0) & (crop.blend < 1)).sum() > 100


def test_the_answer_is_brought_back_to_the_box_and_clamped() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 80), torch.linspace(0, 1, 100), indexing="ij")
    truth = torch.stack((y, x, torch.full_like(x, 0.5)), dim=-1)
    crop = make_crop(Box(0, 0, 80, 100), (40, 50), Box(20, 30, 60, 70))
    image, _ = cut(truth, crop)
    out = torch.zeros_like(truth)
    paste(out, crop, image[0], 0.0)
    opaque = crop.blend == 1
    assert (out - truth).abs()[opaque].max() < 0.01
    paste(out, crop, torch.full((48, 64, 3), 7.0), 0.0)
    assert (out[opaque] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_alpha_from_the_blend_makes_what_is_repainted_opaque(dtype: torch.dtype) -> None:
    picture = torch.rand(64, 64, 4).to(dtype)
    picture[..., 3] = 0.25
    picture[0, 0, 3] = picture[30, 30, 3] = float("nan")
    crop = make_crop(Box(0, 0, 64, 64), (64, 64), Box(20, 20, 40, 40))
    out = picture.clone()
    paste(out, crop, torch.rand(64, 64, 3), 1.0, opaque=True)
    assert (out[..., 3][crop.blend == 1] == 1).all()
    assert same_bits(out, picture)[crop.blend == 0].all()
    fade = (crop.blend > 0) & (crop.blend < 1)
    expected = 0.25 + 0.75 * crop.blend[fade]
    assert torch.allclose(out[..., 3][fade].float(), expected, atol=1e-3)


def test_a_picture_without_alpha_gets_none() -> None:
    picture, crop = torch.rand(64, 64, 3), make_crop(Box(0, 0, 64, 64), (64, 64), Box(9, 9, 20, 20))
    opaque, plain, answer = picture.clone(), picture.clone(), torch.rand(64, 64, 3)
    paste(opaque, crop, answer, 1.0, opaque=True)
    paste(plain, crop, answer, 1.0)
    assert torch.equal(opaque, plain)


def test_an_answer_of_another_size_is_refused_with_both_sizes() -> None:
    crop = make_crop(Box(0, 0, 64, 64), (64, 64), Box(20, 20, 40, 40))
    out = torch.rand(64, 64, 3)
    before = out.clone()
    with pytest.raises(InputError, match=r"48x64x3.*64x64x3"):
        paste(out, crop, torch.rand(48, 64, 3), 1.0)
    assert torch.equal(out, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_refused_and_nothing_is_written(value: float) -> None:
    crop = make_crop(Box(0, 0, 64, 64), (64, 64), Box(20, 20, 40, 40))
    out, answer = torch.rand(64, 64, 3), torch.rand(64, 64, 3)
    before = out.clone()
    answer[0, 0, 1] = value
    with pytest.raises(LocalBackendError, match="no numbers.*bf16 or fp32"):
        paste(out, crop, answer, 1.0)
    assert torch.equal(out, before)


def test_pasting_the_untouched_crop_back_changes_nothing_visible() -> None:
    torch.manual_seed(0)
    picture = torch.rand(96, 96, 3)
    crop = make_crop(Box(8, 8, 88, 88), (80, 80), Box(30, 30, 50, 50))
    image, _ = cut(picture, crop)
    out = picture.clone()
    step = paste(out, crop, image[0], 1.0)
    assert (out - picture).abs().max() < 1e-5
    assert step.corrected == pytest.approx(step.without, abs=1e-2)


def test_the_seam_correction_lowers_the_step_that_paste_reports() -> None:
    picture = torch.full((128, 128, 3), 0.5)
    crop = make_crop(Box(0, 0, 128, 128), (128, 128), Box(40, 40, 90, 90))
    shifted = picture + torch.tensor([0.03, 0.0, -0.02])
    out = picture.clone()
    corrected = paste(out, crop, shifted, 1.0)
    assert corrected.without > 2 and corrected.corrected < 0.01
    assert (out - picture).abs().max() < 1e-4
    plain = paste(picture.clone(), crop, shifted, 0.0)
    assert plain.without == plain.corrected == corrected.without


def test_cut_hands_over_clamped_rgb_of_the_models_size_and_leaves_the_picture() -> None:
    picture = torch.rand(70, 90, 4).half() * 4 - 1
    picture[30, 30] = float("nan")
    before = picture.clone()
    crop = make_crop(Box(5, 6, 65, 83), (60, 77), Box(20, 20, 30, 30))
    image, mask = cut(picture, crop)
    assert image.shape == (1, 64, 80, 3) and mask.shape == (1, 64, 80)
    assert image.dtype == mask.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1
    assert same_bits(picture, before).all()
    expected = picture[5:65, 6:83, :3].float().nan_to_num(0).clamp(0, 1)
    assert torch.equal(image[0, :60, :77], expected)
    image.zero_()
    assert same_bits(picture, before).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_models_mask_covers_every_source_pixel_it_must_repaint(seed: int) -> None:
    rng = random.Random(seed)
    crop = random_crop(rng, 120, 140)
    _, mask = cut(torch.rand(120, 140, 3), crop)
    (scaled_height, scaled_width), box = crop.scaled, crop.box
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(mask[0], reflected(mask[0, :scaled_height, :scaled_width], crop.size))
    rows, columns = crop.model_mask.nonzero(as_tuple=True)
    down = ((rows + 0.5) * scaled_height / box.height).long()
    right = ((columns + 0.5) * scaled_width / box.width).long()
    assert mask[0, down, right].all()


def test_a_lone_pixel_is_not_lost_when_the_crop_shrinks() -> None:
    crop = make_crop(Box(0, 0, 512, 512), (64, 64), Box(101, 203, 102, 204), grow=0, blend=0)
    _, mask = cut(torch.rand(512, 512, 3), crop)
    assert mask.sum() == 1 and mask[0, 12, 25] == 1
