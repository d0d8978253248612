"""The quality gate's tables and its file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.quality_runs import Results
from benchmarks.quality_scores import Row, Sample, Spread, summary
from onereward_pack.nodes.contracts import EditTask

HEAD = (
    *("variant", "time", "dB to none: mean / worst tenth / worst"),
    *("fewer steps at equal time", "lead, dB: mean / worst tenth"),
    *("sharpness", "task score", "verdict"),
)
TASKS = tuple(task.value for task in EditTask)


def table(rows: Sequence[Row]) -> str:
    """Markdown, one line per variant."""
    return _markdown(HEAD, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    rival, lead = "-", "-"
    if row.rival is not None and row.leads is not None and row.lead is not None:
        steps = "/".join(str(count) for count in row.rival_steps)
        rival = f"{_decibels(row.rival)} ({steps} steps)"
        lead = f"{row.leads[0]:+.1f} +- {row.lead[1]:.1f} / {row.leads[1]:+.1f}"
    return (
        *(row.variant, f"{row.cost:.2f}", _decibels(row.psnr), rival, lead),
        f"{row.sharpness:+.1f}",
        f"{row.score[0]:+.1f} +- {row.score[1]:.1f}",
        row.verdict,
    )


def _decibels(spread: Spread) -> str:
    return f"{spread.mean:.1f} / {spread.tenth:.1f} / {spread.worst:.1f}"


def none_table(full: Sequence[Sample]) -> str:
    """Markdown: how good none itself is, by task."""
    lines = []
    for task in TASKS:
        own = [sample for sample in full if sample.task == task]
        scores = [sample.score for sample in own if sample.score is not None]
        hits = [sample.hit for sample in own if sample.hit is not None]
        if own:
            lines.append(
                (
                    *(task, str(len(own)), f"{statistics.fmean(s.share for s in own):.2f}"),
                    f"{100 * statistics.fmean(scores):.1f}" if scores else "-",
                    f"{sum(hits)} of {len(hits)}" if hits else "-",
                    f"{statistics.fmean(s.truth for s in own):.1f}",
                    f"{statistics.median(s.texture for s in own):.2f}",
                )
            )
    head = ("none", "scenes", "mask", "task score", "as asked", "dB to the truth", "texture")
    return _markdown(head, lines)


def task_table(results: Results) -> str:
    """Markdown: dB to none and the lead in dB, by task."""
    lines = []
    for name, samples in results.variants.items():
        cells = [name]
        for task in TASKS:
            picked = [i for i, sample in enumerate(samples) if sample.task == task]
            if not picked:
                cells.append("-")
                continue
            row = summarise(results, name, picked)
            lead = "" if row.leads is None else f" ({row.leads[0]:+.1f})"
            cells.append(f"{row.psnr.mean:.1f}{lead}")
        lines.append(tuple(cells))
    return _markdown(("dB to none (lead)", *TASKS), lines)


def summarise(results: Results, name: str, picked: Sequence[int] | None = None) -> Row:
    """A variant's row, of all scenes or of those with the picked places in the lists."""

    def pick(samples: list[Sample]) -> list[Sample]:
        return samples if picked is None else [samples[i] for i in picked]

    rivals = results.rivals.get(name)
    return summary(
        name,
        pick(results.variants[name]),
        pick(results.full),
        None if rivals is None else pick(rivals),
    )


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


def write(path: Path, facts: dict[str, Any], rows: Sequence[Row], results: Results) -> None:
    """Everything as JSON: the rows, and every picture's sample."""
    content = facts | {
        "clock": results.clock,
        "repeats": results.repeats,
        "rows": [asdict(row) for row in rows],
        "none": [asdict(sample) for sample in results.full],
        "variants": _as_dicts(results.variants),
        "rivals": _as_dicts(results.rivals),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _as_dicts(samples: dict[str, list[Sample]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [asdict(sample) for sample in own] for name, own in samples.items()}
