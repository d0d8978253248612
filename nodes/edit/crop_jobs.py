"""The crop jobs of an edit, as in "inpaint crop and stitch": what each job sends to a backend, how
it tells its progress, and where its result is pasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..canvas.crop_plan import CropPlan
from ..canvas.geometry import Crop
from ..canvas.image_ops import copy_pictures, empty_mask
from ..canvas.options import ALPHA_FROM_BLEND, CanvasOptions
from ..canvas.overlay import PlacedPreview
from ..canvas.stitch import cut, paste
from ..contracts import MAX_SEED, EditRecipe, EditRequest, EditResult, ProgressSink
from ..errors import LocalBackendError
from .job_runner import Bar
from .report import Report


@dataclass(frozen=True, eq=False)
class CropJob:
    """One call to a backend: a crop of a pair's picture, painted one or several times.

    Attributes:
        name: what the user calls it, such as "picture 2, crop 1".
        pair: which of the stage's pairs of picture and mask.
        crop: the crop and its masks.
        first: which of the stage's images is the first that it paints into.
        count: how many images it paints; they follow one another.
        seed: of the first image; image i of the job has seed + i.
    """

    name: str
    pair: int
    crop: Crop
    first: int
    count: int
    seed: int

    @property
    def pixels(self) -> int:
        """Of one image, as the model sees it."""
        return self.crop.size[0] * self.crop.size[1]

    def request(self, recipe: EditRecipe, picture: Tensor) -> EditRequest:
        """What the backend gets, cut from the pair's picture [H, W, 3 or 4]."""
        return recipe.on(*cut(picture, self.crop), seed=self.seed, num_images=self.count)


def split_jobs(
    plans: Sequence[CropPlan], count: int, per_run: int | None, seed: int
) -> tuple[CropJob, ...]:
    """`count` images of every crop of every pair, at most `per_run` of them to a job.

    Args:
        plans: one per pair.
        per_run: None for any number.
        seed: of the first image of the first pair; every further image has the next one.
    """
    per_run = per_run or count
    return tuple(
        CropJob(
            name=_job_name(len(plans), pair, len(plan.crops), number, count, start),
            pair=pair,
            crop=crop,
            first=pair * count + start,
            count=min(per_run, count - start),
            seed=seed_of(seed, pair * count + start),
        )
        for pair, plan in enumerate(plans)
        for number, crop in enumerate(plan.crops)
        for start in range(0, count, per_run)
    )


def seed_of(seed: int, index: int) -> int:
    """The seed of image `index` of an edit whose first image has `seed`; after MAX_SEED comes 0."""
    return (seed + index) % (MAX_SEED + 1)


def _job_name(pairs: int, pair: int, crops: int, crop: int, count: int, image: int) -> str:
    parts = (("picture", pair, pairs), ("crop", crop, crops), ("variation", image, count))
    return ", ".join(f"{word} {i + 1}" for word, i, n in parts if n > 1) or "the edit"


class CropProgress:
    """One job's progress as its share of the whole edit's, its preview shown on the picture."""

    def __init__(
        self, whole: ProgressSink, bar: Bar, number: int, picture: Tensor, crop: Crop
    ) -> None:
        self._whole, self._bar, self._number = whole, bar, number
        self._picture, self._crop = picture, crop
        self._placed: PlacedPreview | None = None

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        if preview is not None:
            self._placed = self._placed or PlacedPreview(self._picture, self._crop)
            preview = self._placed.paste(preview)
        self._bar.step(self._number, value, total, preview)

    def status(self, text: str) -> None:
        self._whole.status(text)

    def check_interrupted(self) -> None:
        self._whole.check_interrupted()


class Outputs:
    """The pictures an edit hands back, filled crop by crop.

    Args:
        image: float [B, H, W, C]; never written to.
        pairs: (picture, mask) by number.
        plans: one per pair.
        count: how many images of each pair.
    """

    def __init__(
        self,
        image: Tensor,
        pairs: Sequence[tuple[int, int]],
        plans: Sequence[CropPlan],
        count: int,
    ) -> None:
        # The one copy of the pictures.
        self.images = copy_pictures(image, [picture for picture, _ in pairs for _ in range(count)])
        self.masks = _used_masks(plans, count)
        self.flagged = [False] * len(self.images)

    def add(self, job: CropJob, result: EditResult, options: CanvasOptions, report: Report) -> None:
        """Paste a result. Where it was flagged, the input stays and the mask is 0.

        Raises:
            LocalBackendError: there are fewer or more images than were asked for.
        """
        opaque = options.alpha == ALPHA_FROM_BLEND
        if len(result.images) != job.count:
            raise LocalBackendError(
                f"{job.name} was asked for {job.count} images, and the backend returned "
                f"{len(result.images)}. Use a backend that returns as many as it is asked for."
            )
        made = zip(result.images, result.has_nsfw_concepts, strict=True)
        for i, (generated, flagged) in enumerate(made, job.first):
            if flagged:
                self.flagged[i] = True
                self.masks[i][job.crop.box.slices] = 0
            else:
                picture = self.images[i]
                step = paste(picture, job.crop, generated, options.seam, opaque=opaque)
                report.add_seam(step)


def _used_masks(plans: Sequence[CropPlan], count: int) -> Tensor:
    """float [len(plans) * count, H, W]: the blend of every output."""
    masks = empty_mask(len(plans), *plans[0].size)
    for mask, plan in zip(masks, plans, strict=True):
        for crop in plan.crops:
            mask[crop.box.slices] = crop.blend
    return masks if count == 1 else masks.repeat_interleave(count, 0)
