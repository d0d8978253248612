"""JSON as dataclasses: nothing is converted, and what is wrong is said in one sentence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from onereward_pack.nodes.config.json_values import parse
from onereward_pack.nodes.contracts import FalSpec, LocalSpec
from onereward_pack.nodes.errors import InputError, at_fault

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Inner:
    width: int = 3
    name: str = ""

    def __post_init__(self) -> None:
        if self.width > 9:
            raise InputError(f"Width {self.width} is out of range. Use 0 to 9.")


@dataclass(frozen=True)
class Outer:
    inner: Inner | None = None
    plain: Inner = field(default_factory=Inner)
    factor: float = 1.0
    steps: int | None = 28
    on: bool = False
    words: tuple[str, ...] = ("a", "b")
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.factor < 0:
            with at_fault("the factor"):
                raise InputError("No.")


def test_what_is_left_out_has_its_default_and_a_whole_number_is_a_number() -> None:
    assert parse(Outer, {}, "it") == Outer()
    given = {"inner": {"width": 1}, "factor": 2, "steps": None, "on": True, "words": ["x"]}
    read = parse(Outer, given | {"more": {"y": [1]}}, "it")
    assert read == Outer(Inner(1), Inner(), 2.0, None, True, ("x",), {"y": [1]})
    assert type(read.factor) is float


BAD: dict[str, tuple[object, str, str | None]] = {
    "no object": ([], "it is no JSON object. Use one, in {}.", None),
    "text": ({"steps": "28"}, 'steps is "28". Use a whole number.', "steps"),
    "half": ({"steps": 1.5}, "steps is 1.5. Use a whole number.", "steps"),
    "a float that is whole": ({"steps": 28.0}, "steps is 28.0. Use a whole number.", "steps"),
    "true is no number": ({"steps": True}, "steps is true. Use a whole number.", "steps"),
    "a number": ({"factor": "1"}, 'factor is "1". Use a number.', "factor"),
    "null": ({"factor": None}, "factor is null. Use a number.", "factor"),
    "a switch": ({"on": 1}, "on is 1. Use true or false.", "on"),
    "no list": ({"words": "a"}, 'words is no list of words. Use one such as ["a", "b"].', "words"),
    "a number in a list": (
        {"words": [1]}, 'words is no list of words. Use one such as ["a", "b"].', "words",
    ),
    "no inner object": ({"inner": "x"}, "inner is no JSON object. Use one, in {}.", "inner"),
    "in an inner one": ({"inner": {"name": 5}}, "inner.name is 5. Use text.", "inner"),
    "unknown": (
        {"size": 1},
        'it has a field "size". Use inner, plain, factor, steps, on, words, more.', "size",
    ),
    "unknown in an inner one": (
        {"inner": {"x": 1}}, 'inner has a field "x". Use width, name.', "inner",
    ),
    "unknown in a plain one": (
        {"plain": {"x": 1}}, 'plain has a field "x". Use width, name.', "plain",
    ),
    "what the dataclass refuses": (
        {"inner": {"width": 10}}, "Width 10 is out of range. Use 0 to 9.", "inner",
    ),
    "with its own word for the input": ({"factor": -1}, "No.", "the factor"),
    "long text is cut": (
        {"steps": "x" * 99}, f'steps is "{"x" * 39}. Use a whole number.', "steps",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("value", "sentence", "named"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_one_sentence_with_the_input_at_fault(
    value: object, sentence: str, named: str | None
) -> None:
    with pytest.raises(InputError) as refused:
        parse(Outer, value, "it")
    assert str(refused.value) == sentence and refused.value.input == named
    with pytest.raises(InputError) as refused:
        parse(Outer, value, "it", input_name="backend")
    assert refused.value.input == "backend"


def test_a_field_that_is_needed_is_named() -> None:
    @dataclass(frozen=True)
    class Needed:
        name: str

    with pytest.raises(InputError, match=r"name is missing\. Give it\.") as refused:
        parse(Needed, {}, "it")
    assert refused.value.input == "name"


def test_unknown_fields_may_be_left_out_at_every_depth() -> None:
    given = {"x": 1, "inner": {"y": 2, "width": 5}}
    assert parse(Outer, given, "it", unknown_fields="ignore") == Outer(inner=Inner(5))


def test_a_secret_is_in_no_error() -> None:
    @dataclass(frozen=True)
    class Key:
        key: str

    for value in ({"key": ["s3cret"]}, {"key": "s3cret", "x": "s3cret"}, {"s3cret": 1}, "s3cret"):
        with pytest.raises(InputError, match='It is not {"key": text}') as refused:
            parse(Key, value, "It", secret=True)
        assert "s3cret" not in str(refused.value)
        assert refused.value.__cause__ is None and refused.value.__suppress_context__


@pytest.mark.parametrize("kind", [FalSpec, LocalSpec])
def test_the_specs_of_backends_are_read_as_their_nodes_make_them(kind: type[Any]) -> None:
    assert parse(kind, {}, "the backend") == kind()


def test_reading_the_module_loads_no_pydantic() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest\n"
        "import onereward_pack.nodes.config.preferences\n"
        "print('pydantic' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
