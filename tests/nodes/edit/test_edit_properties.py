"""The promises of an edit and of an extension, on whatever hypothesis thinks of."""

from __future__ import annotations

import pytest
import torch
from fakes.backend import RecordingProgress
from fakes.random_edits import (
    ALWAYS,
    COLOUR,
    DARKEST,
    LIMITS,
    ConstantBackend,
    edits,
    extensions,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onereward_pack.nodes.canvas.extend import extension_steps, margins
from onereward_pack.nodes.canvas.masks import fit_mask
from onereward_pack.nodes.canvas.options import (
    ALPHA_FROM_BLEND,
    KEEP_ALPHA,
    CanvasOptions,
)
from onereward_pack.nodes.canvas.seam import MOST_DRIFT
from onereward_pack.nodes.canvas.sizes import parse_extend
from onereward_pack.nodes.contracts import (
    Capabilities,
    EditRecipe,
    EditTask,
)
from onereward_pack.nodes.edit.run import Edit, edit, extend
from onereward_pack.nodes.errors import OneRewardError
from scipy import ndimage
from torch import Tensor


@settings(ALWAYS, max_examples=1600)
@given(edits())
def test_an_edit_keeps_its_promises(
    case: tuple[Tensor, Tensor, CanvasOptions, EditRecipe, Capabilities],
) -> None:
    image, mask, options, recipe, limits = case
    backend, before = ConstantBackend(limits), image.clone()
    try:
        done = edit(image, mask, recipe, options, backend, RecordingProgress())
    except OneRewardError as error:
        assert not backend.requests and str(error).count(".") >= 1
        return
    assert same_bits(image, before).all()
    pairs = max(len(image), len(mask))
    repeats = pairs // len(image)
    source = before.repeat(repeats, 1, 1, 1).repeat_interleave(recipe.num_images, 0)
    painted = artists_areas(mask, options, image.shape[1:3])
    painted = painted.repeat(pairs // len(painted), 1, 1).repeat_interleave(recipe.num_images, 0)
    check_kept(source, done, painted, options)
    check_replaced(done, painted, options)
    check_known(case, done, backend)


def artists_areas(mask: Tensor, options: CanvasOptions, size: tuple[int, int]) -> Tensor:
    """bool [M, H, W]: what the artist painted, worked out apart from the pack's own reading."""
    if mask.max() <= 0.004:
        mask = torch.zeros(len(mask), *size)
    if mask.shape[1:] != size:
        mask, _ = fit_mask(mask, *size)  # how it is resized is for the tests of masks
    level = 0.1 if options.clean else 0.5
    return mask <= 1 - level if options.invert else mask >= level


def reach(painted: Tensor, options: CanvasOptions) -> Tensor:
    """bool [H, W]: what lies within grow + blend of it, after a shrink of what is left."""
    grow = max(options.grow, 0)
    if options.grow < 0 and not painted.all():
        eaten = ndimage.distance_transform_edt(painted.numpy()) <= -options.grow
        painted = painted & ~torch.from_numpy(eaten)
    if not painted.any():
        return painted
    distance = torch.from_numpy(ndimage.distance_transform_edt(~painted.numpy()))
    return distance <= grow if options.blend == 0 else distance < grow + options.blend


def check_kept(source: Tensor, done: Edit, painted: Tensor, options: CanvasOptions) -> None:
    """(a) Nothing outside grow + blend of the artist's mask changes, and alpha is kept if asked."""
    kept = (done.mask == 0) | ~torch.stack([reach(area, options) for area in painted])
    same = same_bits(source, done.images)
    assert same[kept].all()
    if options.alpha == KEEP_ALPHA:
        assert same[..., 3:].all()


def check_replaced(done: Edit, painted: Tensor, options: CanvasOptions) -> None:
    """(c) All that is painted is replaced; with a shrink, all that is left of it."""
    if options.grow >= 0:
        assert (done.mask[painted] == 1).all()
    opaque = done.images[done.mask == 1]
    assert torch.allclose(opaque[:, :3].float(), COLOUR, atol=2e-3)
    if options.alpha == ALPHA_FROM_BLEND:
        assert (opaque[:, 3:] == 1).all()


def check_known(
    case: tuple[Tensor, Tensor, CanvasOptions, EditRecipe, Capabilities],
    done: Edit,
    backend: ConstantBackend,
) -> None:
    """(b) Other pixels where something is repainted: what is known to the backend is the same. And
    it repaints nothing where nothing is repainted: the masks cover no more than they must.
    """
    image, mask, options, recipe, limits = case
    if not backend.requests:
        assert not (done.mask > 0).any()
        return
    assert all(request.mask.any() for request in backend.requests)
    if len(image) != max(len(image), len(mask)):
        return  # one picture under several masks: no pixel is repainted in all of its edits
    other, again = image.clone(), ConstantBackend(limits)
    repainted = done.mask[:: recipe.num_images] > 0
    other[repainted] = torch.rand_like(other[repainted].float()).to(other.dtype)
    edit(other, mask, recipe, options, again, RecordingProgress())
    for one, two in zip(backend.requests, again.requests, strict=True):
        assert torch.equal(one.mask, two.mask)
        assert torch.equal(one.image[one.mask == 0], two.image[one.mask == 0])


def same_bits(one: Tensor, other: Tensor) -> Tensor:
    kind = torch.int16 if one.dtype == torch.float16 else torch.int32
    return one.contiguous().view(kind) == other.contiguous().view(kind)


@settings(ALWAYS, max_examples=400)
@given(extensions(), st.sampled_from(LIMITS))
def test_an_extension_keeps_its_promises(
    case: tuple[Tensor, str, str, int, CanvasOptions, EditRecipe], limits: Capabilities
) -> None:
    image, to, anchor, overlap, options, recipe = case
    backend, before = ConstantBackend(limits), image.clone()
    try:
        done = extend(image, to, anchor, overlap, recipe, options, backend, RecordingProgress())
    except OneRewardError as error:
        assert not backend.requests and str(error).count(".") >= 1
        return
    height, width = image.shape[1:3]
    (top, left), new = done.origin, torch.ones(done.images.shape[1:3], dtype=torch.bool)
    new[top : top + height, left : left + width] = False
    steps = len(extension_steps(margins(parse_extend(to), anchor, height, width), height, width))
    # From the second step on, what the first one faded in looks like drift, and may be corrected.
    most = 2e-3 if steps == 1 or options.seam == 0 else MOST_DRIFT
    assert torch.allclose(done.images[:, new][..., :3].float(), COLOUR, atol=most)
    within = torch.from_numpy(ndimage.distance_transform_edt(~new.numpy())) < max(overlap, 1)
    deep = ~within if new.any() else ~new
    source = torch.zeros_like(done.images)
    source[:, top : top + height, left : left + width] = before.repeat_interleave(
        recipe.num_images, 0
    )
    assert same_bits(source, done.images)[:, deep].all()
    if steps == 1:
        check_known_of_extension(case, done, backend)


def check_known_of_extension(
    case: tuple[Tensor, str, str, int, CanvasOptions, EditRecipe],
    done: Edit,
    backend: ConstantBackend,
) -> None:
    """(b) for the overlap; and the grey that stands where nothing is yet is never known."""
    image, to, anchor, overlap, options, recipe = case
    (top, left), (height, width) = done.origin, image.shape[1:3]
    other, again = image.clone(), ConstantBackend(backend.capabilities)
    repainted = done.mask[:: recipe.num_images, top : top + height, left : left + width] > 0
    other[repainted] = 0.0
    extend(other, to, anchor, overlap, recipe, options, again, RecordingProgress())
    for one, two in zip(backend.requests, again.requests, strict=True):
        assert torch.equal(one.image[one.mask == 0], two.image[one.mask == 0])
        assert (one.image[one.mask == 0] <= DARKEST + 1e-3).all() or options.target != "native"


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_picture_that_is_none_is_refused_before_a_backend_is_asked(channels: int) -> None:
    backend = ConstantBackend(LIMITS[0])
    recipe = EditRecipe(task=EditTask.FILL, prompt="a cat")
    with pytest.raises(OneRewardError, match="IMAGE"):
        edit(
            torch.rand(1, 8, 8, channels), torch.ones(1, 8, 8), recipe, None, backend,
            RecordingProgress(),
        )  # fmt: skip
    assert not backend.requests
