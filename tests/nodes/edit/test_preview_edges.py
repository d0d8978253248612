"""The preview model at the picture's edges: an object there goes away as one in the middle does."""

from __future__ import annotations

import pytest
import torch
from fakes.backend import RecordingProgress
from onereward_pack.local_backend.backends.preview import PreviewBackend
from onereward_pack.nodes.contracts import EditRecipe, EditTask
from onereward_pack.nodes.edit.run import edit, extend
from torch import Tensor

RED = torch.tensor([0.85, 0.1, 0.1])
MOST_LEFT = 0.01  # of the object's last 10 rows


def scene(height: int, width: int) -> Tensor:
    """A sky that changes slowly, float [h, w, 3]."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    return torch.stack(
        [0.35 + 0.2 * y + 0 * x, 0.55 + 0.15 * y + 0 * x, 0.75 - 0.2 * y + 0.05 * x], -1
    )


def reddish(pixels: Tensor) -> float:
    red = pixels[..., 0] - pixels[..., 1:].amax(-1) > 0.2
    return float(red.float().mean())


@pytest.mark.parametrize("turns", range(4))
def test_no_strip_of_an_object_is_left_at_any_edge(turns: int) -> None:
    """241 rows are 15 model pixels short of a multiple of 16."""
    image, mask = scene(241, 256), torch.zeros(241, 256)
    image[151:, 98:158], mask[143:, 92:164] = RED, 1
    image, mask = torch.rot90(image, turns), torch.rot90(mask, turns)
    recipe = EditRecipe(task=EditTask.REMOVE, prompt="remove", num_inference_steps=14)
    done = edit(image[None], mask[None], recipe, None, PreviewBackend(), RecordingProgress())
    upright = torch.rot90(done.images[0], -turns)
    assert reddish(upright[-10:, 98:158]) <= MOST_LEFT
    assert reddish(upright[151:, 98:158]) <= MOST_LEFT


def test_no_grey_is_left_of_the_canvas_that_was_extended() -> None:
    sides = "left 40, right 45, top 25, bottom 40"
    recipe = EditRecipe(task=EditTask.EXTEND, prompt="a sky", num_inference_steps=14)
    image = scene(200, 240)[None]
    done = extend(image, sides, "center", 24, recipe, None, PreviewBackend(), RecordingProgress())
    edge = done.images[0, :, -8:]
    assert float(((edge - 0.5).abs().amax(-1) < 0.06).float().mean()) <= MOST_LEFT
