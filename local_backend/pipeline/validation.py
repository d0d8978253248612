"""What the local backend refuses, before any model is loaded."""

from __future__ import annotations

import math

import torch

from ...nodes.contracts import ACCELERATIONS, MAX_IMAGES, MAX_SEED, EditRecipe, EditRequest
from ...nodes.errors import InputError

MAX_STEPS = 1000  # the flow was trained on that many time steps
MAX_GUIDANCE = 100.0
SIDE_MULTIPLE = 16


def check_recipe(recipe: EditRecipe) -> None:
    """Raises InputError for prompts and numbers the local pipeline cannot honour."""
    # A level allows shortcuts and asks for none: a backend without any honours all three, too.
    if recipe.acceleration not in ACCELERATIONS:
        raise InputError(
            f'acceleration is "{recipe.acceleration}". Use one of {", ".join(ACCELERATIONS)}.'
        )
    for name, text in (("prompt", recipe.prompt), ("negative_prompt", recipe.negative_prompt)):
        if not isinstance(text, str):
            raise InputError(f"{name} is {text!r}. Give it as text.")
    _check_whole("num_inference_steps", recipe.num_inference_steps, 1, MAX_STEPS)
    _check_whole("num_images", recipe.num_images, 1, MAX_IMAGES)
    _check_whole("seed", recipe.seed, 0, MAX_SEED - recipe.num_images + 1)
    _check_scale("guidance_scale", recipe.guidance_scale)
    _check_scale("true_cfg", recipe.true_cfg)


def check_pixels(request: EditRequest) -> None:
    """Raises InputError for an image or mask outside EditRequest's contract."""
    image, mask = request.image, request.mask
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[-1] != 3:
        raise InputError(f"image has shape {_shape(image)}. Give one picture as [1, h, w, 3].")
    height, width = image.shape[1:3]
    if not height or not width or height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        raise InputError(f"image is {width}x{height}. Give sides that are multiples of 16.")
    if mask.shape != (1, height, width):
        raise InputError(f"mask has shape {_shape(mask)}. Give it as [1, {height}, {width}].")
    if not image.is_floating_point() or not mask.is_floating_point():
        raise InputError(f"image is {image.dtype}, mask is {mask.dtype}. Give both as floats.")
    low, high = image.min().item(), image.max().item()
    if not (low >= 0 and high <= 1):
        raise InputError(f"image has values from {low:.3g} to {high:.3g}. Give it in 0..1.")
    if not ((mask == 0) | (mask == 1)).all():
        raise InputError("mask has values between 0 and 1 or beyond. Give 0 = keep, 1 = change.")


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}. Give a whole number from {low} to {high}.")


def _check_scale(name: str, value: float) -> None:
    if not math.isfinite(value) or not 0 <= value <= MAX_GUIDANCE:
        raise InputError(f"{name} is {value!r}. Give a number from 0 to {MAX_GUIDANCE:g}.")


def _shape(tensor: torch.Tensor) -> list[int]:
    return list(tensor.shape)
