from __future__ import annotations

import torch
from onereward_pack.nodes.canvas.crop_plan import plan_crops
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.canvas.overlay import CROP, EDGE, FILLED, OPAQUE, draw_plan
from onereward_pack.nodes.contracts import Capabilities
from torch import Tensor

LIMITS = Capabilities(max_pixels=64 * 64, min_side=64, max_aspect=2.0)


def count(drawn: Tensor, rgb: tuple[int, int, int]) -> int:
    return int((drawn == torch.tensor(rgb) / 255).all(-1).sum())


def test_masks_and_crop_are_drawn_in_their_colours() -> None:
    mask = torch.zeros(300, 400)
    mask[100:160, 100:180] = 1
    plan = plan_crops(mask, CanvasOptions(), LIMITS)
    drawn = draw_plan([torch.zeros(300, 400, 3)], [plan])
    assert drawn.shape == (1, 300, 400, 3)
    box = plan.crops[0].box
    assert torch.equal(drawn[0, box.bottom - 1, box.left + 9], torch.tensor(CROP) / 255)
    assert drawn[0, 130, 140, 0] > 3 * drawn[0, 130, 140, 1]
    # The outlines run round the painted 60x80 area, grown by 8 and then by the blend's 16; the
    # label is written in white too.
    assert 250 < count(drawn, OPAQUE) < 330
    assert 320 < count(drawn, EDGE) < 600


def test_a_pinhole_that_is_filled_is_drawn_in_orange() -> None:
    mask = torch.zeros(300, 400)
    mask[100:160, 100:180] = 1
    mask[120:123, 120:122] = 0
    plan = plan_crops(mask, CanvasOptions(), LIMITS)
    drawn = draw_plan([torch.zeros(300, 400, 3)], [plan])
    assert count(drawn, FILLED) == 6
    assert (drawn[0, 120:123, 120:122] == torch.tensor(FILLED) / 255).all()


def test_a_large_picture_is_drawn_small_and_a_pixel_of_mask_stays_visible() -> None:
    mask = torch.zeros(3000, 2000)
    mask[1500, 1000] = 1
    plan = plan_crops(mask, CanvasOptions(grow=0, blend=0), LIMITS)
    drawn = draw_plan([torch.zeros(3000, 2000, 4)], [plan])
    assert drawn.shape == (1, 1024, 683, 3)
    assert count(drawn, EDGE) >= 1


def test_an_empty_plan_leaves_the_picture() -> None:
    picture = torch.full((20, 30, 3), 128 / 255)
    plan = plan_crops(torch.zeros(20, 30), CanvasOptions(), LIMITS)
    assert torch.allclose(draw_plan([picture], [plan]), picture[None], atol=1e-3)
