"""A plan in one line of words, and what the user should know besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EMPTY = "The mask is empty: the picture goes through untouched, at no cost."
HAS_SHAPE = "The picture has this shape already: it goes through untouched, at no cost."
WITH_ARTICLE = ("preview", "model")  # kinds of backends whose names are words
PAID = "fal"


def plan_words(plan: Mapping[str, Any], note: str = "") -> str:
    """Such as "2 crops, 0.52 MP, 2 jobs on fal, about $0.019, about 4 s".

    Args:
        plan: see planning.make_plan.
        note: what must be known of the backend wherever it is named.
    """
    the = "the " if plan["kind"] in WITH_ARTICLE else ""
    name = f"{the}{plan['backend']}" + (f" ({note})" if note else "")
    steps = [_count(plan["steps"], "step")] if plan["steps"] > 1 else []
    price = [money(plan["price"])] if plan["kind"] == PAID else []
    time = [] if plan["seconds"] is None else [duration(plan["seconds"])]
    jobs = f"{_count(plan['jobs'], 'job')} on {name}"
    crops = _count(len(plan["crops"]), "crop")
    return ", ".join([*steps, crops, f"{plan['megapixels']:.2f} MP", jobs, *price, *time])


def money(price: float | None) -> str:
    """US dollars in words."""
    if price is None:
        return "price unknown"
    if price == 0:
        return "free"
    return "under $0.001" if 0 < price < 0.001 else f"about ${price:.3f}"


def duration(seconds: float) -> str:
    """A time in words, no more exact than it is known."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def batch_note(pictures: int) -> str:
    """What is shown of several pictures; nothing for one."""
    if pictures < 2:
        return ""
    return f"{pictures} pictures: the first one's crops are shown, the numbers are for all."


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
