"""How long an estimate says that a run will take."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from onereward_pack.nodes.edit import eta
from onereward_pack.nodes.edit.eta import BACKENDS, RUNS, ThroughputLog


def test_passes_are_megapixels_times_steps_and_twice_with_cfg() -> None:
    pixels = 3 * (1024 * 1024 + 512 * 1024)
    assert eta.megapixel_passes(pixels, steps=10, cfg=1.0) == 1.5 * 10 * 3
    assert eta.megapixel_passes(pixels, steps=10, cfg=1.1) == 1.5 * 10 * 2 * 3
    assert eta.megapixel_passes(0, 28, 4.0) == 0


def test_a_backend_that_has_not_run_tells_no_time() -> None:
    timed = ThroughputLog()
    timed.record("fal", "regular", 10, 5)
    assert timed.seconds("preview model", "regular", 10) is None
    assert timed.seconds("fal", "regular", 20) == 10


def test_every_acceleration_has_its_own_throughput() -> None:
    timed = ThroughputLog()
    timed.record("fal", "high", 10, 5)
    assert timed.seconds("fal", "none", 10) is None
    assert timed.seconds("fal", "high", 10) == 5


def test_a_slow_first_run_counts_until_there_is_a_second() -> None:
    timed = ThroughputLog()
    timed.record("fal", "regular", 1, 60)
    assert timed.seconds("fal", "regular", 1) == 60
    timed.record("fal", "regular", 1, 4)
    assert timed.seconds("fal", "regular", 1) == 4
    timed.record("fal", "regular", 1, 5)
    assert timed.seconds("fal", "regular", 1) == 5


def test_old_runs_are_forgotten() -> None:
    timed = ThroughputLog()
    for _ in range(100):
        timed.record("fal", "regular", 1, 60)
    for _ in range(RUNS):
        timed.record("fal", "regular", 1, 2)
    assert timed.seconds("fal", "regular", 1) == 2


def test_the_backend_used_longest_ago_is_forgotten_first() -> None:
    timed = ThroughputLog()
    for number in range(BACKENDS):
        timed.record(str(number), "regular", 1, 1)
    timed.record("0", "regular", 1, 1)
    timed.record("one more", "regular", 1, 1)
    assert timed.seconds("1", "regular", 1) is None
    assert timed.seconds("0", "regular", 1) == timed.seconds("one more", "regular", 1) == 1


@pytest.mark.parametrize(
    ("work", "seconds"), [(0, 1), (1, 0), (-1, 1), (math.inf, 1), (1, math.nan)]
)
def test_a_run_that_tells_nothing_is_not_kept(work: float, seconds: float) -> None:
    timed = ThroughputLog()
    timed.record("fal", "regular", work, seconds)
    assert timed.seconds("fal", "regular", 1) is None


def test_many_threads_may_record_at_once() -> None:
    timed = ThroughputLog()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: timed.record(str(i % 50), "regular", 1, 3), range(5000)))
    assert timed.seconds("49", "regular", 2) == 6


def test_the_pack_has_one_log_for_all() -> None:
    eta.record("test_log", "regular", 2, 3)
    assert eta.seconds("test_log", "regular", 4) == 6
