"""The command line, beside the nodes a second way to the same edits: parser and commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

from ...nodes.backends import resolve_preview
from ...nodes.canvas.extend import ANCHORS
from ...nodes.contracts import ACCELERATION, ACCELERATIONS, ATTENTIONS, EditTask
from ...nodes.errors import InputError, MissingDependencyError, OneRewardError
from ...nodes.image_io import format_names
from ..bench.options import WEIGHTS, Options
from .demo import SCENES, run_demo
from .edit_job import check_output, make_job, output_files
from .picture_files import Picture, encode_picture

if TYPE_CHECKING:
    from torch import Tensor

    from ...nodes.edit.run import Edit

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXTEND_HELP = "16:9 (default), 1920x1080, 1.5x, 150%%, 256 or 'left 256, right 128'"
MASK_HELP = "a picture as large, white = change, black or transparent = keep"
PROGRAM = "python -m local_backend"
SERVER_COMMANDS = {
    "serve": "serve the model behind fal's protocol, for the nodes and fal's clients",
    "keys": "make, list and revoke the keys of that server",
}
SERVER_REQUIREMENTS = Path(__file__).resolve().parents[1] / "server" / "requirements.txt"
INTERRUPTED = 130  # what a shell reports for Ctrl+C
SHEETS = {"demo": Path("onereward-demo.png"), "compare": Path("onereward-compare.png")}


class TerminalProgress:
    """A ProgressSink on stderr; use it in a `with`. Ctrl+C interrupts by itself."""

    def __init__(self) -> None:
        self._bar = tqdm(unit="step", dynamic_ncols=True)

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        if value < self._bar.n:  # a new edit of the same run
            self._bar.reset()
        self._bar.total = total
        self._bar.update(value - self._bar.n)

    def status(self, text: str) -> None:
        self._bar.set_description(text)

    def check_interrupted(self) -> None:
        """Nothing to do: Python turns Ctrl+C into KeyboardInterrupt wherever the run is."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        if arguments and arguments[0] in SERVER_COMMANDS:
            _run_server(arguments)
        else:
            options = _parser().parse_args(arguments)
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
        description="Edits masked pictures on the small preview model that ships with the pack; "
        "compares and times the levels of acceleration.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="four edits on one contact sheet")
    demo.add_argument("--output", type=Path, default=SHEETS["demo"], help="the sheet, a PNG file")
    demo.set_defaults(run=_demo)
    for task in EditTask:
        _add_task(commands, task)
    _add_compare(commands)
    _add_bench(commands)
    for name, about in SERVER_COMMANDS.items():  # for the list: they have a parser of their own
        commands.add_parser(name, help=about)
    return parser


def _add_compare(commands: _Commands) -> None:
    about = "one edit at every level of acceleration, side by side with what the levels change"
    command = commands.add_parser("compare", help=about, description=about)
    add = command.add_argument
    add("--task", type=EditTask, default=EditTask.FILL, help="fill, remove, extend or text")
    add("--models", type=Path, help="a folder with the files of a FLUX.1-Fill, OneReward's best")
    add("--image", type=Path, required=True, help=f"the picture: {format_names()}")
    add("--mask", type=Path, help=f"{MASK_HELP}; not for extend")
    add("--output", type=Path, default=SHEETS["compare"], help="the sheet, a PNG file")
    add("--prompt", default="", help="what to paint; for fill and extend")
    _add_text(command)
    _add_extension(command)
    _add_numbers(command)
    command.set_defaults(run=_compare, num_images=1, acceleration=ACCELERATION)


def _add_bench(commands: _Commands) -> None:
    about = "time every level of acceleration beside the plain pipeline, on this machine"
    command = commands.add_parser("bench", help=about, description=about)
    add = command.add_argument
    add("--models", type=Path, help="a folder with the files of a FLUX.1-Fill, OneReward's best")
    add(
        "--weights",
        default="auto",
        choices=WEIGHTS,
        help="without --models: auto is an installed OneReward, else random ones of full size on a "
        "GPU, else the preview model",
    )
    add("--size", type=int, help="a side of the picture in pixels; default 1024, preview model 256")
    add("--steps", type=int, default=28, help="denoising steps, default 28")
    add("--mask", type=float, default=0.2, help="share of the picture to paint, default 0.2")
    add("--rows", nargs="+", default=(), help="such as: reference none regular high none-compiled")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="the compiled rows, too; default on CUDA",
    )
    add("--attention", default=Options.attention, choices=ATTENTIONS, help="not for the reference")
    add("--out", type=Path, help="a folder for bench.json and bench.png")
    add(
        "--limit",
        type=float,
        default=Options.limit,
        help="seconds; no row is begun after, default 450",
    )
    command.set_defaults(run=_bench)


