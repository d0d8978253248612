"""The held-out scenes; how good a filled hole is, and what a blur would have made of it.

Scores take pictures as [1, 3, h, w].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from onereward_pack.nodes.contracts import EditRequest, EditTask
from onereward_pack.nodes.image_io import decode_image, decode_mask
from torch import Tensor

HELD_OUT = Path(__file__).resolve().parent.parent / "data" / "held_out"
#: two pictures that are equal are that far apart, in dB, so that a mean stays a number
EQUAL = 120.0


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutScene:
    """An edit no model was trained on. What it should look like is the picture itself.

    Attributes:
        image: float [1, h, w, 3] in 0..1; in a removal, the true background is in the hole.
        mask: [1, h, w], 0 or 1.
        box: left, top, right, bottom px of what is asked for.
        label: the object's names ("cat|kitten"), or the word; else empty.
    """

    name: str
    task: EditTask
    image: Tensor
    mask: Tensor
    prompt: str
    seed: int
    box: tuple[float, float, float, float]
    label: str

    @property
    def share(self) -> float:
        """How much of the picture is masked."""
        return self.mask.mean().item()

    def request(self, **changes: Any) -> EditRequest:
        """The edit by the authors' recipe, computed in full, but for the changes."""
        words: dict[str, Any] = {
            "task": self.task,
            "prompt": self.prompt,
            "seed": self.seed,
            "acceleration": "none",
            "image": self.image,
            "mask": self.mask,
        }
        return EditRequest(**(words | changes))


def held_out_scenes(task: EditTask | None = None) -> list[HeldOutScene]:
    """All of them, or a task's, in a fixed order; each has its own seed."""
    prompts = json.loads((HELD_OUT / "prompts.json").read_text("utf-8"))
    answers = json.loads((HELD_OUT / "answers.json").read_text("utf-8"))
    names = [(kind, i) for kind in prompts for i in range(len(prompts[kind]))]
    return [
        _scene(kind, i, seed, prompts[kind][i], answers[kind][i])
        for seed, (kind, i) in enumerate(names)
        if task in (None, EditTask(kind))
    ]


def _scene(kind: str, i: int, seed: int, prompt: str, answer: dict[str, Any]) -> HeldOutScene:
    name = f"{kind}-{i:02}"
    left, top, right, bottom = answer["box"]
    return HeldOutScene(
        name=name,
        task=EditTask(kind),
        image=decode_image((HELD_OUT / f"{name}.jpg").read_bytes()),
        mask=decode_mask((HELD_OUT / f"{name}.png").read_bytes()),
        prompt=prompt,
        seed=seed,
        box=(left, top, right, bottom),
        label=answer["label"],
    )


def psnr_in(answer: Tensor, truth: Tensor, mask: Tensor) -> float:
    """dB over the pixels where the mask [1, 1, h, w] is 1; EQUAL at most."""
    error = ((answer - truth).square() * mask).sum() / (3 * mask.sum())
    return min(EQUAL, -10 * torch.log10(error).item())


def texture_share(answer: Tensor, truth: Tensor, mask: Tensor) -> float:
    """The answer's gradient energy in the mask over the truth's: about 0 for a blur."""

    def energy(picture: Tensor) -> Tensor:
        inside = mask[..., 1:, 1:]
        down = (picture[..., 1:, 1:] - picture[..., :-1, 1:]) * inside
        right = (picture[..., 1:, 1:] - picture[..., 1:, :-1]) * inside
        return down.square().sum() + right.square().sum()

    return (energy(answer) / energy(truth)).sqrt().item()


def blur_fill(picture: Tensor, mask: Tensor) -> Tensor:
    """The hole filled, from fine to coarse, with the average of what is known nearby."""
    kept = 1 - mask
    filled, known = picture * kept, kept.clone()
    for level in range(1, 9):
        colour, weight = (_spread(t, 2**level) for t in (picture * kept, kept))
        new = (weight > 0.05).float() * (1 - known)
        filled = filled * (1 - new) + colour / weight.clamp(min=1e-6) * new
        known = (known + new).clamp(max=1)
    for _ in range(24):
        smooth = functional.avg_pool2d(functional.pad(filled, (2,) * 4, mode="replicate"), 5, 1)
        filled = filled * kept + smooth * mask
    return filled


def _spread(picture: Tensor, factor: int) -> Tensor:
    small = functional.avg_pool2d(picture, factor)
    return functional.interpolate(small, picture.shape[-2:], mode="bilinear", align_corners=False)
