"""The levels of acceleration: how much velocity forecasting and masked-token attention each uses.

A level and its numbers are this pack's own. The numbers were chosen on the preview model, on scenes
other than those that tests/benchmarks/quality.py judges them by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# (until this share of the steps, the model runs at one step in so many)
Gaps = tuple[tuple[float, int], ...]
EVERY_STEP: Gaps = ((1.0, 1),)


@dataclass(frozen=True, kw_only=True)
class Level:
    """How much of the reference's work is done; step_schedule.py makes a schedule of it.

    Attributes:
        gaps: where the model runs, in terms of a run of 28 steps, when all tokens are computed. At
            the steps between, the guided velocity is extrapolated.
        masked_gaps: the same when only the masked tokens are computed, but for refreshes. None: all
            tokens, always.
        masked_below: the masked tokens alone are computed where that costs less than this share of
            the steps of all tokens.
        refresh: with masked_gaps, one in so many runs of the model computes all tokens.
        halo: tokens around the masked ones that are computed with them.
        drift: the share of their last change that cached keys and values go on with, 0 to 1.
    """

    gaps: Gaps = EVERY_STEP
    masked_gaps: Gaps | None = None
    masked_below: float = 1.0
    refresh: int = 4
    halo: int = 1
    drift: float = 0.5


NONE = Level()
# The velocity turns fast at first, hardly in the middle, and a little at the end.
_THIRTEEN: Gaps = ((0.27, 1), (0.30, 2), (0.40, 3), (0.55, 4), (1.0, 5))
_ELEVEN: Gaps = ((0.17, 1), (0.30, 2), (0.40, 3), (0.55, 4), (1.0, 5))
_TEN: Gaps = ((0.12, 1), (0.30, 2), (0.40, 3), (0.55, 4), (1.0, 6))
LEVELS: Mapping[str, Level] = {
    "none": NONE,
    "regular": Level(gaps=_THIRTEEN, masked_gaps=_THIRTEEN, masked_below=0.62, refresh=3),
    "high": Level(gaps=_TEN, masked_gaps=_ELEVEN, masked_below=0.7, refresh=4),
}
