"""The promises of an edit and of an extension, on whatever hypothesis thinks of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from fakes.backend import RecordingProgress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onereward_pack.nodes.canvas.extend import ANCHORS, extension_steps, margins
from onereward_pack.nodes.canvas.masks import fit_mask
from onereward_pack.nodes.canvas.options import (
    ALPHA_CHOICES,
    ALPHA_FROM_BLEND,
    KEEP_ALPHA,
    REGION_CHOICES,
    CanvasOptions,
)
from onereward_pack.nodes.canvas.seam import MOST_DRIFT
from onereward_pack.nodes.canvas.sizes import parse_extend
from onereward_pack.nodes.contracts import (
    Capabilities,
    EditRecipe,
    EditRequest,
    EditResult,
    EditTask,
    ProgressSink,
)
from onereward_pack.nodes.edit.run import Edit, edit, extend
from onereward_pack.nodes.errors import OneRewardError
from scipy import ndimage
from torch import Tensor

COLOUR = torch.tensor([1.0, 0.9, 0.95])
DARKEST = 0.7  # of the pictures: so far from COLOUR that no seam correction takes it for drift
SIDES = st.one_of(st.integers(1, 16), st.integers(17, 150))
LIMITS = (
    Capabilities(max_pixels=64 * 64, min_side=32, max_aspect=3.0),
    Capabilities(max_pixels=256 * 256, min_side=256, max_aspect=5 / 3),
    Capabilities(max_pixels=1 << 20, min_side=512, max_aspect=4.0, images_per_run=1),
)
# The same examples in every run, so that a red test is somebody's change and not the day's luck.
ALWAYS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class ConstantBackend:
    """Answers every request with one colour, and keeps it."""

    capabilities: Capabilities
    name: str = "constant"
    requests: list[EditRequest] = field(default_factory=list)

    def check(self, recipe: EditRecipe) -> None:
        """Takes all."""

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        """Takes all."""

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        self.requests.append(request)
        count = request.num_images
        return EditResult(
            images=COLOUR.expand(count, *request.image.shape[1:]),
            seeds=tuple(range(request.seed, request.seed + count)),
            has_nsfw_concepts=(False,) * count,
        )


@st.composite
def masks(draw: st.DrawFn, count: int, height: int, width: int) -> Tensor:
    """float [count, h, w] as people have them: strokes, rings, specks, noise, soft, empty, full, of
    another size, of none.
    """
    kind = draw(
        st.sampled_from(["boxes", "boxes", "ring", "noise", "soft", "full", "empty", "odd"])
    )
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    mask = np.zeros((count, height, width), np.float32)
    if kind == "full":
        mask[:] = 1
    elif kind == "noise":
        mask[:] = random.random(mask.shape) < draw(st.sampled_from([0.02, 0.4, 0.9]))
    elif kind == "odd":  # a mask of nothing, as loaders make it, or of the wrong shape
        shape, value = draw(st.sampled_from([((64, 64), 0.0), ((64, 64), 1 / 255), ((7, 90), 1.0)]))
        return torch.full((count, *shape), value)
    elif kind != "empty":
        for one in mask:
            for _ in range(random.integers(1, 4)):
                top, left = random.integers(height), random.integers(width)
                tall, wide = random.integers(1, height + 1), random.integers(1, width + 1)
                box = slice(top, top + tall), slice(left, left + wide)
                one[box] = random.choice([1.0, 0.98, 0.5, 0.09])
                if kind == "ring":
                    rim = random.integers(1, 9)
                    one[top + rim : top + tall - rim, left + rim : left + wide - rim] = 0
        if kind == "soft":
            mask = ndimage.uniform_filter(mask, (0, 5, 5), mode="nearest")
    if draw(st.integers(0, 40)) == 0:
        mask[0, 0, 0] = np.nan
    if draw(st.integers(0, 9)) == 0:
        mask = mask.repeat(2, axis=1).repeat(2, axis=2)
    return torch.from_numpy(mask)


@st.composite
def pictures(draw: st.DrawFn, count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    channels = draw(st.sampled_from([3, 3, 4]))
    values = torch.rand(count, height, width, channels, generator=generator) * DARKEST
    return values.half() if draw(st.integers(0, 5)) == 0 else values


canvases = st.builds(
    CanvasOptions,
    grow=st.sampled_from([0, 0, 1, 8, 12, -1, -4]),
    blend=st.sampled_from([0, 1, 2, 16, 30]),
    context=st.sampled_from([1.0, 1.5, 4.0]),
    target=st.sampled_from(["auto", "auto", "native", "0.01 MP", "90", "48x112", "160x64"]),
    regions=st.sampled_from(REGION_CHOICES),
    seam=st.sampled_from([0.0, 1.0]),
    clean=st.sampled_from([True, True, False]),
    invert=st.sampled_from([False, False, False, True]),
    alpha=st.sampled_from(ALPHA_CHOICES),
)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Tensor, Tensor, CanvasOptions, EditRecipe, Capabilities]:
    height, width = draw(SIDES), draw(SIDES)
    batch = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), (1, 2), (2, 2), (2, 3)]))
    recipe = EditRecipe(
        task=draw(st.sampled_from([EditTask.FILL, EditTask.REMOVE, EditTask.TEXT])),
        prompt="(a cat:1.2)",
        num_images=draw(st.sampled_from([1, 1, 2])),
    )
    image, mask = draw(pictures(batch[0], height, width)), draw(masks(batch[1], height, width))
    return image, mask, draw(canvases), recipe, draw(st.sampled_from(LIMITS))


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


@st.composite
def extensions(draw: st.DrawFn) -> tuple[Tensor, str, str, int, CanvasOptions, EditRecipe]:
    height, width = draw(SIDES), draw(SIDES)
    to = draw(
        st.sampled_from(
            ["16:9", "9:16", "2.39:1", "2x", "1.1x", "1", "37", "left 40", "top 3, right 21",
             "left 40, right 45, top 25, bottom 40", "160x170", "16x9", "one and a half", "0"]
        )
    )  # fmt: skip
    recipe = EditRecipe(
        task=EditTask.EXTEND, prompt="", num_images=draw(st.sampled_from([1, 1, 2]))
    )
    image = draw(pictures(draw(st.sampled_from([1, 1, 2])), height, width))
    overlap = draw(st.sampled_from([0, 1, 24, 300, -1, 10_000]))
    return image, to, draw(st.sampled_from(ANCHORS)), overlap, draw(canvases), recipe


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
