"""What the user sets about masks, crops and seams."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .sizes import parse_target

MIN_GROW, MAX_GROW = -512, 512
MIN_BLEND, MAX_BLEND = 0, 512
MIN_CONTEXT, MAX_CONTEXT = 1.0, 16.0
MIN_SEAM, MAX_SEAM = 0.0, 1.0
REGION_CHOICES = ("per region", "one crop")
KEEP_ALPHA, ALPHA_FROM_BLEND = "keep", "from blend"
ALPHA_CHOICES = (KEEP_ALPHA, ALPHA_FROM_BLEND)


@dataclass(frozen=True)
class CanvasOptions:
    """How masks, crops and seams are treated. All lengths are pixels of the source picture.

    Raises InputError for a value out of range.

    Attributes:
        grow: the painted area grows by this, -512..512; negative shrinks it.
        blend: width of the feather outside the grown area, 0..512; 0 is a hard edge.
        context: the crop's size as a factor of the mask's, 1..16.
        target: the size the model works at, as `sizes.parse_target` reads it.
        regions: one of REGION_CHOICES; whether areas far apart get a crop each.
        seam: strength of the seam correction, 0..1.
        clean: values from 0.1 count as painted and pinholes are filled (see masks.pinholes); else
            values from 0.5 count and every hole stays.
        invert: what is not masked is painted.
        alpha: one of ALPHA_CHOICES; ALPHA_FROM_BLEND makes a picture with alpha opaque where it is
            repainted, by the blend.
    """

    grow: int = 8  # Remove uses 12, see edit.plan.default_canvas
    blend: int = 16
    context: float = 1.5
    target: str = "auto"
    regions: str = REGION_CHOICES[0]
    seam: float = 1.0
    clean: bool = True
    invert: bool = False
    alpha: str = KEEP_ALPHA

    def __post_init__(self) -> None:
        _check("Grow", self.grow, MIN_GROW, MAX_GROW, " px")
        _check("Blend", self.blend, MIN_BLEND, MAX_BLEND, " px")
        _check("Context", self.context, MIN_CONTEXT, MAX_CONTEXT)
        _check("Seam", self.seam, MIN_SEAM, MAX_SEAM)
        parse_target(self.target)
        _check_choice("Regions", self.regions, REGION_CHOICES)
        _check_choice("Alpha", self.alpha, ALPHA_CHOICES)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        known = " or ".join(f'"{choice}"' for choice in choices)
        raise InputError(f"{name} {value!r} is unknown. Use {known}.")


def _check(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    if not low <= value <= high:  # also true of NaN
        raise InputError(f"{name} {value:g} is out of range. Use {low:g} to {high:g}{unit}.")
