"""Jobs side by side: in order, not too many, stopped together, and failing one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from fakes.backend import Interrupted, RecordingProgress
from onereward_pack.nodes.contracts import (
    Capabilities,
    EditRecipe,
    EditRequest,
    EditResult,
    EditTask,
    ProgressSink,
)
from onereward_pack.nodes.edit.job_runner import (
    STATUS_TEXTS,
    BackendCall,
    Bar,
    failure_of,
    run_calls,
)
from onereward_pack.nodes.errors import (
    BalanceError,
    CredentialsError,
    InputError,
    JournalError,
    OneRewardError,
    PartialFailureError,
    RateLimitError,
    RemoteError,
)

Work = Callable[[int, ProgressSink], None]
RECIPE = EditRecipe(task=EditTask.FILL, prompt="a cat")
PIXELS = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16)


class WorkingBackend:
    """Does `work` with each job's number, which is its seed, and counts how many are at it."""

    name = "working"

    def __init__(self, work: Work, parallel: int = 3, remote: bool = True) -> None:
        self.capabilities = Capabilities(
            max_pixels=1, min_side=1, max_aspect=1, remote=remote, parallel_jobs=parallel
        )
        self.begun: list[int] = []
        self.most = 0
        self._work, self._lock, self._now = work, threading.Lock(), 0

    def check(self, recipe: EditRecipe) -> None:
        """Anything will do."""

    def admit(self, requests: object, progress: ProgressSink) -> None:
        """Any number."""

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        with self._lock:
            self.begun.append(request.seed)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self._work(request.seed, progress)
        finally:
            with self._lock:
                self._now -= 1
        flags = (False,)
        return EditResult(images=PIXELS[0], seeds=(request.seed,), has_nsfw_concepts=flags)

    def start(
        self, count: int, progress: ProgressSink | None = None
    ) -> Iterator[EditResult | OneRewardError]:
        sink = progress or RecordingProgress()
        return run_calls(self, [self.job(n, sink) for n in range(count)], sink)

    def job(self, number: int, sink: ProgressSink) -> BackendCall:
        return BackendCall(
            f"crop {number}", lambda: RECIPE.on(*PIXELS, seed=number, num_images=1), sink
        )


def seeds(results: list[EditResult | OneRewardError]) -> list[int | str]:
    return [r.seeds[0] if isinstance(r, EditResult) else type(r).__name__ for r in results]


def nothing(number: int, progress: ProgressSink) -> None:
    """Done at once."""


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("onereward")]


class Cancellable(RecordingProgress):
    """A sink that is cancelled by hand; with `once` only the first thread that asks is told."""

    def __init__(self, once: bool = False) -> None:
        super().__init__()
        self.cancelled, self.told, self._once = threading.Event(), 0, once

    def check_interrupted(self) -> None:
        if self.cancelled.is_set() and not (self._once and self.told):
            self.told += 1
            raise Interrupted


def test_results_come_in_the_order_of_the_jobs_whoever_is_done_first() -> None:
    done = [threading.Event() for _ in range(5)]
    done[4].set()
    ended: list[int] = []

    def work(number: int, progress: ProgressSink) -> None:
        assert done[number + 1].wait(10)  # the next one must be done before
        ended.append(number)
        done[number].set()

    assert seeds(list(WorkingBackend(work, 4).start(4))) == [0, 1, 2, 3]
    assert ended == [3, 2, 1, 0] and our_threads() == []


@pytest.mark.parametrize("parallel", [1, 3])
def test_as_many_are_at_work_as_the_backend_allows_and_no_more(parallel: int) -> None:
    together = threading.Barrier(parallel)
    backend = WorkingBackend(lambda number, progress: together.wait(10) and None, parallel)
    assert seeds(list(backend.start(9))) == list(range(9))
    assert backend.most == parallel


def test_a_slow_job_holds_back_a_few_results_only() -> None:
    first, results = threading.Event(), []
    backend = WorkingBackend(lambda n, _: n == 0 and first.wait(10) and None or None, 2)
    reader = threading.Thread(target=lambda: results.extend(backend.start(20)))
    reader.start()
    until(lambda: len(backend.begun) == 4)
    time.sleep(0.2)
    assert sorted(backend.begun) == [0, 1, 2, 3] and results == []
    first.set()
    reader.join(10)
    assert seeds(results) == list(range(20))


