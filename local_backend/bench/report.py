"""What was measured, as a table and as a file."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from ...nodes.contracts import EditRequest
from ..acceleration.step_schedule import StepKind
from ..offload.memory_plan import GB
from .configurations import BASE, REFERENCE
from .measure import STAGES, Row, masked_psnr, milliseconds
from .models_under_test import TestedModel

_PACKAGES = ("diffusers", "transformers", "accelerate")
_HEAD = (
    *("row", "first s", "encode s", "denoise s", "decode s", "total s"),
    *("times as fast", "peak GB", "PSNR in the mask, dB", "ms a step"),
)
_NO_PICTURE = (
    "THE PSNR MEANS NOTHING HERE: the weights are random, and so are the pictures. Seconds and "
    "bytes do not depend on what the weights are."
)


@dataclass(frozen=True, eq=False)
class Report:
    """What was measured, where, on what.

    Attributes:
        machine: facts about it, by what they are.
    """

    machine: dict[str, Any]
    model: TestedModel
    request: EditRequest
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        height, width = self.request.image.shape[1:3]
        return (
            f"{self.model.title}, {width}x{height}, {self.request.num_inference_steps} steps, "
            f"{100 * self.request.mask.mean().item():.0f} % masked, on {self.machine['device']}"
        )

    @property
    def compared_with(self) -> str:
        """The row that the others are timed against: the reference if it was measured."""
        measured = {row.name for row in self.rows if row.runs}
        return next((name for name in (REFERENCE, BASE) if name in measured), "")

    @property
    def notes(self) -> list[str]:
        """What is to be known of the figures."""
        notes = [
            "first: until the first picture is done, loading, compiling and first use included",
            "of several runs the one of the median total; one that takes over 8 s is run once",
            "the backend remembers prompts that it encoded before; the reference encodes them anew",
            "ms a step: the median of the kind, times how many there are",
        ]
        if self.model.together:
            notes.append("the rows took turns, and times as fast is the median of the rounds")
        return notes if self.model.painted else [_NO_PICTURE, *notes]


def machine(device: torch.device) -> dict[str, Any]:
    """What computed, and by which versions."""
    facts: dict[str, Any] = {
        "device": _name(device),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        facts["device memory"] = torch.cuda.get_device_properties(device).total_memory
        facts["cuda"] = torch.version.cuda
    facts["torch"] = torch.__version__  # with the build, which package data leaves out
    return facts | {package: version(package) for package in _PACKAGES}


def figures(report: Report) -> list[dict[str, Any]]:
    """A row's figures by name, None where there is none: seconds, bytes, dB, and the ratio of the
    compared row's total to this one's.
    """
    by_name = {row.name: row for row in report.rows}
    base, compared = by_name.get(BASE), by_name.get(report.compared_with)
    found = []
    for row in report.rows:
        middle, psnr = row.middle, None
        if row is not base and row.image is not None and base is not None:
            if base.image is not None:
                psnr = masked_psnr(row.image, base.image, report.request.mask)
        found.append(
            {
                "name": row.name,
                "words": row.title,
                "first": row.warm_up,
                **{stage: middle and middle.stages[stage] for stage in STAGES},
                "total": middle and middle.total,
                "ratio": _ratio(report, compared, row),
                "peak": row.peak,
                "psnr": psnr,
                "step_ms": middle and milliseconds(middle.steps, row.kinds),
                "steps": _counts(row.kinds),
                "runs": [run.stages for run in row.runs],
                "notes": list(row.notes),
                "problem": row.problem,
            }
        )
    return found


def _ratio(report: Report, compared: Row | None, row: Row) -> float | None:
    """How many times as fast a row is. Where rows took turns, a round's runs are compared with each
    other: the machine may have been slower in another.
    """
    if compared is None or compared.middle is None or row.middle is None:
        return None
    if not report.model.together:
        return compared.middle.total / row.middle.total
    rounds = zip(compared.runs, row.runs, strict=True)
    return median(other.total / own.total for other, own in rounds)


def table(report: Report) -> str:
    """In Markdown, with the notes below."""
    lines = [_line(_HEAD), _line(["---"] + ["---:"] * (len(_HEAD) - 2) + ["---"])]
    lines += [_line(_cells(row)) for row in figures(report)]
    compared = report.compared_with or "nothing"
    notes = [f"times as fast: against the row {compared}, in total", *report.notes]
    noted = {note: row.title for row in reversed(report.rows) for note in row.notes}
    notes += [f"{title}: {note}" for note, title in reversed(noted.items())]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def write_json(report: Report, path: Path) -> None:
    """The figures of every row, and all that they depend on."""
    request = report.request
    content = {
        "title": report.title,
        "machine": report.machine,
        "weights": report.model.title,
        "pictures mean something": report.model.painted,
        "size": request.image.shape[1],
        "steps": request.num_inference_steps,
        "masked": request.mask.mean().item(),
        "true_cfg": request.true_cfg,
        "seed": request.seed,
        "compared with": report.compared_with,
        "notes": report.notes,
        "rows": [{key: _finite(value) for key, value in row.items()} for row in figures(report)],
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def _cells(row: dict[str, Any]) -> list[str]:
    peak = None if row["peak"] is None else row["peak"] / GB
    cells = [_number(row[name], ".2f") for name in ("first", *STAGES, "total")]
    rest = [_number(row["ratio"], ".2f"), _number(peak, ".1f"), _number(row["psnr"], ".1f")]
    known = row["step_ms"] or {}
    steps = [f"{row['steps'][kind]} x {ms:.0f} {kind}" for kind, ms in known.items()]
    return [row["words"], *cells, *rest, row["problem"] or ", ".join(steps)]


def _counts(kinds: Sequence[StepKind]) -> dict[str, int]:
    return {kind.value: kinds.count(kind) for kind in StepKind}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _finite(value: Any) -> Any:
    return "infinite" if isinstance(value, float) and not math.isfinite(value) else value


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu() if device.type == "cpu" else device.type


def _cpu() -> str:
    """The CPU's model name on Linux; elsewhere its kind, as Python reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