def _add_task(commands: _Commands, task: EditTask) -> None:
    helps = {
        EditTask.FILL: "paint what the prompt says into the mask",
        EditTask.REMOVE: "take away what the mask covers",
        EditTask.EXTEND: "make the picture larger",
        EditTask.TEXT: "write words into the mask",
    }
    command = commands.add_parser(task.value, help=helps[task], description=helps[task])
    add = command.add_argument
    add("--image", type=Path, required=True, help=f"the picture: {format_names()}")
    add(
        "--output",
        type=Path,
        help="the result, a PNG of as many bits; default: <image>-<task>.png beside it",
    )
    if task is EditTask.EXTEND:
        _add_extension(command)
    else:
        add("--mask", type=Path, required=True, help=MASK_HELP)
    if task is EditTask.TEXT:
        _add_text(command, required=True)
    elif task is not EditTask.REMOVE:
        add("--prompt", default="", required=task is EditTask.FILL, help="what to paint")
    _add_numbers(command)
    add("--num-images", type=int, default=1, help="variations, default 1; image i uses seed + i")
    add(
        "--acceleration",
        default=ACCELERATION,
        choices=ACCELERATIONS,
        help=f"how much the result may differ for speed, default {ACCELERATION}",
    )
    command.set_defaults(run=_edit, task=task)


def _add_extension(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--to", default="16:9", help=EXTEND_HELP)
    add("--anchor", default="center", choices=ANCHORS, help="where the picture sits")
    add("--overlap", type=int, default=24, help="source px that fade into the new area, default 24")


def _add_text(command: argparse.ArgumentParser, required: bool = False) -> None:
    add = command.add_argument
    add("--text", default="", required=required, help=r"the words; \n starts the next line")
    add("--scene", default="", help="what carries the words, such as 'on a red sign'")


def _add_numbers(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--seed", type=int, default=0, help="start of the random numbers, default 0")
    add("--steps", type=int, default=28, help="denoising steps, default 28")
    add("--cfg", type=float, default=4.0, help="true classifier-free guidance, default 4")


def _run_server(arguments: Sequence[str]) -> None:
    try:
        from ..server.cli import run
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The package {error.name} is not installed. Run: "
            f'"{sys.executable}" -m pip install -r "{SERVER_REQUIREMENTS}"'
        ) from error
    run(arguments)


def _demo(options: argparse.Namespace) -> None:
    check_output(options.output)
    with TerminalProgress() as progress:
        sheet = run_demo(resolve_preview(), progress)
    _write(options.output, encode_picture(sheet))


def _bench(options: argparse.Namespace) -> None:
    resolve_preview()  # says in one line if a package is not installed
    from ..bench.run import run_bench

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    wanted = Options(
        weights=options.weights,
        models=options.models,
        size=options.size,
        steps=options.steps,
        mask=options.mask,
        rows=options.rows,
        compiled=options.compile,
        attention=options.attention,
        out=options.out,
        limit=options.limit,
    )
    run_bench(wanted, SCENES / "fill.jpg", say)


def _edit(options: argparse.Namespace) -> None:
    options.output = options.output or options.image.with_name(
        f"{options.image.stem}-{options.task.value}.png"
    )
    job = make_job(options)
    with TerminalProgress() as progress:
        done = job.paint(job.recipe, resolve_preview(), progress)
    _write_all(options.output, done, job.picture)
    sys.stdout.write("\n".join([*job.picture.notes, done.report]) + "\n")


def _compare(options: argparse.Namespace) -> None:
    job = make_job(options)
    resolve_preview()  # says in one line if a package is not installed
    from .compare import choose_backend, compare

    backend, title = choose_backend(options.models)
    with TerminalProgress() as progress:
        compared = compare(job.before, job.paint, job.recipe, backend, title, progress)
    _write(options.output, encode_picture(compared.sheet))
    sys.stdout.write("\n".join([*job.picture.notes, compared.summary]) + "\n")


def _write_all(output: Path, done: Edit, picture: Picture) -> None:
    paths = output_files(output, len(done.images))
    for path, pixels in zip(paths, done.images, strict=True):
        _write(path, encode_picture(pixels, picture.bits, picture.profile))


def _write(path: Path, data: bytes) -> None:
    """The whole file, or none."""
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}. Choose --output.") from error
    finally:
        partial.unlink(missing_ok=True)
    sys.stdout.write(f"wrote {path}\n")
