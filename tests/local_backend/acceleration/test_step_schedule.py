from __future__ import annotations

from dataclasses import replace

import pytest
from onereward_pack.local_backend.acceleration.levels import EVERY_STEP, LEVELS, NONE, Level
from onereward_pack.local_backend.acceleration.step_schedule import StepKind, cost, plan_steps
from onereward_pack.nodes.contracts import ACCELERATIONS

LETTERS = {StepKind.ALL: "A", StepKind.MASKED: "m", StepKind.NOTHING: "."}


def written(level: Level, steps: int, share: float | None = None) -> str:
    return "".join(LETTERS[work] for work in plan_steps(level, steps, share))


def test_the_levels_are_those_of_the_nodes() -> None:
    assert tuple(LEVELS) == ACCELERATIONS


@pytest.mark.parametrize("steps", [1, 2, 28, 50, 1000])
@pytest.mark.parametrize("share", [None, 0.1, 0.9])
def test_level_none_computes_everything(steps: int, share: float | None) -> None:
    assert written(NONE, steps, share) == "A" * steps


def test_gaps_are_counted_from_a_step_that_runs() -> None:
    level = Level(gaps=((0.25, 1), (0.5, 2), (1.0, 4)))
    assert written(level, 28) == "AAAAAAAA" + ".A.A.A.A" + "...A...A...A"


def test_more_steps_leave_out_more_so_that_the_time_between_is_the_same() -> None:
    level = Level(gaps=((0.5, 1), (1.0, 2)))
    assert written(level, 56) == "A" * 28 + "A..." * 7
    assert written(level, 14) == "A" * 14


@pytest.mark.parametrize("name", ["regular", "high"])
@pytest.mark.parametrize("share", [None, 0.3])
def test_every_number_of_steps_begins_with_all_tokens_and_never_costs_more_than_none(
    name: str, share: float | None
) -> None:
    for steps in range(1, 101):
        plan = plan_steps(LEVELS[name], steps, share)
        assert len(plan) == steps
        assert plan[0] is StepKind.ALL
        assert cost(plan, share or 1.0) <= steps


def test_one_run_in_so_many_computes_all_tokens() -> None:
    level = Level(masked_gaps=((0.25, 1), (1.0, 4)), refresh=3)
    assert written(level, 28, 0.1) == "AmmAmmAm...m...A...m...m...m"
    level = Level(masked_gaps=EVERY_STEP, refresh=1)
    assert written(level, 4, 0.1) == "AAAA"


def test_of_two_plans_the_cheaper_one_is_taken() -> None:
    level = Level(gaps=((1.0, 4),), masked_gaps=EVERY_STEP, refresh=14)
    assert written(level, 28, 0.1) == "Ammmmmmmmmmmmm" * 2
    assert written(level, 28, 0.9) == "A..." * 7
    assert written(level, 28, None) == "A..." * 7


def test_a_level_may_want_masked_steps_to_save_more() -> None:
    level = Level(masked_gaps=EVERY_STEP, refresh=2)
    assert written(level, 4, 0.5) == "AmAm"
    assert written(replace(level, masked_below=0.8), 4, 0.5) == "AmAm"
    assert written(replace(level, masked_below=0.7), 4, 0.5) == "AAAA"


def test_the_levels_cost_less_in_their_order() -> None:
    for share in (None, 0.2, 0.4, 0.8):
        costs = [cost(plan_steps(level, 28, share), share or 1.0) for level in LEVELS.values()]
        assert costs == sorted(costs, reverse=True)
        assert len(set(costs)) == 3
