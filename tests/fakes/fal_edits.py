"""Small edits on the fake fal server: run, run again, and count what was accepted."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch
from fakes.backend import Interrupted, RecordingProgress
from fakes.fal_painter import seed_colour
from fakes.fal_server import FalServer
from onereward_pack.nodes.contracts import (
    EditRecipe,
    EditRequest,
    EditResult,
    EditTask,
    FalSpec,
    ProgressSink,
)
from onereward_pack.nodes.edit.run import Edit, edit
from onereward_pack.nodes.errors import OneRewardError
from onereward_pack.nodes.fal import job, retry
from onereward_pack.nodes.fal.backend import FalBackend
from onereward_pack.nodes.fal.cancellation import Cancellation
from onereward_pack.nodes.fal.endpoints import Server
from torch import Tensor

SIZE = (32, 48)


TOO_LONG = 20.0  # seconds; far more than any of these runs takes


class Watched(RecordingProgress):
    """Ends a run that would never end: a test that waits for ever says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._end = time.monotonic() + TOO_LONG

    def check_interrupted(self) -> None:
        assert time.monotonic() < self._end, "the run does not end"


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; a failure if it never does."""
    watched = Watched()
    while not condition():
        watched.check_interrupted()
        time.sleep(0.005)


def hurry(monkeypatch: pytest.MonkeyPatch, factor: float = 10.0) -> None:
    """Pauses between questions take a `factor`th of their time, and patience is short."""
    sleep = Cancellation.sleep
    monkeypatch.setattr(Cancellation, "sleep", lambda self, seconds: sleep(self, seconds / factor))
    monkeypatch.setattr(retry, "PATIENCE", 0.15)
    monkeypatch.setattr(job, "SETTLING", 0.3)


def server_of(fal: FalServer, **more: Any) -> Server:
    """The fake as the server "fal", which sends bills."""
    return Server("fal", fal.url, fal.url, fal.url + "/v1", **{"priced": True, **more})


def backend_of(fal: FalServer, folder: Path, **spec: Any) -> FalBackend:
    """What one run of a node uses: the journal in `folder` is what outlives it."""
    return FalBackend(FalSpec(**spec), server_of(fal), lambda: fal.key, folder)


def small_request(seed: int = 5, prompt: str = "a dog") -> EditRequest:
    """A grey picture whose square from (8, 8) to (24, 24) is to be painted."""
    mask = torch.zeros(1, *SIZE)
    mask[:, 8:24, 8:24] = 1
    recipe = EditRecipe(task=EditTask.FILL, prompt=prompt, seed=seed)
    return recipe.on(torch.full((1, *SIZE, 3), 90 / 255), mask, seed=seed, num_images=1)


@dataclass(frozen=True)
class Attempt:
    """How one run ended: with a result or with an error of the pack; anything else is raised."""

    result: EditResult | None
    error: OneRewardError | None
    seconds: float

    @property
    def painted(self) -> bool:
        """The picture is there, in the colour of the request's own seed."""
        return self.result is not None and is_painted(self.result)

    @property
    def told(self) -> str:
        """All that a user or a log could see of the error."""
        return "".join(traceback.format_exception(self.error)) + repr(self.error)


def attempt(
    fal: FalServer,
    folder: Path,
    request: EditRequest | None = None,
    progress: ProgressSink | None = None,
    **spec: Any,
) -> Attempt:
    """One run of a node: a new backend, admitted and run."""
    request, start = request or small_request(), time.monotonic()
    result, error = None, None
    try:
        result = run(backend_of(fal, folder, **spec), request, progress)
    except OneRewardError as raised:
        error = raised
    return Attempt(result, error, time.monotonic() - start)


def run(
    backend: FalBackend, request: EditRequest, progress: ProgressSink | None = None
) -> EditResult:
    """What edit() does with one request."""
    progress = progress or Watched()
    backend.admit([request], progress)
    return backend.run(request, progress)


def is_painted(result: EditResult, seed: int = 5) -> bool:
    """The masked square has the fake model's colour for that seed."""
    found = result.images[0, 8:24, 8:24].mul(255).round()
    return bool((found == torch.tensor(seed_colour(seed))).all())


def pictures(count: int) -> Tensor:
    """Different pictures, so that no two of their jobs are the same."""
    return torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(3))


def edit_pictures(
    fal: FalServer, folder: Path, count: int, progress: ProgressSink | None = None, **spec: Any
) -> Edit:
    """An edit of `count` pictures, one job each; the same again for the same count."""
    mask = torch.zeros(1, 64, 64)
    mask[:, 24:40, 24:40] = 1
    recipe = EditRecipe(task=EditTask.FILL, prompt="a dog", seed=5)
    backend = backend_of(fal, folder, **spec)
    return edit(pictures(count), mask, recipe, None, backend, progress or Watched())


def clear(fal: FalServer, phase: str) -> None:
    """Take back the faults of that phase that have not struck."""
    while fal.take_fault(phase) is not None:
        pass


class Cancelling(Watched):
    """A sink whose user presses Cancel once `condition` holds; `moment` is when.

    A context manager: a thread of its own watches, so that `moment` does not depend on how often
    the sink is asked.
    """

    def __init__(self, condition: Callable[[], object]) -> None:
        super().__init__()
        self.moment: float | None = None
        self._condition = condition
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> Cancelling:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watcher.join()

    def check_interrupted(self) -> None:
        if self.moment is not None:
            raise Interrupted
        super().check_interrupted()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            if self._condition():
                self.moment = time.monotonic()
                return
