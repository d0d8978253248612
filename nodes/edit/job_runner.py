"""Makes the calls of an edit to its backend: one after the other, or several at once if remote."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..contracts import Backend, EditRequest, EditResult, ProgressSink
from ..errors import (
    BalanceError,
    CredentialsError,
    InputError,
    JournalError,
    OneRewardError,
    PartialFailureError,
    RemoteError,
)

if TYPE_CHECKING:
    from torch import Tensor

# What fails one job for these reasons fails all of them.
HOPELESS = (BalanceError, CredentialsError, InputError, JournalError)
STATUS_TEXTS = 4  # of as many jobs the line says what they do


@dataclass(frozen=True)
class BackendCall:
    """One crop job on its way: what the user calls it, its request when needed, its progress."""

    name: str
    request: Callable[[], EditRequest]
    progress: ProgressSink


def run_calls(
    backend: Backend, calls: Sequence[BackendCall], progress: ProgressSink
) -> Iterator[EditResult | OneRewardError]:
    """Each call's result, in the order of the calls.

    A remote backend works on several at once. There, a call that fails gives its error instead, and
    the others go on: they may be paid for already. A local backend's error is raised at once.
    """
    if backend.capabilities.remote:
        yield from _side_by_side(backend, calls, progress)
        return
    for call in calls:
        progress.check_interrupted()
        yield backend.run(call.request(), call.progress)


def failure_of(errors: dict[str, OneRewardError], total: int, seed: int) -> OneRewardError:
    """One error that says what became of `total` jobs, of which those in `errors` failed.

    Args:
        seed: the edit's; the widget may hold another one by now.
    """
    if total == 1:
        [error] = errors.values()
        if isinstance(error, RemoteError):
            error.seed = seed
        return error
    lines = [f"{len(errors)} of {total} jobs failed:"]
    lines += [f"- {name}: {error}" for name, error in errors.items()]
    paid = total - len(errors)
    if paid:
        lines.append(
            f"The other {paid} are paid for and kept: run the same again, with seed {seed}, and "
            "only what failed is sent."
        )
    elif any(isinstance(e, RemoteError) and e.may_be_billed for e in errors.values()):
        lines.append(f"Run the same again, with seed {seed}, to collect what was paid for.")
    return PartialFailureError("\n".join(lines), errors)


def _side_by_side(
    backend: Backend, calls: Sequence[BackendCall], progress: ProgressSink
) -> Iterator[EditResult | OneRewardError]:
    limit = backend.capabilities.parallel_jobs
    shared = SharedProgress(progress)
    board = StatusBoard(shared, len(calls))
    hopeless = threading.Event()

    def run(number: int, call: BackendCall) -> EditResult | OneRewardError:
        try:
            shared.check_interrupted()
            if hopeless.is_set():
                return OneRewardError("Not sent, for the same reason as the job before it.")
            sink = JobProgress(shared, board, number, call.progress)
            return backend.run(call.request(), sink)
        except OneRewardError as error:
            if isinstance(error, HOPELESS):
                hopeless.set()
            return error
        except BaseException as error:  # an interruption, or a fault of our own: begin nothing more
            shared.stop(error)
            raise
        finally:
            board.done(number)

    waiting: deque[Future[EditResult | OneRewardError]] = deque()
    with ThreadPoolExecutor(limit, thread_name_prefix="onereward") as pool:
        try:
            for number, call in enumerate(calls):
                # Finished results wait for their turn in memory: a slow job holds back a few only.
                if len(waiting) == 2 * limit:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(run, number, call))
            while waiting:
                yield waiting.popleft().result()
        except BaseException as error:  # an interruption: the other threads must stop too
            shared.stop(error)
            raise


class Bar:
    """One bar of several shares of the same size, which may move at the same time."""

    def __init__(self, sink: ProgressSink, shares: int) -> None:
        self._sink, self._lock = sink, threading.Lock()
        self._done, self._finest = [0.0] * shares, 1

    def step(self, share: int, value: int, total: int, preview: Tensor | None = None) -> None:
        """`value` of `total` steps of that share are done."""
        with self._lock:
            self._done[share] = value / total
            self._finest = max(self._finest, total)
            whole = round(sum(self._done) * self._finest)
            self._sink.step(whole, len(self._done) * self._finest, preview)


class SharedProgress:
    """One sink for several threads: an interruption that one of them meets reaches all."""

    def __init__(self, sink: ProgressSink) -> None:
        self._sink, self._lock = sink, threading.Lock()
        self._stopped: BaseException | None = None

    def stop(self, error: BaseException) -> None:
        self._stopped = self._stopped or error

    def status(self, text: str) -> None:
        with self._lock:
            self._sink.status(text)

    def check_interrupted(self) -> None:
        with self._lock:
            if self._stopped is not None:
                raise self._stopped
            try:
                self._sink.check_interrupted()
            except BaseException as error:
                self.stop(error)
                raise


class JobProgress:
    """One job's progress: its texts go to the board, its steps to its share of the bar."""

    def __init__(
        self, shared: SharedProgress, board: StatusBoard, number: int, share: ProgressSink
    ) -> None:
        self._shared, self._board, self._number, self._share = shared, board, number, share

    def step(self, value: int, total: int, preview: object = None) -> None:
        self._share.step(value, total)

    def status(self, text: str) -> None:
        self._board.update(self._number, text)

    def check_interrupted(self) -> None:
        self._shared.check_interrupted()


class StatusBoard:
    """One line for the user about many jobs."""

    def __init__(self, shared: SharedProgress, total: int) -> None:
        self._shared, self._total, self._done = shared, total, 0
        self._texts: dict[int, str] = {}
        self._lock = threading.Lock()

    def update(self, number: int, text: str) -> None:
        with self._lock:
            self._texts[number] = text
            line = text if self._total == 1 else self._line()
        self._shared.status(line)

    def done(self, number: int) -> None:
        with self._lock:
            self._texts.pop(number, None)
            self._done += 1

    def _line(self) -> str:
        texts = [f"{n + 1}: {text}" for n, text in sorted(self._texts.items())[:STATUS_TEXTS]]
        return " | ".join([f"{self._done} of {self._total} done", *texts])
