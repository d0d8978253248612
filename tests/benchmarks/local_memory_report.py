"""What was measured on a card, and the table of all cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from onereward_pack.local_backend.offload.memory_plan import GB

HEAD = (
    *("card", "predicted", "allocated", "reserved"),
    *("first s", "encode", "denoise", "decode", "s/step", "ratio", "new prompt", "table"),
    *("max diff", "rel rms", "locked", "retries", "plan"),
)


@dataclass
class Row:
    """What was measured on a card; bytes and seconds. None: not known here.

    Attributes:
        predicted, allocated, reserved: peaks: the plan's, and torch's over all three runs.
        first: of the first picture, everything loaded on the way.
        stages, step: of the second picture, and of one of its steps.
        ratio: of the second picture's time to the reference's.
        new_prompt, table: until a new prompt is encoded, and until its modulation is worked out.
        difference, relative: largest and root mean square, of the latents to the reference's.
        page_locked: whether streamed blocks lie in page-locked memory.
        retries: how often torch had to let go of what it kept for later to find room.
        left_behind: what was in use after unloading.
    """

    card: str
    plan: str = ""
    predicted: int | None = None
    allocated: int | None = None
    reserved: int | None = None
    first: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    step: float | None = None
    ratio: float | None = None
    new_prompt: float | None = None
    table: float | None = None
    difference: float | None = None
    relative: float | None = None
    page_locked: bool | None = None
    retries: int = 0
    left_behind: int = 0
    said: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def table(rows: Sequence[Row]) -> str:
    """Bytes in GB, or in MB where they are small; seconds."""
    large = any((row.allocated or 0) > GB for row in rows)
    unit, name = (GB, "GB") if large else (10**6, "MB")
    lines = [HEAD] + [_cells(row, unit) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD) - 1)]
    text = "\n".join(
        "  ".join([*(c.rjust(w) for c, w in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )
    return f"bytes in {name}, seconds of the second picture\n{text}"


def _cells(row: Row, unit: int) -> tuple[str, ...]:
    memory = [_number(b and b / unit, ".2f") for b in (row.predicted, row.allocated, row.reserved)]
    stages = [_number(row.stages.get(s), ".2f") for s in ("encode", "denoise", "decode")]
    rest = (
        _number(row.step, ".3f"),
        _number(row.ratio, ".2f"),
        _number(row.new_prompt, ".2f"),
        _number(row.table, ".2f"),
        _number(row.difference, ".1e"),
        _number(row.relative, ".1e"),
        {None: "-", True: "yes", False: "no"}[row.page_locked],
        str(row.retries),
    )
    return (row.card, *memory, _number(row.first, ".1f"), *stages, *rest, row.plan)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def machine(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {"torch": torch.__version__, "memory": psutil.virtual_memory().total}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"device": properties.name, "device memory": properties.total_memory}
    return facts
