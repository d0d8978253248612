"""The tree of errors is the one that is drawn, and a remote error says what it may cost."""

from __future__ import annotations

import re

import pytest
from onereward_pack.nodes import errors
from onereward_pack.nodes.errors import (
    ContentPolicyError,
    InputError,
    OneRewardError,
    PartialFailureError,
    RemoteError,
    at_fault,
)


def drawn() -> dict[str, str | None]:
    """Each class in the drawing and the one it hangs from."""
    found: dict[str, str | None] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^([| -]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4
        path[depth:] = [name]
        found[name] = path[depth - 1] if depth else None
    return found


def defined() -> dict[str, str | None]:
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, BaseException)
    ]
    found: dict[str, str | None] = {each.__name__: each.__bases__[0].__name__ for each in classes}
    return found | {"OneRewardError": None}


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert len(drawn()) > 10 and drawn() == defined()


def test_bad_input_is_a_value_error_and_an_interruption_is_none_of_ours() -> None:
    assert issubclass(InputError, ValueError) and issubclass(OneRewardError, Exception)
    assert not issubclass(OneRewardError, ValueError)


@pytest.mark.parametrize(("facts", "shown"), [
    ({}, "It failed. Nothing was billed."),
    ({"may_be_billed": True}, "It failed. It may have been billed."),
    ({"request_id": "id-1"}, "It failed. Request id: id-1. Nothing was billed."),
    ({"request_id": "id-1", "may_be_billed": True, "status": 500, "error_type": "x"},
     "It failed. Request id: id-1. It may have been billed."),
])  # fmt: skip
def test_a_remote_error_says_its_request_and_its_bill(facts: dict[str, object], shown: str) -> None:
    error = RemoteError("It failed.", **facts)
    assert str(error) == shown and error.args == ("It failed.",)
    assert (error.status, error.error_type) == (facts.get("status"), facts.get("error_type"))


def test_the_seed_is_named_where_it_brings_back_what_was_paid_for() -> None:
    error = RemoteError("It failed.", request_id="id-1", may_be_billed=True)
    error.seed = 0
    assert str(error) == "It failed. Request id: id-1. Seed: 0. It may have been billed."
    error.may_be_billed = False
    assert "Seed" not in str(error)


@pytest.mark.parametrize(("parts", "billed"), [
    ([InputError("a")], False),
    ([RemoteError("a"), InputError("b")], False),
    ([InputError("a"), ContentPolicyError("b", may_be_billed=True)], True),
])  # fmt: skip
def test_a_partial_failure_may_be_billed_if_a_part_may(
    parts: list[OneRewardError], billed: bool
) -> None:
    named = {f"crop {i}": part for i, part in enumerate(parts)}
    error = PartialFailureError("Some failed.", named)
    assert error.may_be_billed is billed and error.errors == named
    assert str(error) == "Some failed."


def test_the_innermost_input_at_fault_is_named_and_the_error_stays_the_same() -> None:
    error = InputError("The mask is 3x2.")
    assert error.input is None
    with pytest.raises(InputError) as raised, at_fault("image"), at_fault("mask"):
        raise error
    assert raised.value is error and error.input == "mask" and str(error) == "The mask is 3x2."
    assert InputError("another").input is None
