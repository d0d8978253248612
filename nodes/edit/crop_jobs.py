"""An edit as pieces: what each job makes, and the pictures their results are pasted into."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..canvas.copies import copy_pictures, empty_mask
from ..canvas.crop_plan import CanvasPlan
from ..canvas.geometry import Crop
from ..canvas.options import ALPHA_FROM_BLEND, CanvasOptions
from ..canvas.stitch import paste
from ..contracts import EditResult
from ..errors import LocalBackendError
from .report import Report


@dataclass(frozen=True)
class Piece:
    """What one job makes: a crop of a pair's picture, for images first..first+count."""

    name: str
    pair: int
    crop: Crop
    first: int
    count: int


def split(plans: list[CanvasPlan], count: int, per_run: int) -> list[Piece]:
    """`count` images of every crop of every pair, at most `per_run` to a job."""
    return [
        Piece(
            _piece_name(len(plans), pair, len(plan.crops), number, count, start),
            pair, crop, pair * count + start, min(per_run, count - start),
        )
        for pair, plan in enumerate(plans)
        for number, crop in enumerate(plan.crops)
        for start in range(0, count, per_run)
    ]  # fmt: skip


def _piece_name(pairs: int, pair: int, crops: int, crop: int, count: int, image: int) -> str:
    parts = (("picture", pair, pairs), ("crop", crop, crops), ("variation", image, count))
    return ", ".join(f"{word} {i + 1}" for word, i, n in parts if n > 1) or "the edit"


class Outputs:
    """The pictures an edit hands back, filled crop by crop."""

    def __init__(
        self, image: Tensor, pairs: list[tuple[int, int]], plans: list[CanvasPlan], count: int
    ) -> None:
        # The one copy of the pictures.
        self.images = copy_pictures(image, [picture for picture, _ in pairs for _ in range(count)])
        self.masks = _used_masks(plans, count)
        self.flagged = [False] * len(self.images)

    def add(self, piece: Piece, result: EditResult, options: CanvasOptions, report: Report) -> None:
        """Paste a result. Where it was flagged, the input stays and the mask says so."""
        opaque = options.alpha == ALPHA_FROM_BLEND
        if len(result.images) != piece.count:
            raise LocalBackendError(
                f"{piece.name} was asked for {piece.count} images, and the backend returned "
                f"{len(result.images)}. Use a backend that returns as many as it is asked for."
            )
        made = zip(result.images, result.has_nsfw_concepts, strict=True)
        for i, (generated, flagged) in enumerate(made, piece.first):
            if flagged:
                self.flagged[i] = True
                self.masks[i][piece.crop.box.slices] = 0
            else:
                picture = self.images[i]
                step = paste(picture, piece.crop, generated, options.seam, opaque=opaque)
                report.add_seam(step)


def _used_masks(plans: list[CanvasPlan], count: int) -> Tensor:
    """float [len(plans) * count, H, W]: the blend of every output."""
    masks = empty_mask(len(plans), *plans[0].size)
    for mask, plan in zip(masks, plans, strict=True):
        for crop in plan.crops:
            mask[crop.box.slices] = crop.blend
    return masks if count == 1 else masks.repeat_interleave(count, 0)
