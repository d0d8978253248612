"""Progress in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from torch import Tensor


class TerminalProgress:
    """A ProgressSink on stderr; use it in a `with`. Ctrl+C interrupts by itself."""

    def __init__(self) -> None:
        self._bar = tqdm(unit="step", dynamic_ncols=True)

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        if value < self._bar.n:  # a new edit of the same run
            self._bar.reset()
        self._bar.total = total
        self._bar.update(value - self._bar.n)

    def status(self, text: str) -> None:
        self._bar.set_description(text)

    def check_interrupted(self) -> None:
        """Nothing to do: Python turns Ctrl+C into KeyboardInterrupt wherever the run is."""
