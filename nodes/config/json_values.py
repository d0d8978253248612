"""JSON from a file or a page as dataclasses, checked by pydantic 2, and its errors in sentences.

The dataclasses are the pack's own. pydantic is imported when the first value is read.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")

# pydantic's name of an error -> what to use instead.
REMEDIES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
}
NO_OBJECT = ("dataclass_type", "dict_type")
NO_LIST = ("tuple_type", "list_type")
UNKNOWN_FIELD = "unexpected_keyword_argument"


def parse(
    kind: type[T],
    value: object,
    name: str,
    *,
    unknown_fields: str = "forbid",
    secret: bool = False,
    input_name: str | None = None,
) -> T:
    """A value of JSON as the dataclass `kind`, with no type converted into another.

    Args:
        name: what the user calls the whole.
        unknown_fields: "forbid" or "ignore".
        secret: the error shows no value, only the fields that there may be.
        input_name: the node's input that the value stands for; None if each field is one.

    Raises:
        InputError: a field is unknown or missing, or has another type, or the dataclass refuses
            it. Its `input` is input_name, or the outermost field at fault.
    """
    from pydantic import ValidationError

    model = _model(cast(Any, kind), unknown_fields)
    try:
        # By way of text: pydantic takes a list for a tuple, and an object for a dataclass, from
        # JSON alone where it is strict.
        read = model.model_validate_json(json.dumps({"value": value}))
    except ValidationError as error:
        if secret:
            raise _without_value(kind, name) from None
        failure = _input_error(error.errors(include_url=False)[0], kind, name)
        failure.input = input_name or failure.input
        raise failure from None
    checked: T = read.value  # type: ignore[attr-defined]
    return checked


@cache
def _model(kind: Any, unknown_fields: str) -> type[BaseModel]:
    from pydantic import ConfigDict, create_model

    config = ConfigDict(strict=True, extra=unknown_fields)  # type: ignore[typeddict-item]
    model: type[BaseModel] = create_model(
        kind.__name__, __config__=config, __module__=kind.__module__, value=(kind, ...)
    )
    return model


def _input_error(error: Mapping[str, Any], kind: type[Any], name: str) -> InputError:
    """What pydantic found, in one sentence: the field, its value, and what to use instead."""
    place = error["loc"][1:]  # behind "value"
    cause = error.get("ctx", {}).get("error")
    failure = cause if isinstance(cause, InputError) else InputError(_sentence(error, kind, name))
    failure.input = failure.input or (str(place[0]) if place else None)
    return failure


def _sentence(error: Mapping[str, Any], kind: type[Any], name: str) -> str:
    place, fault = error["loc"][1:], error["type"]
    field = ".".join(map(str, place)) or name
    if fault == UNKNOWN_FIELD:
        around = ".".join(map(str, place[:-1])) or name
        known = ", ".join(_fields(kind, place[:-1]))
        return f'{around} has a field "{str(place[-1])[:40]}". Use {known}.'
    if fault in NO_OBJECT:
        return f"{field} is no JSON object. Use one, in {{}}."
    if fault in NO_LIST or (place and isinstance(place[-1], int)):
        usual = json.dumps(getattr(kind, str(place[0]), []))
        return f"{place[0]} is no list of words. Use one such as {usual}."
    if fault == "missing":
        return f"{field} is missing. Give it."
    value = json.dumps(error["input"])[:40]
    if fault in REMEDIES:
        return f"{field} is {value}. Use {REMEDIES[fault]}."
    return f"{field} cannot be used: {error['msg']}."


def _fields(kind: type[Any], place: Sequence[str | int]) -> list[str]:
    """The fields of the dataclass that lies at this place of another."""
    for name in place:
        hint = typing.get_type_hints(kind)[str(name)]
        inner: tuple[Any, ...] = typing.get_args(hint) or (hint,)
        [kind] = (k for k in inner if hasattr(k, "__dataclass_fields__"))
    return [field.name for field in dataclasses.fields(kind)]


def _without_value(kind: type[Any], name: str) -> InputError:
    fields = ", ".join(f'"{field.name}": text' for field in dataclasses.fields(kind))
    return InputError(f"{name} is not {{{fields}}}. Send that, and nothing else.")
