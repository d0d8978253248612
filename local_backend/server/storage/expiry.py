"""How long a file lives: the headers of fal's object lifecycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ....nodes.errors import InputError
from ..settings import Settings

HEADER = "X-Fal-Object-Lifecycle"
PREFERENCE = "X-Fal-Object-Lifecycle-Preference"


class Access(BaseModel):
    """Who may read a file: here, whoever knows its name."""

    model_config = ConfigDict(strict=True)

    default: Literal["allow"] | None = None
    rules: Annotated[list[object], Field(max_length=0)] | None = None


class Lifecycle(BaseModel):
    """What the headers hold, as JSON."""

    model_config = ConfigDict(strict=True)

    # fal's clients say: none and 0 are no wish
    expiration_duration_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    initial_acl: Access | None = None


def lifetime(headers: Mapping[str, str], settings: Settings) -> float:
    """Seconds a file is kept: as long as the server keeps any, or shorter if the client asks.

    Raises:
        InputError: a header breaks the rules, or asks to hide the file, which is not done here.
    """
    seconds = settings.keep_seconds
    for name in (HEADER, PREFERENCE):
        text = headers.get(name)
        if text is None:
            continue
        try:
            wish = Lifecycle.model_validate_json(text).expiration_duration_seconds
        except (ValidationError, UnicodeError) as error:
            raise InputError(
                f'{name} is not understood. Give JSON such as {{"expiration_duration_seconds": '
                "3600}; an initial_acl may only allow, as files are read by whoever knows their "
                "address."
            ) from error
        seconds = min(seconds, wish) if wish else seconds
    return seconds
