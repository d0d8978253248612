"""How sizes are written: the target of a crop, and how far a picture is extended."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from ..contracts import MEGAPIXEL
from ..errors import InputError

SIDE_MIN, SIDE_MAX = 16, 16384
MEGAPIXELS_MIN, MEGAPIXELS_MAX = 0.01, 64.0
FACTOR_MAX = 16
ASPECT_MAX = 16
SIDES = ("left", "top", "right", "bottom")

TARGET_FORMS = (
    '"auto", "native", "1.5 MP" (most pixels), "1024" (longest side) or "1024x768" (width x height)'
)
EXTEND_FORMS = (
    '"256" (px on all sides), "left 256, right 128" (px per side), "1.5x" or "150%" (factor), '
    '"16:9" (aspect) or "1920x1080" (canvas)'
)

_DIGITS = r"\d{1,9}"  # more is no size, and Python refuses to read thousands of them
_NUMBER = rf"({_DIGITS}(?:[.,]\d{{1,9}})?)"  # half of the world writes 1,5
_MEGAPIXELS = re.compile(rf"{_NUMBER}\s*mp")
_SIDE = re.compile(_DIGITS)
_PIXELS = re.compile(rf"({_DIGITS})\s*(?:px)?")
_SIZE = re.compile(rf"({_DIGITS})\s*(?:px)?\s*x\s*({_DIGITS})\s*(?:px)?")
_FACTOR = re.compile(rf"{_NUMBER}\s*x")
_PERCENT = re.compile(rf"{_NUMBER}\s*%")
_ASPECT = re.compile(rf"{_NUMBER}\s*[:/]\s*{_NUMBER}")
_ONE_SIDE = re.compile(rf"(left|top|right|bottom)\s*[:=]?\s*({_DIGITS})\s*(?:px)?")


@dataclass(frozen=True)
class Target:
    """The size the model works at.

    Attributes:
        kind: "auto" (the backend's budget is the ceiling), "native" (never resized), "pixels"
            (own ceiling), "side" (longest side exactly) or "exact" (height and width).
        pixels: the ceiling in pixels; "pixels" only.
        side: the longest side in px; "side" only.
        height: in px; "exact" only.
        width: in px; "exact" only.
    """

    kind: Literal["auto", "native", "pixels", "side", "exact"]
    pixels: int = 0
    side: int = 0
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class Extension:
    """How far a picture is extended: exactly one of these is given.

    Attributes:
        sides: px to add at (left, top, right, bottom), at least one above 0.
        factor: of both sides, above 1.
        aspect: width over height of the new canvas.
        size: (width, height) of the new canvas in px.
    """

    sides: tuple[int, int, int, int] | None = None
    factor: float | None = None
    aspect: float | None = None
    size: tuple[int, int] | None = None


def parse_target(text: str) -> Target:
    """Read a target: "auto", "native", "1.5 MP", "1024" or "1024x768" (WIDTHxHEIGHT).

    One MP is 1024 x 1024 pixels. Raises InputError for anything else and for sides outside
    16..16384 px.
    """
    plain = _normalised(text)
    if plain == "auto":
        return Target("auto")
    if plain == "native":
        return Target("native")
    if match := _MEGAPIXELS.fullmatch(plain):
        return Target("pixels", pixels=_megapixels(match[1], text))
    if match := _SIDE.fullmatch(plain):
        return Target("side", side=_side(match[0], "Target", text))
    if match := _SIZE.fullmatch(plain):
        width, height = (_side(side, "Target", text) for side in match.groups())
        return Target("exact", height=height, width=width)
    raise InputError(f"Target {text!r} is not understood. Use {TARGET_FORMS}.")


def parse_extend(text: str) -> Extension:
    """Read an extension: "256", "left 256, right 128", "1.5x" or "150%", "16:9" or "1920x1080".

    Raises InputError for anything else, for one that adds nothing, and for sides above 16384 px.
    """
    plain = _normalised(text)
    if match := _PIXELS.fullmatch(plain):
        return _sides(dict.fromkeys(SIDES, match[1]), text)
    if match := _SIZE.fullmatch(plain):
        return Extension(size=_canvas_size(match[1], match[2], text))
    if match := _FACTOR.fullmatch(plain):
        return Extension(factor=_factor(_float(match[1]), text))
    if match := _PERCENT.fullmatch(plain):
        return Extension(factor=_factor(_percent(match[1], text), text))
    if match := _ASPECT.fullmatch(plain):
        return Extension(aspect=_aspect(match[1], match[2], text))
    return _sides(_named_sides(plain, text), text)


def _normalised(text: str) -> str:
    """One way to write what is written in several: full-width signs, as Chinese and Japanese
    keyboards give them, and the signs of multiplication and ratio, which are often pasted.
    """
    plain = unicodedata.normalize("NFKC", text).strip().lower()
    return plain.replace("\u00d7", "x").replace("\u2236", ":").replace("\u3001", ",")


def _float(number: str) -> float:
    return float(number.replace(",", "."))


def _canvas_size(width: str, height: str, text: str) -> tuple[int, int]:
    wide, high = int(width), int(height)
    # Not taken as an aspect: then 15x15 would be one, and 16x16 a canvas.
    if 0 < min(wide, high) < SIDE_MIN:
        raise InputError(
            f"Extend {text!r} is a canvas with a side of {min(wide, high)} px, which is out of "
            f"range. Use {SIDE_MIN} to {SIDE_MAX} px or, if you mean the aspect, {wide}:{high}."
        )
    return _side(width, "Extend", text), _side(height, "Extend", text)


def _percent(number: str, text: str) -> float:
    percent = _float(number)
    if 0 < percent <= 100:
        raise InputError(
            f"Extend {text!r} is out of range: the percentage is the new size, so use more than "
            f"100%. To add {percent:g} %, write {100 + percent:g}%."
        )
    return percent / 100


def _side(digits: str, name: str, text: str) -> int:
    side = int(digits)
    if not SIDE_MIN <= side <= SIDE_MAX:
        raise InputError(
            f"{name} {text!r}: a side of {side} px is out of range. "
            f"Use {SIDE_MIN} to {SIDE_MAX} px, such as 1024."
        )
    return side


def _megapixels(number: str, text: str) -> int:
    megapixels = _float(number)
    if not MEGAPIXELS_MIN <= megapixels <= MEGAPIXELS_MAX:
        raise InputError(
            f"Target {text!r} is out of range. "
            f"Use {MEGAPIXELS_MIN:g} MP to {MEGAPIXELS_MAX:g} MP, such as 1.5 MP."
        )
    return int(megapixels * MEGAPIXEL)


def _factor(factor: float, text: str) -> float:
    if not 1 < factor <= FACTOR_MAX:
        raise InputError(
            f"Extend {text!r} is out of range. "
            f"Use a factor above 1 and at most {FACTOR_MAX}, such as 1.5x."
        )
    return factor


def _aspect(width: str, height: str, text: str) -> float:
    sides = _float(width), _float(height)
    if min(sides) == 0 or max(sides) > ASPECT_MAX * min(sides):
        raise InputError(
            f"Extend {text!r} is out of range. "
            f"Use an aspect from 1:{ASPECT_MAX} to {ASPECT_MAX}:1, such as 16:9."
        )
    return sides[0] / sides[1]


def _named_sides(plain: str, text: str) -> dict[str, str]:
    sides: dict[str, str] = {}
    for side in plain.split(","):
        match = _ONE_SIDE.fullmatch(side.strip())
        if match is None:
            raise InputError(f"Extend {text!r} is not understood. Use {EXTEND_FORMS}.")
        if match[1] in sides:
            raise InputError(f"Extend {text!r} names {match[1]} twice. Give each side once.")
        sides[match[1]] = match[2]
    return sides


def _sides(digits: dict[str, str], text: str) -> Extension:
    left, top, right, bottom = (int(digits.get(name, 0)) for name in SIDES)
    longest = max(left, top, right, bottom)
    if longest == 0:
        raise InputError(f"Extend {text!r} adds nothing. Give at least one side above 0 px.")
    if longest > SIDE_MAX:
        raise InputError(f"Extend {text!r} is too far. Use at most {SIDE_MAX} px per side.")
    return Extension(sides=(left, top, right, bottom))
