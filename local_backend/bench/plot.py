"""The benchmark as a bar chart."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .configurations import REFERENCE
from .report import Report, figures

_WIDTH, _MARGIN, _BAR, _GAP = 1280, 32, 40, 14
_HEAD, _FOOT = 108, 44
_VALUES = 250  # room for the figures right of the longest bar
_INK, _FAINT, _PAPER = (30, 30, 34), (110, 110, 118), (255, 255, 255)
_COLORS = {"plain": (150, 150, 158), "ours": (47, 111, 190)}
_TITLE, _TEXT, _SMALL = (ImageFont.load_default(size) for size in (26, 20, 16))


def plot(report: Report) -> Image.Image:
    """A bar of seconds for every row that was measured; the others are named with their reason."""
    rows = figures(report)
    sheet = Image.new("RGB", (_WIDTH, _HEAD + len(rows) * (_BAR + _GAP) + _FOOT), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title, _, where = report.title.partition(", on ")
    draw.text((_MARGIN, 18), _cut(draw, title, _TITLE), fill=_INK, font=_TITLE)
    draw.text((_MARGIN, 56), _subtitle(report, where), fill=_FAINT, font=_TEXT)
    left = 2 * _MARGIN + max(int(draw.textlength(row["words"], _TEXT)) for row in rows)
    longest = max((row["total"] or 0.0 for row in rows), default=0.0)
    room = _WIDTH - left - _VALUES - _MARGIN
    for index, row in enumerate(rows):
        top = _HEAD + index * (_BAR + _GAP)
        middle = top + _BAR // 2
        draw.text((left - _MARGIN // 2, middle), row["words"], _INK, _TEXT, anchor="rm")
        if row["total"] is None:
            title = _cut(draw, row["problem"] or "not measured", _SMALL, left)
            draw.text((left, middle), title, _FAINT, _SMALL, anchor="lm")
            continue
        length = max(2, round(room * row["total"] / longest))
        color = _COLORS["plain" if row["name"] == REFERENCE else "ours"]
        draw.rectangle((left, top, left + length, top + _BAR), fill=color)
        draw.text((left + length + 10, middle), _value(row), _INK, _TEXT, anchor="lm")
    foot = "python -m local_backend bench"
    if report.compared_with:
        foot += f"      x: times as fast as the row {report.compared_with}"
    draw.text((_MARGIN, sheet.height - 32), foot, fill=_FAINT, font=_SMALL)
    return sheet


def _subtitle(report: Report, where: str) -> str:
    torch = report.machine["torch"]
    return f"{where}, torch {torch}; seconds a picture, shorter is better"


def _value(row: dict[str, Any]) -> str:
    seconds = f"{row['total']:.2f} s"
    return seconds if row["ratio"] is None else f"{seconds}   {row['ratio']:.2f}x"


def _cut(draw: ImageDraw.ImageDraw, text: str, font: Any, left: int = _MARGIN) -> str:
    """The text, shortened to what fits right of `left`."""
    room = _WIDTH - left - _MARGIN
    while draw.textlength(text, font) > room:
        text = text[:-4].rstrip() + "..."
    return text
