"""From the command line's options to an edit: all of it is checked before a model is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...nodes.canvas.extend import margins
from ...nodes.canvas.masks import CLEAN_LEVEL, fit_mask
from ...nodes.canvas.options import MAX_BLEND
from ...nodes.canvas.sizes import parse_extend
from ...nodes.contracts import Backend, EditRecipe, EditTask, ProgressSink
from ...nodes.edit.recipes import make_recipe, text_prompt
from ...nodes.edit.run import Edit, edit, extend
from ...nodes.errors import InputError
from ...nodes.image_io import mask_parts
from ..pipeline.validation import check_recipe
from .contact_sheet import with_mask
from .picture_files import Picture, read_file, read_picture

if TYPE_CHECKING:
    from torch import Tensor

# The recipe's fields and the command line's flags.
FLAGS = {
    "num_inference_steps": "--steps", "true_cfg": "--cfg", "num_images": "--num-images",
    "seed": "--seed",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class EditJob:
    """What the options ask for, with all of it checked.

    Attributes:
        paint: runs the edit on the picture.
        before: the picture as it is before, the mask on it, [H, W, C].
    """

    recipe: EditRecipe
    picture: Picture
    paint: Callable[[EditRecipe, Backend, ProgressSink], Edit]
    before: Tensor


def make_job(options: argparse.Namespace) -> EditJob:
    """The edit that the options ask for. The prompt and the numbers are checked before the files
    are read, and all of it before a model is loaded.

    Raises:
        InputError: an option or a file is not what it should be.
    """
    recipe, extends = _recipe(options), options.task is EditTask.EXTEND
    if extends and getattr(options, "mask", None) is not None:
        raise InputError(
            "--mask does not go with extend, whose mask is the new area. Leave it out."
        )
    if extends:
        _check_extension(options)
    elif options.mask is None:
        raise InputError(f"--task {options.task.value} needs a mask. Give --mask.")
    check_output(options.output)
    _check_inputs_stay(options)
    picture = read_picture(options.image)
    image = picture.pixels
    if extends:
        to, anchor, overlap = options.to, options.anchor, options.overlap
        margins(parse_extend(to), anchor, *image.shape[1:3])  # raises if the canvas is too small
        return EditJob(recipe, picture, lambda recipe, backend, progress: extend(
            image, to, anchor, overlap, recipe, None, backend, progress
        ), image[0])  # fmt: skip
    mask = _read_mask(options.mask)
    before = with_mask(image[0], fit_mask(mask, *image.shape[1:3])[0][0])
    return EditJob(recipe, picture, lambda recipe, backend, progress: edit(
        image, mask, recipe, None, backend, progress
    ), before)  # fmt: skip


def check_output(path: Path) -> None:
    """Raise InputError unless a PNG can go there."""
    if path.is_dir():
        raise InputError(f"--output is {path}, which is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise InputError(
            f"--output is {path}, and there is no folder {path.parent}. Make it first."
        )
    if path.suffix.lower() not in ("", ".png"):
        raise InputError(
            f"--output is {path}, but what is written is a PNG. Name it {path.with_suffix('.png')}."
        )


def output_files(output: Path, count: int) -> list[Path]:
    """One file, or numbered ones (name-1.png, ...) for several images."""
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{i}.png") for i in range(1, count + 1)]


def _check_inputs_stay(options: argparse.Namespace) -> None:
    """Raise InputError if a result would be written over the picture or its mask."""
    for flag in ("image", "mask"):
        source = getattr(options, flag, None)  # extend has no mask
        for path in output_files(options.output, options.num_images):
            if source and source.exists() and path.exists() and path.samefile(source):
                raise InputError(f"{path} is the --{flag}. Choose another --output.")


def _check_extension(options: argparse.Namespace) -> None:
    parse_extend(options.to)
    if not 0 <= options.overlap <= MAX_BLEND:
        raise InputError(f"--overlap is {options.overlap}. Give 0 to {MAX_BLEND} px.")


def _read_mask(path: Path) -> Tensor:
    """A mask that marks something; one that does not is a mistake, and no edit comes of it."""
    white, opaque = mask_parts(read_file(path), name=str(path))
    mask = white * opaque
    if mask.max() >= CLEAN_LEVEL:
        return mask
    if opaque.max() == 0:
        why = "all of it is transparent"
    elif white.max() == 0:
        why = "all of it is black or transparent"
    elif mask.max() == 0:
        why = "it is transparent where it is white, and black elsewhere"
    else:
        why = f"it is at most {mask.max():.1%} white, and less than {CLEAN_LEVEL:.0%} is black"
    raise InputError(
        f"The mask {path} is empty: {why}, so nothing would change. "
        "Paint white and opaque what is to change."
    )


def _recipe(options: argparse.Namespace) -> EditRecipe:
    recipe = make_recipe(
        options.task,
        prompt=_prompt(options),
        seed=options.seed,
        steps=options.steps,
        cfg=options.cfg,
        num_images=options.num_images,
        acceleration=options.acceleration,
    )
    try:
        check_recipe(recipe)
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"{FLAGS.get(name, name)} {rest}") from error
    return recipe


def _prompt(options: argparse.Namespace) -> str:
    if options.task is EditTask.TEXT:
        return text_prompt(options.text.replace("\\n", "\n"), options.scene)
    return "" if options.task is EditTask.REMOVE else options.prompt
