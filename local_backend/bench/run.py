"""The benchmark from its options to its table, its file and its plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from ...nodes.contracts import EditRequest, EditTask
from ...nodes.errors import InputError, LocalBackendError, OneRewardError
from ..offload.devices import pick_device
from ..pipeline.pipeline_cache import PIPELINE_CACHE
from ..pipeline.validation import SIDE_MULTIPLE, check_pixels, check_recipe
from .configurations import Configuration, choose
from .measure import RUNS, Row, StepClock, begin_peak, count, peak, step_kinds
from .models_under_test import TestedModel, choose_model
from .options import Options
from .plot import plot
from .report import Report, machine, table, write_json

_PROMPT = "a sailboat"
_WARM_STEPS = 2  # enough for the plain pipeline, every step of which is the same

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """One run of the benchmark."""

    model: TestedModel
    request: EditRequest
    configs: Sequence[Configuration]
    deadline: float
    say: Say
    save: Callable[[], None]

    @property
    def device(self) -> torch.device:
        return self.model.device


def run_bench(options: Options, picture: Path, say: Say) -> Report:
    """Measures, and writes the files if there is a folder for them.

    Args:
        picture: a file that looks like a photo, of any size.
        say: is given the table, and a line whenever something is done.

    Raises:
        InputError: an option makes no sense.
        LocalBackendError: a row could not be measured; all others are reported before.
    """
    start, device = perf_counter(), pick_device()
    model = choose_model(options, device)
    has_files = model.files is not None
    compiled = options.compiled
    if compiled is None:
        compiled = device.type == "cuda" and has_files
    configs = choose(options.rows, compiled=compiled, has_files=has_files)
    request = make_request(options, model, picture)
    rows = [
        Row(
            config.name,
            config.title,
            step_kinds(config.level, request, model.text_tokens),
        )
        for config in configs
    ]
    report = Report(machine(device), model, request, rows)
    bench = Bench(
        model=model,
        request=request,
        configs=configs,
        deadline=start + options.limit,
        say=say,
        save=lambda: _save(report, options.out),
    )
    say(report.title)
    (_take_turns if model.together else _one_by_one)(bench, rows)
    PIPELINE_CACHE.unload()
    say(f"\n{table(report)}\n\n{perf_counter() - start:.0f} s in all")
    _save(report, options.out, say)
    failed = [f"{row.name}: {row.problem}" for row in rows if row.problem]
    if failed:
        raise LocalBackendError(f"Not measured: {'; '.join(failed)}")
    return report


def make_request(options: Options, model: TestedModel, picture: Path) -> EditRequest:
    """The picture, made a square, with a centred square of `options.mask` of its pixels to paint.

    Raises:
        InputError: size, steps or mask make no sense.
    """
    size = model.size if options.size is None else options.size
    if not 0 < options.mask < 1:
        raise InputError(f"--mask is {options.mask:g}. Give a share of the picture, such as 0.2.")
    if size < SIDE_MULTIPLE or size % SIDE_MULTIPLE:
        raise InputError(f"--size is {size}. Give a multiple of {SIDE_MULTIPLE}.")
    with Image.open(picture) as photo:
        pixels = np.asarray(photo.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
    mask = torch.zeros(1, size, size)
    side = max(1, round(size * math.sqrt(options.mask)))
    corner = (size - side) // 2
    mask[:, corner : corner + side, corner : corner + side] = 1
    request = EditRequest(
        task=EditTask.FILL,
        prompt=_PROMPT,
        num_inference_steps=options.steps,
        image=torch.from_numpy(pixels.copy()).float().div(255)[None],
        mask=mask,
    )
    check_recipe(request)
    check_pixels(request)
    return request


def _one_by_one(bench: Bench, rows: Sequence[Row]) -> None:
    """A row after the other, so that each has the device for itself."""
    for config, row in zip(bench.configs, rows, strict=True):
        if perf_counter() > bench.deadline:
            row.problem = "left out, the time is up; see --limit"
            continue
        try:
            _measure(bench, config, row)
        except (OneRewardError, RuntimeError) as error:  # the other rows come next
            row.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        _tell(bench, row)


def _measure(bench: Bench, config: Configuration, row: Row) -> None:
    request = _of_level(bench.request, config)
    start = perf_counter()
    with bench.model.painter(config) as paint:
        paint(_first(request, config), StepClock(bench.device))
        row.warm_up = perf_counter() - start
        begin_peak(bench.device)
        while row.wants_more and (not row.runs or perf_counter() < bench.deadline):
            count(row, paint, request, bench.device)
        row.peak = peak(bench.device)


def _take_turns(bench: Bench, rows: Sequence[Row]) -> None:
    """One run of each row after the other, several times: a machine that does other work, too, is
    then as slow for one as for another.
    """
    with ExitStack() as stack:
        painters = [stack.enter_context(bench.model.painter(config)) for config in bench.configs]
        turns = list(zip(bench.configs, rows, painters, strict=True))
        for config, row, paint in turns:
            start = perf_counter()
            paint(
                _first(_of_level(bench.request, config), config),
                StepClock(bench.device),
            )
            row.warm_up = perf_counter() - start
        for _ in range(RUNS):
            for config, row, paint in turns:
                count(row, paint, _of_level(bench.request, config), bench.device)
    for row in rows:
        _tell(bench, row)


def _of_level(request: EditRequest, config: Configuration) -> EditRequest:
    return replace(request, acceleration=config.level) if config.level else request


def _first(request: EditRequest, config: Configuration) -> EditRequest:
    """A level's steps differ, so it is warmed up by all of them."""
    if config.level is not None:
        return request
    return replace(request, num_inference_steps=min(_WARM_STEPS, request.num_inference_steps))


def _tell(bench: Bench, row: Row) -> None:
    runs = ", ".join(f"{run.total:.2f}" for run in row.runs)
    warm = "" if row.warm_up is None else f"first {row.warm_up:.1f} s, then {runs} s"
    bench.say(f"{row.title}: {row.problem or warm}")
    bench.save()


def _save(report: Report, folder: Path | None, say: Say | None = None) -> None:
    """Writes the JSON file after every row, so that an interrupted run leaves its rows; at the end
    the plot as well.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(report, folder / "bench.json")
        if say is not None:
            plot(report).save(folder / "bench.png")
            say(f"wrote {folder / 'bench.json'} and bench.png")
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {error.strerror}. Choose --out.") from error
