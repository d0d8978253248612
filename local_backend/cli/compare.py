"""The levels of acceleration on the user's own picture, side by side, with what they change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

from ...nodes.contracts import (
    ACCELERATIONS,
    Backend,
    EditRecipe,
    EditRequest,
    EditResult,
    ProgressSink,
)
from ...nodes.edit.run import Edit
from ..backends.flux import LocalBackend
from ..backends.preview import PreviewBackend
from ..checkpoints.select import find_models
from .contact_sheet import CELL, GAP, INK, LINE, PAPER, as_picture, paste

if TYPE_CHECKING:
    from torch import Tensor

AMPLIFIED = 4
_LEGEND = (
    "Seconds: the model's own, files read before.",
    "dB: the PSNR of the values that were replaced in full.",
    f"Differences are amplified {AMPLIFIED} times; black is none.",
)
_PREVIEW = "Painted by the preview model, a small demonstrator. It is not OneReward."

# Runs the same edit with another recipe, on another backend.
Paint = Callable[[EditRecipe, Backend, ProgressSink], Edit]


@dataclass(frozen=True, eq=False)
class Painted:
    """An edit at one level, and the seconds that the model worked for it."""

    level: str
    done: Edit
    seconds: float

    @property
    def picture(self) -> Tensor:
        """[H, W, 3], the first variation."""
        return self.done.images[0, ..., :3]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The sheet, float [H, W, 3], and the same as text."""

    sheet: Tensor
    summary: str


def choose_backend(models: Path | None) -> tuple[Backend, str]:
    """The FLUX.1-Fill in a folder, or the preview model; and who paints, for the sheet.

    Raises:
        ModelNotFoundError: the folder lacks a part.
    """
    if models is None:
        return PreviewBackend(), _PREVIEW
    files = find_models(models)
    name = str(files.transformer.relative_to(models))
    return LocalBackend(files, name), f"Painted by {name}"


def compare(
    before: Tensor,
    paint: Paint,
    recipe: EditRecipe,
    backend: Backend,
    title: str,
    progress: ProgressSink,
) -> Comparison:
    """Paints at every level from the same noise, after a picture that is not counted: it has the
    models loaded, and all that is worked out once for a number of steps.

    Args:
        before: [H, W, 3 or 4], the picture as the user sees it before.
        title: who paints.
    """
    recipe = replace(recipe, num_images=1)
    progress.status("warming up")
    paint(replace(recipe, acceleration=ACCELERATIONS[-1]), backend, progress)
    painted = []
    for level in ACCELERATIONS:
        progress.status(level)
        timed = _TimedBackend(backend)
        done = paint(replace(recipe, acceleration=level), timed, progress)
        painted.append(Painted(level, done, timed.seconds))
    captions = [_caption(one, painted[0]) for one in painted]
    task = f'{recipe.task.value}: "{recipe.prompt}"'
    about = f"{task}, {recipe.num_inference_steps} steps, seed {recipe.seed}"
    sheet = _sheet(title, about, before, painted, captions)
    return Comparison(sheet, "\n".join([title, about, *captions]))


def difference(one: Painted, base: Painted) -> Tensor:
    """How far the values of two pictures are apart, amplified, [H, W, 3] in 0..1."""
    return (AMPLIFIED * (one.picture - base.picture).abs()).clamp(0, 1)


def psnr(one: Painted, base: Painted) -> float:
    """Of the values that were replaced in full, in dB; infinite for equal pictures."""
    inside = base.done.mask[0] == 1
    error = (one.picture - base.picture)[inside].square().mean()
    return float(-10 * torch.log10(error))


class _TimedBackend:
    """A backend whose work is timed; what goes on around it is not."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.capabilities = backend.name, backend.capabilities
        self.seconds = 0.0

    def check(self, recipe: EditRecipe) -> None:
        self._backend.check(recipe)

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        self._backend.admit(requests, progress)

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        result = self._backend.run(request, progress)
        self.seconds += sum(result.timings.values())
        return result


def _caption(one: Painted, base: Painted) -> str:
    text = f"{one.level}: {one.seconds:.2f} s"
    if one is base:
        return text
    near = psnr(one, base)
    apart = "the same as" if near == math.inf else f"{near:.1f} dB to"
    return f"{text}, {base.seconds / one.seconds:.2f}x, {apart} {base.level}"


def _sheet(
    title: str, about: str, before: Tensor, painted: list[Painted], captions: list[str]
) -> Tensor:
    """A line of pictures and, below it, a line of differences."""
    width = GAP + (1 + len(painted)) * (CELL + GAP)
    top = 2 * LINE + 2 * GAP
    sheet = Image.new("RGB", (width, top + 2 * (CELL + LINE + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    draw.text((GAP, GAP), title, fill=INK, font=font)
    draw.text((GAP, GAP + LINE), about, fill=INK, font=font)
    titles = ["before", *captions]
    pictures = [before, *(one.picture for one in painted)]
    below = top + CELL + LINE + GAP
    for column, (text, picture) in enumerate(zip(titles, pictures, strict=True)):
        left = GAP + column * (CELL + GAP)
        draw.text((left, top), text, fill=INK, font=font)
        paste(sheet, picture, left, top + LINE)
    for number, line in enumerate(_LEGEND):
        draw.text((GAP, below + (1 + number) * LINE), line, fill=INK, font=font)
    for column, one in enumerate(painted[1:], 2):
        left = GAP + column * (CELL + GAP)
        text = f"{one.level}: difference to {painted[0].level}, x{AMPLIFIED}"
        draw.text((left, below), text, fill=INK, font=font)
        paste(sheet, difference(one, painted[0]), left, below + LINE)
    return as_picture(sheet)
