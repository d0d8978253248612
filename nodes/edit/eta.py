"""Throughput of each backend since the program started, which gives an estimate its ETA."""

from __future__ import annotations

import math
import statistics
import threading
from collections import OrderedDict, deque

from ..contracts import MEGAPIXEL

RUNS = 8  # of each backend at each acceleration
BACKENDS = 32


class ThroughputLog:
    """The latest runs of the latest backends. Safe to use from several threads."""

    def __init__(self) -> None:
        self._rates: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, backend_name: str, acceleration: str, passes: float, seconds: float) -> None:
        """A run of so many megapixel passes took so long; one of none is left out."""
        if not (0 < passes < math.inf and 0 < seconds < math.inf):
            return
        with self._lock:
            key = backend_name, acceleration
            rates = self._rates.setdefault(key, deque(maxlen=RUNS))
            rates.append(seconds / passes)
            self._rates.move_to_end(key)
            if len(self._rates) > BACKENDS:
                self._rates.popitem(last=False)

    def seconds(self, backend_name: str, acceleration: str, passes: float) -> float | None:
        """About how long so many megapixel passes take; None for a backend that has not run so."""
        with self._lock:
            rates = list(self._rates.get((backend_name, acceleration), ()))
        # The lower middle: of two runs the second counts, since the first also loaded the model.
        return statistics.median_low(rates) * passes if rates else None


_LOG = ThroughputLog()
record = _LOG.record
seconds = _LOG.seconds


def megapixel_passes(pixels: int, steps: int, cfg: float) -> float:
    """What a backend has to compute: megapixels times passes through the model.

    Args:
        pixels: of all crops of all images, as the model sees them.
        cfg: above 1, each step is two passes.
    """
    return pixels / MEGAPIXEL * steps * (2 if cfg > 1 else 1)
