"""What the artist's mask leaves free stays, in the graphs in which people leave something free."""

from __future__ import annotations

import pytest
import torch
from fakes.backend import ColourBackend, RecordingProgress
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.canvas.proof import prove
from onereward_pack.nodes.contracts import EditRecipe, EditTask
from onereward_pack.nodes.edit.run import Edit, default_canvas, edit
from onereward_pack.nodes.errors import InputError
from torch import Tensor

TASKS = [EditTask.FILL, EditTask.REMOVE, EditTask.TEXT]


def picture(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(4))


def run(
    image: Tensor, mask: Tensor, canvas: CanvasOptions | None = None, task: EditTask = TASKS[0]
) -> Edit:
    recipe = EditRecipe(task=task, prompt="a cat")
    return edit(image, mask, recipe, canvas, ColourBackend(drift=None), RecordingProgress())


def padded_for_outpainting(feathering: int) -> tuple[Tensor, Tensor]:
    """Core's Pad Image for Outpainting by 40 px on four sides of 100x120: mid grey around the
    picture, mask 1 there, and inside it falling to 0 over the feathering, by its square.
    """
    image = torch.full((1, 180, 200, 3), 0.5)
    image[:, 40:140, 40:160] = picture(100, 120)
    rows, columns = torch.arange(100)[:, None], torch.arange(120)
    edge = torch.minimum(
        torch.minimum(rows, 99 - rows), torch.minimum(columns, 119 - columns)
    ).clamp(max=feathering or 1)
    mask = torch.ones(1, 180, 200)
    mask[0, 40:140, 40:160] = ((feathering - edge) / max(feathering, 1)).clamp(min=0) ** 2
    return image, mask


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("feathering", [0, 10])
def test_a_picture_padded_on_four_sides_keeps_its_middle(task: EditTask, feathering: int) -> None:
    image, mask = padded_for_outpainting(feathering)
    done = run(image, mask, task=task)
    reach = default_canvas(task).grow + default_canvas(task).blend + feathering
    inner = slice(40 + reach, 140 - reach), slice(40 + reach, 160 - reach)
    assert image[0][inner].numel()
    assert torch.equal(done.images[0][inner], image[0][inner])
    assert (done.mask[0][inner] == 0).all()


def subject() -> Tensor:
    """A mask of somebody in the middle of 160x200."""
    mask = torch.zeros(1, 160, 200)
    mask[:, 40:120, 60:140] = 1
    return mask


@pytest.mark.parametrize("clean", [True, False])
def test_a_protected_subject_stays(clean: bool) -> None:
    image, protected = picture(160, 200), subject()
    by_invert = run(image, protected, CanvasOptions(invert=True, clean=clean))
    by_node = run(image, 1 - protected, CanvasOptions(clean=clean))  # core's InvertMask
    inner = slice(40 + 24, 120 - 24), slice(60 + 24, 140 - 24)
    for done in (by_invert, by_node):
        assert torch.equal(done.images[0][inner], image[0][inner])
        assert not torch.equal(done.images[0, :40], image[0, :40])


@pytest.mark.parametrize("width", [1, 3, 12])
def test_what_a_ring_encloses_stays(width: int) -> None:
    """The rims of glasses, a worn border."""
    mask = torch.zeros(1, 200, 220)
    mask[:, 20:180, 30:190] = 1
    mask[:, 20 + width : 180 - width, 30 + width : 190 - width] = 0
    image = picture(200, 220)
    done = run(image, mask)
    kept = slice(20 + width + 24, 180 - width - 24), slice(30 + width + 24, 190 - width - 24)
    assert torch.equal(done.images[0][kept], image[0][kept])


def speckled() -> Tensor:
    """One area with a pinhole of 4 px and a hole of 900."""
    mask = torch.zeros(1, 160, 200)
    mask[:, 40:120, 60:140] = 1
    mask[:, 50:52, 70:72] = 0
    mask[:, 70:100, 90:120] = 0
    return mask


def test_what_was_filled_is_named_in_report_and_summary() -> None:
    done = run(picture(160, 200), speckled(), CanvasOptions(grow=0, blend=8))
    note = "1 pinhole of the mask, 4 px in all, filled (clean: of at most 64 px each)."
    assert note in done.report and note in done.summary
    assert (done.mask[0, 50:52, 70:72] == 1).all()
    assert done.mask[0, 85, 105] == 0
    plain = run(picture(160, 200), speckled(), CanvasOptions(grow=0, blend=8, clean=False))
    assert "pinhole" not in plain.report


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("invert", [False, True])
def test_the_proof_with_the_painted_mask_finds_an_edit_sound(task: EditTask, invert: bool) -> None:
    image, mask = picture(160, 200, 4), speckled()
    options = CanvasOptions(grow=default_canvas(task).grow, invert=invert)
    done = run(image, mask, options, task)
    proof = prove(image, done.images, done.mask, mask, options)
    assert proof.max_difference == 0
    assert f"outside grow + blend ({options.grow + 16} px) of the painted mask 0," in proof.text


def test_the_proof_sees_a_filled_hole_only_with_the_painted_mask() -> None:
    """An edit that repaints what a ring encloses hides it in its own mask."""
    image, ring = picture(200, 220), torch.zeros(1, 200, 220)
    ring[:, 20:180, 30:190] = 1
    whole = ring.clone()
    ring[:, 30:170, 40:180] = 0
    done = run(image, whole)
    assert prove(image, done.images, done.mask).max_difference == 0
    proof = prove(image, done.images, done.mask, ring)
    assert proof.max_difference > 0.1
    assert "If the task node has a canvas, connect it here" in proof.text


@pytest.mark.parametrize("count", [1, 2])
def test_the_proof_pairs_masks_and_variations_as_the_edit_does(count: int) -> None:
    image = picture(160, 200)
    masks = torch.cat([subject(), subject().roll(40, 2)])
    recipe = EditRecipe(task=EditTask.FILL, prompt="a cat", num_images=count)
    backend = ColourBackend(drift=None)
    done = edit(image, masks, recipe, None, backend, RecordingProgress())
    assert prove(image, done.images, done.mask, masks).max_difference == 0
    assert prove(image, done.images, done.mask, masks.flip(0)).max_difference > 0


def test_the_proof_refuses_a_painted_mask_that_belongs_to_something_else() -> None:
    image, mask = picture(160, 200), subject()
    done = run(image, mask)
    with pytest.raises(InputError, match="200x160.*300x160.*Disconnect it"):
        larger = torch.zeros(1, 160, 300, 3)
        prove(image, larger, torch.zeros(1, 160, 300), mask)
    with pytest.raises(InputError, match="3 painted masks do not go with 1 images"):
        prove(image, done.images, done.mask, mask.repeat(3, 1, 1))
    with pytest.raises(InputError, match="another shape"):
        prove(image, done.images, done.mask, torch.ones(1, 160, 160))
