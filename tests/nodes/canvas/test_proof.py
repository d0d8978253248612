from __future__ import annotations

import pytest
import torch
from fakes.backend import ColourBackend, RecordingProgress
from onereward_pack.nodes.canvas.proof import place_source, prove
from onereward_pack.nodes.contracts import EditRecipe, EditTask
from onereward_pack.nodes.edit.run import edit, extend
from onereward_pack.nodes.errors import InputError
from torch import Tensor

FILL = EditRecipe(task=EditTask.FILL, prompt="a cat")
EXTEND = EditRecipe(task=EditTask.EXTEND, prompt="", num_images=2)


def picture(batch: int = 1) -> Tensor:
    return torch.rand(batch, 60, 80, 3, generator=torch.Generator().manual_seed(2))


def mask() -> Tensor:
    mask = torch.zeros(1, 60, 80)
    mask[:, 20:40, 20:50] = 1
    return mask


def test_an_edit_of_ours_is_proved_untouched_outside() -> None:
    before = picture(2)
    done = edit(before, mask(), FILL, None, ColourBackend(), RecordingProgress())
    proof = prove(before, done.images, done.mask)
    assert proof.max_difference == 0
    assert proof.difference.shape == (2, 60, 80, 3)
    assert "outside the blend 0," in proof.text
    assert bool((proof.difference[:, 25, 30] > 0).any())


def test_one_changed_value_outside_is_found() -> None:
    before = picture()
    done = edit(before, mask(), FILL, None, ColourBackend(), RecordingProgress())
    done.images[0, 0, 0, 1] += 0.25
    proof = prove(before, done.images, done.mask)
    assert proof.max_difference == pytest.approx(0.25)
    assert "outside the blend 0.25" in proof.text


@pytest.mark.parametrize("to", ["left 30", "right 31", "30", "top 7, left 5", "16:9", "200x60"])
@pytest.mark.parametrize("overlap", [0, 8])
def test_an_extended_picture_is_compared_at_its_place(to: str, overlap: int) -> None:
    before = picture()
    done = extend(before, to, "center", overlap, EXTEND, None, ColourBackend(), RecordingProgress())
    proof = prove(before, done.images, done.mask)
    assert proof.max_difference == 0


def test_the_source_is_placed_by_the_untouched_area() -> None:
    blend = torch.ones(10, 20)
    blend[3:10, 6:14] = 0
    assert place_source(blend, 8, 12) == (2, 4)


@pytest.mark.parametrize(
    ("before", "after", "blend", "words"),
    [
        (picture(2), picture(3), mask(), r"\[2, 60, 80, 3\]"),
        (picture(), picture(), torch.zeros(1, 30, 80), "80x30"),
        (picture(), picture()[:, :50], torch.zeros(1, 50, 80), "80x60, larger"),
        (picture(4), picture(4), mask().repeat(3, 1, 1), "4.*3"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    before: Tensor, after: Tensor, blend: Tensor, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        prove(before, after, blend)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_hides_no_change_and_is_none(value: float) -> None:
    before = picture()
    before[0, 0, 0, 1] = value
    done = edit(before, mask(), FILL, None, ColourBackend(), RecordingProgress())
    assert prove(before, done.images, done.mask).max_difference == 0
    done.images[0, 59, 79, 2] += 0.25
    proof = prove(before, done.images, done.mask)
    assert proof.max_difference == pytest.approx(0.25) and "nan" not in proof.text
    done.images[0, 58, 79, 2] = value
    assert prove(before, done.images, done.mask).max_difference == float("inf")
