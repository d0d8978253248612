"""The command line: a front door beside the nodes, to the same edit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..nodes.backends import resolve_preview
from ..nodes.canvas.extend import ANCHORS
from ..nodes.contracts import EditTask
from ..nodes.conversions import decode_image, decode_mask, encode_png
from ..nodes.editing import Edit, edit, extend
from ..nodes.errors import InputError, OneRewardError
from ..nodes.recipes import make_recipe, text_prompt
from .demo import run_demo
from .terminal import TerminalProgress

if TYPE_CHECKING:
    from torch import Tensor

PROGRAM = "python -m local_backend"
INTERRUPTED = 130  # what a shell reports for Ctrl+C


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except OneRewardError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Edits masked pictures on the small preview model that ships with the pack.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="four edits on one contact sheet")
    demo.add_argument(
        "--output", type=Path, default=Path("onereward-demo.png"), help="the sheet, a PNG file"
    )
    demo.set_defaults(run=_demo)
    for task in EditTask:
        _add_task(commands, task)
    return parser


def _add_task(commands: argparse._SubParsersAction, task: EditTask) -> None:
    helps = {
        EditTask.FILL: "paint what the prompt says into the mask",
        EditTask.REMOVE: "take away what the mask covers",
        EditTask.EXTEND: "make the picture larger",
        EditTask.TEXT: "write words into the mask",
    }
    command = commands.add_parser(task.value, help=helps[task], description=helps[task])
    add = command.add_argument
    add("--image", type=Path, required=True, help="the picture: PNG, JPEG, WebP or TIFF")
    add("--output", type=Path, help="the result, a PNG; default: <image>-<task>.png beside it")
    if task is EditTask.EXTEND:
        add("--to", default="16:9", help="16:9, 1920x1080, 1.5x, 256 or 'left 256, right 128'")
        add("--anchor", default="center", choices=ANCHORS, help="where the picture sits")
        add("--overlap", type=int, default=24, help="source px that fade into the new area")
    else:
        add("--mask", type=Path, required=True, help="a picture, white = change, black = keep")
    if task is EditTask.TEXT:
        add("--text", required=True, help=r"the words; \n starts the next line")
        add("--scene", default="", help="what carries the words, such as 'on a red sign'")
    elif task is not EditTask.REMOVE:
        add("--prompt", default="", required=task is EditTask.FILL, help="what to paint")
    add("--seed", type=int, default=0, help="start of the random numbers, default 0")
    add("--steps", type=int, default=28, help="denoising steps, default 28")
    add("--cfg", type=float, default=4.0, help="true classifier-free guidance, default 4")
    add("--num-images", type=int, default=1, help="variations; image i uses seed + i")
    command.set_defaults(run=_edit, task=task)


def _demo(options: argparse.Namespace) -> None:
    with TerminalProgress() as progress:
        sheet = run_demo(resolve_preview(), progress)
    _write(options.output, sheet)


def _edit(options: argparse.Namespace) -> None:
    image = decode_image(_read(options.image))
    backend, task = resolve_preview(), options.task
    recipe = make_recipe(
        task,
        prompt=_prompt(options),
        seed=options.seed,
        steps=options.steps,
        cfg=options.cfg,
        num_images=options.num_images,
    )
    with TerminalProgress() as progress:
        if task is EditTask.EXTEND:
            to, anchor, overlap = options.to, options.anchor, options.overlap
            done = extend(image, to, anchor, overlap, recipe, None, backend, progress)
        else:
            mask = decode_mask(_read(options.mask))
            done = edit(image, mask, recipe, None, backend, progress)
    output = options.output or options.image.with_name(f"{options.image.stem}-{task.value}.png")
    _write_all(output, done)
    sys.stdout.write(done.report + "\n")


def _prompt(options: argparse.Namespace) -> str:
    if options.task is EditTask.TEXT:
        return text_prompt(options.text.replace("\\n", "\n"), options.scene)
    return "" if options.task is EditTask.REMOVE else options.prompt


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}. Check the file name.") from error


def _write_all(output: Path, done: Edit) -> None:
    """One file, or numbered ones (name-1.png, ...) for several images."""
    for number, picture in enumerate(done.images, 1):
        several = len(done.images) > 1
        path = output.with_name(f"{output.stem}-{number}.png") if several else output
        _write(path, picture)


def _write(path: Path, picture: Tensor) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(encode_png(picture))
        partial.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}. Choose --output.") from error
    sys.stdout.write(f"wrote {path}\n")
