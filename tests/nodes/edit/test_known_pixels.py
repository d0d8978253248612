"""What a backend is shown as known does not depend on what is repainted, whatever the sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onereward_pack.local_backend.backends.flux import LocalBackend
from onereward_pack.local_backend.backends.preview import PreviewBackend
from onereward_pack.nodes.backends import resolve_backend
from onereward_pack.nodes.canvas.crop_plan import plan_crops
from onereward_pack.nodes.canvas.extend import Margins, extend_picture, new_area
from onereward_pack.nodes.canvas.geometry import Crop
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.canvas.stitch import cut
from onereward_pack.nodes.contracts import Capabilities, FalSpec
from torch import Tensor

FAL_LIMITS = resolve_backend(FalSpec(), Path("no-such-folder")).capabilities
SMALL = Capabilities(max_pixels=64 * 64, min_side=32, max_aspect=3.0)  # scales nearly always
LIMITS = (PreviewBackend.capabilities, LocalBackend.capabilities, FAL_LIMITS, SMALL)
TARGETS = ("auto", "native", "0.01 MP", "100", "192x96")
PLACES = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]


def at(place: tuple[int, int], height: int, width: int) -> Tensor:
    """A mask of a third of each side, at an edge or in a corner."""
    mask = torch.zeros(height, width)
    rows, columns = (
        slice(index * side // 3, (index + 1) * side // 3)
        for index, side in zip(place, (height, width), strict=True)
    )
    mask[rows, columns] = 1
    return mask


def noise(height: int, width: int, seed: int) -> Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def check_known(picture: Tensor, mask: Tensor, options: CanvasOptions, limits: Capabilities) -> int:
    """Plans and cuts twice, with other pixels wherever the blend is above 0; the known values."""
    known = 0
    for crop in plan_crops(mask, options, limits).crops:
        other = picture.clone()
        box, repainted = other[crop.box.slices], crop.blend > 0
        box[repainted] = noise(*repainted.shape, 7)[repainted]
        (one, asked), (two, again) = cut(picture, crop), cut(other, crop)
        assert torch.equal(asked, again) and torch.equal(asked[0], expected_mask(crop))
        same = (one == two).all(-1)
        assert same[asked == 0].all()
        known += int((asked == 0).sum())
    return known


def expected_mask(crop: Crop) -> Tensor:
    """1 where a model pixel touches a repainted source pixel, by sums; mirrored in the padding."""
    sums = np.pad((crop.blend > 0).numpy().cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = (
        (np.arange(small) * side // small, -(-np.arange(1, small + 1) * side // small))
        for small, side in zip(crop.scaled, crop.blend.shape, strict=True)
    )
    rows = sums[bottom] - sums[top]
    touched = (rows[:, right] - rows[:, left]) > 0
    pads = [(0, size - small) for size, small in zip(crop.size, crop.scaled, strict=True)]
    return torch.from_numpy(np.pad(touched, pads, "reflect")).float()


@pytest.mark.parametrize("rows", range(16))
def test_known_pixels_do_not_depend_on_what_is_repainted(rows: int) -> None:
    """Every pair of sides modulo 16, at every edge and corner; targets and limits in turn."""
    turn, known = rows, 0
    for columns in range(16):
        for place in PLACES:
            height, width = 80 + rows, 112 + columns
            options = CanvasOptions(
                grow=(8, 0, -3, 1)[turn % 4],
                blend=(16, 0, 5)[turn % 3],
                target=TARGETS[turn % len(TARGETS)],
            )
            limits = LIMITS[turn // 4 % len(LIMITS)]
            known += check_known(noise(height, width, 1), at(place, height, width), options, limits)
            turn += 1
    assert known > 1_000_000


@pytest.mark.parametrize("rows", range(0, 16, 3))
@pytest.mark.parametrize("limits", LIMITS)
def test_the_new_area_of_an_extension_is_never_known(rows: int, limits: Capabilities) -> None:
    options = CanvasOptions(grow=0, blend=24, clean=False)
    for columns in range(16):
        sides = Margins(left=40, top=25, right=29 + columns, bottom=rows)
        picture = extend_picture(noise(100, 120, 2)[None], sides)
        assert check_known(picture[0], new_area(sides, 100, 120), options, limits)


@pytest.mark.parametrize(
    ("height", "width"), [(2048, 2048), (1080, 1920), (1000, 1500), (241, 256), (1, 640), (700, 1)]
)
@pytest.mark.parametrize("limits", LIMITS[:3])
def test_real_pictures_are_no_exception(height: int, width: int, limits: Capabilities) -> None:
    mask = at((2, 2), height, width)
    for options in (CanvasOptions(grow=0, blend=0), CanvasOptions()):
        assert check_known(noise(height, width, 3), mask, options, limits)


@pytest.mark.parametrize("target", ["auto", "48", "640"])
def test_a_ragged_mask_leaves_values_that_its_kept_pixels_explain(target: str) -> None:
    """A filter that may reach over the mask's edge stays in range, for every shape of edge."""
    mask = (noise(90, 110, 4)[..., 0] < 0.3).float()
    picture = 0.4 + 0.2 * noise(90, 110, 5)
    options = CanvasOptions(grow=0, blend=0, clean=False, target=target)
    for crop in plan_crops(mask, options, SMALL).crops:
        image, asked = cut(picture, crop)
        known = image[asked == 0]
        assert known.isfinite().all() and known.min() >= 0 and known.max() <= 1
        assert (known - 0.5).abs().mean() < 0.1


def test_the_padding_of_an_exact_target_is_no_second_object() -> None:
    """256x256 of a 512x200 picture: more than half of what the model gets is padding."""
    mask = torch.zeros(200, 512)
    mask[112:200, 192:308] = 1
    picture = torch.full((200, 512, 3), 0.2)
    picture[mask > 0] = torch.tensor([0.9, 0.1, 0.1])
    options = replace(CanvasOptions(), target="256x256")
    (crop,) = plan_crops(mask, options, PreviewBackend.capabilities).crops
    assert crop.size == (256, 256) and crop.scaled[0] < 256
    image, asked = cut(picture, crop)
    known = image[asked == 0]
    assert torch.allclose(known, torch.full_like(known, 0.2), atol=1e-5)
    assert asked[0, crop.scaled[0] :].any()
