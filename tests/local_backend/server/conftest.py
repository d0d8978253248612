"""What the tests of the server share."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock that says when something expires on by so many seconds."""
    real, ahead = time.time, 0.0

    def set_on(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    return set_on
