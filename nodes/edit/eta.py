"""How fast each backend was since the program started, so that a plan can say how long it takes."""

from __future__ import annotations

import math
import statistics
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable

from ..canvas.geometry import Crop
from ..canvas.sizes import MEGAPIXEL

RUNS = 8  # of each backend at each acceleration
BACKENDS = 32


class Pace:
    """The latest runs of the latest backends. Safe to use from several threads."""

    def __init__(self) -> None:
        self._rates: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, backend_name: str, acceleration: str, work: float, seconds: float) -> None:
        """A run of that much work took so long; one without work tells nothing."""
        if not (0 < work < math.inf and 0 < seconds < math.inf):
            return
        with self._lock:
            key = backend_name, acceleration
            rates = self._rates.setdefault(key, deque(maxlen=RUNS))
            rates.append(seconds / work)
            self._rates.move_to_end(key)
            if len(self._rates) > BACKENDS:
                self._rates.popitem(last=False)

    def seconds(self, backend_name: str, acceleration: str, work: float) -> float | None:
        """About how long that much work takes; None for a backend that has not run so yet."""
        with self._lock:
            rates = list(self._rates.get((backend_name, acceleration), ()))
        # The lower middle: of two runs the second counts, since the first also loaded the model.
        return statistics.median_low(rates) * work if rates else None


_PACE = Pace()
note = _PACE.note
seconds = _PACE.seconds


def work(crops: Iterable[Crop], num_images: int, steps: int, cfg: float) -> float:
    """What a backend has to do, in megapixels times passes: the unit of note() and seconds()."""
    passes = 2 if cfg > 1 else 1
    pixels = sum(crop.size[0] * crop.size[1] for crop in crops)
    return pixels / MEGAPIXEL * steps * passes * num_images