def test_a_slow_reader_is_not_run_away_from() -> None:
    backend = WorkingBackend(nothing, 2)
    results = backend.start(20)
    assert seeds([next(results)]) == [0]
    time.sleep(0.2)
    assert len(backend.begun) <= 5
    assert seeds(list(results)) == list(range(1, 20))


def test_a_job_that_fails_gives_its_error_and_the_others_go_on() -> None:
    error = RateLimitError("Too many.")

    def work(number: int, progress: ProgressSink) -> None:
        if number == 1:
            raise error

    results = list(WorkingBackend(work, 1).start(4))
    assert seeds(results) == [0, "RateLimitError", 2, 3] and results[1] is error


HOPELESS = [BalanceError("x"), CredentialsError("x"), InputError("x"), JournalError("x")]


@pytest.mark.parametrize("error", HOPELESS)
def test_what_fails_every_job_is_tried_once(error: OneRewardError) -> None:
    def work(number: int, progress: ProgressSink) -> None:
        if number == 1:
            raise error

    backend = WorkingBackend(work, 1)
    results = list(backend.start(5))
    assert backend.begun == [0, 1]
    assert seeds(results[:1]) == [0] and results[1] is error
    assert all("Not sent, for the same reason" in str(each) for each in results[2:])
    assert len(results) == 5


@pytest.mark.parametrize("once", [False, True])
def test_an_interruption_reaches_every_thread(once: bool) -> None:
    sink, heard = Cancellable(once), []

    def work(number: int, progress: ProgressSink) -> None:
        until(lambda: backend.most == 3)
        sink.cancelled.set()
        try:
            until(lambda: progress.check_interrupted())
        except Interrupted:
            heard.append(number)
            raise

    backend = WorkingBackend(work, 3)
    with pytest.raises(Interrupted):
        list(backend.start(12, sink))
    assert sorted(heard) == [0, 1, 2] == sorted(backend.begun) and our_threads() == []


@pytest.mark.parametrize("culprit", [0, 2])
def test_a_fault_of_our_own_begins_nothing_more_and_is_not_hidden(culprit: int) -> None:
    stopped: list[int] = []

    def work(number: int, progress: ProgressSink) -> None:
        if number == culprit:
            until(lambda: backend.most == 3)
            raise ZeroDivisionError
        try:
            until(lambda: progress.check_interrupted())
        except ZeroDivisionError:
            stopped.append(number)
            raise

    backend = WorkingBackend(work, 3)
    with pytest.raises(ZeroDivisionError):
        list(backend.start(12))
    assert sorted([*stopped, culprit]) == [0, 1, 2] == sorted(backend.begun)
    assert our_threads() == []


def test_a_reader_that_turns_away_stops_the_jobs() -> None:
    stopped: list[int] = []

    def work(number: int, progress: ProgressSink) -> None:
        if number:
            try:
                until(lambda: progress.check_interrupted())
            finally:
                stopped.append(number)

    backend = WorkingBackend(work, 2)
    results = backend.start(12)
    next(results)
    until(lambda: backend.most == 2)
    results.close()  # type: ignore[attr-defined]
    assert sorted(stopped) == sorted(backend.begun)[1:] and our_threads() == []


def test_local_jobs_run_one_by_one_on_this_thread_when_asked_for() -> None:
    names: list[str] = []
    main = threading.current_thread().name
    backend = WorkingBackend(lambda *_: names.append(threading.current_thread().name), 4, False)
    results = backend.start(3)
    assert backend.begun == []
    assert seeds([next(results)]) == [0] and backend.begun == [0]
    assert seeds(list(results)) == [1, 2] and names == [main] * 3


def test_a_local_error_is_raised_at_once_and_a_cancel_between_jobs_heard() -> None:
    def work(number: int, progress: ProgressSink) -> None:
        if number == 1:
            raise RemoteError("x")

    backend = WorkingBackend(work, 1, False)
    with pytest.raises(RemoteError):
        list(backend.start(4))
    assert backend.begun == [0, 1]
    backend, sink = WorkingBackend(nothing, 1, False), Cancellable()
    results = backend.start(4, sink)
    next(results)
    sink.cancelled.set()
    with pytest.raises(Interrupted):
        next(results)
    assert backend.begun == [0]


