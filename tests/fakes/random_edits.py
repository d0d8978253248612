"""Random edits and extensions for hypothesis, and a backend that paints them all in one colour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from onereward_pack.nodes.canvas.extend import ANCHORS
from onereward_pack.nodes.canvas.options import ALPHA_CHOICES, REGION_CHOICES, CanvasOptions
from onereward_pack.nodes.contracts import (
    Capabilities,
    EditRecipe,
    EditRequest,
    EditResult,
    EditTask,
    ProgressSink,
)
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
