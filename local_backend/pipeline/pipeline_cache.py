"""The cache of the last pipeline: built once, used by one run at a time, evicted for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from .onereward import OneRewardPipeline


class PipelineCache:
    """Holds at most one pipeline, and lets one run at a time use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._key: Hashable = None
        self._pipeline: OneRewardPipeline | None = None

    @contextmanager
    def pipeline(
        self, key: Hashable, build: Callable[[], OneRewardPipeline]
    ) -> Iterator[OneRewardPipeline]:
        """The pipeline of this key, built if it is not the one held, for this block alone."""
        with self._lock:
            if self._pipeline is None or key != self._key:
                self.unload()
                self._pipeline, self._key = build(), key
            yield self._pipeline

    def unload(self) -> None:
        """Lets go of the pipeline and its prompts, after the run that uses them."""
        with self._lock:
            if self._pipeline is not None:
                self._pipeline.placement.close()
            self._pipeline = self._key = None


PIPELINE_CACHE = PipelineCache()