@pytest.mark.parametrize("remote", [True, False])
def test_no_jobs_have_no_results(remote: bool) -> None:
    assert list(WorkingBackend(nothing, remote=remote).start(0)) == []


def test_one_job_speaks_for_itself_and_many_share_a_line() -> None:
    alone = RecordingProgress()
    list(WorkingBackend(lambda n, p: p.status("in queue"), 1).start(1, alone))
    assert alone.texts == ["in queue"]
    shared = RecordingProgress()
    list(WorkingBackend(lambda n, p: p.status(f"at {n}"), 1).start(3, shared))
    assert shared.texts == [f"{n} of 3 done | {n + 1}: at {n}" for n in range(3)]


def test_the_line_shows_a_few_jobs_only() -> None:
    sink, together = RecordingProgress(), threading.Barrier(8)

    def work(number: int, progress: ProgressSink) -> None:
        progress.status("running")
        together.wait(10)

    list(WorkingBackend(work, 8).start(8, sink))
    longest = max(sink.texts, key=len)
    assert longest.startswith("0 of 8 done | 1: running | ") and longest.count("|") == STATUS_TEXTS


def test_a_jobs_steps_move_its_own_progress_and_are_no_words() -> None:
    sinks = [RecordingProgress() for _ in range(3)]
    backend = WorkingBackend(lambda number, progress: progress.step(number, 28), 3)
    list(run_calls(backend, [backend.job(n, sink) for n, sink in enumerate(sinks)], sinks[0]))
    assert [sink.steps for sink in sinks] == [[(n, 28)] for n in range(3)]
    assert [sink.texts for sink in sinks] == [[]] * 3


def test_the_bar_is_the_sum_of_its_parts_in_the_finest_steps_so_far() -> None:
    sink = RecordingProgress()
    bar = Bar(sink, 4)
    for part, value, total in [(2, 1, 28), (0, 14, 28), (2, 28, 28), (0, 1, 1), (2, 0, 28)]:
        bar.step(part, value, total)
    assert sink.steps == [(1, 112), (15, 112), (42, 112), (56, 112), (28, 112)]


def test_the_failure_of_the_only_job_is_its_own_with_the_seed() -> None:
    error = RemoteError("It failed.", may_be_billed=True)
    assert failure_of({"the edit": error}, 1, 7) is error and error.seed == 7
    wrong = InputError("Too small.")
    assert failure_of({"the edit": wrong}, 1, 7) is wrong


def test_a_partial_failure_names_each_and_how_to_get_the_rest() -> None:
    errors: dict[str, OneRewardError] = {
        "crop 1": RemoteError("It failed.", request_id="id-1", may_be_billed=True),
        "crop 3": InputError("Too small."),
    }
    failure = failure_of(errors, 5, 7)
    assert isinstance(failure, PartialFailureError) and failure.errors == errors
    lines = str(failure).splitlines()
    assert lines[0] == "2 of 5 jobs failed:"
    assert lines[1] == "- crop 1: It failed. Request id: id-1. It may have been billed."
    assert lines[2] == "- crop 3: Too small."
    assert "The other 3 are paid for and kept" in lines[3] and "seed 7" in lines[3]


def test_nothing_is_promised_where_every_job_failed() -> None:
    errors: dict[str, OneRewardError] = {"crop 1": RemoteError("a"), "crop 2": RemoteError("b")}
    failure = failure_of(errors, 2, 7)
    assert isinstance(failure, PartialFailureError) and "kept" not in str(failure)
    assert not failure.may_be_billed


def test_where_all_jobs_failed_the_seed_is_named_if_money_may_be_spent() -> None:
    paid = {str(i): RemoteError("The wire broke.", may_be_billed=True) for i in range(2)}
    free = {str(i): RemoteError("The wire broke.") for i in range(2)}
    assert "with seed 41, to collect what was paid for" in str(failure_of({**paid}, 2, 41))
    assert "41" not in str(failure_of({**free}, 2, 41))
