"""The JSON schemas: the model's input and output under fal's names, and the queue's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from ...nodes.contracts import MAX_SEED, NEGATIVE_PROMPT
from ..pipeline.validation import MAX_GUIDANCE, MAX_STEPS
from . import errors
from .messages import Answer

PICTURES = ("image_url", "mask_url")


def _utf8(text: str) -> str:
    """JSON can name half a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text holds half a character") from error
    return text


# the schema calls it an integer without bounds; JSON schema tools fail on a bound of 64 bits
_Seed = Annotated[int, Field(ge=0, le=MAX_SEED), WithJsonSchema({"type": "integer", "minimum": 0})]
_Text = Annotated[str, AfterValidator(_utf8)]
_Scale = Annotated[float, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)]


class OneRewardInput(BaseModel):
    """Paint the masked part of a picture anew."""

    model_config = ConfigDict(title="OneRewardInput")

    image_url: _Text = Field(description="the picture: https URL, data URI, or an uploaded file")
    mask_url: _Text = Field(description="white = change, black = keep; the picture's size")
    prompt: _Text | None = Field(None, description='what to paint; "remove" takes away')
    negative_prompt: _Text = Field(NEGATIVE_PROMPT, description="what not to paint")
    guidance_scale: _Scale = Field(1, description="distilled guidance")
    true_cfg: _Scale = Field(4, description="classifier-free guidance; above 1 two passes a step")
    num_inference_steps: int = Field(28, ge=1, le=MAX_STEPS, description="denoising steps")
    acceleration: Literal["none", "regular", "high"] = Field(
        "regular", description="how much the result may differ for speed"
    )
    num_images: int = Field(1, ge=1, description="variations; picture i uses seed + i")
    output_format: Literal["jpeg", "png"] = Field("jpeg", description="png keeps every value")
    seed: _Seed | None = Field(None, description="start of the random numbers; default: random")
    sync_mode: bool = Field(False, description="pictures as data URIs inside the result")
    enable_safety_checker: bool = Field(
        True, description="accepted for compatibility: this server has no safety checker"
    )


class File(BaseModel):
    """One picture of a result."""

    url: str
    width: int
    height: int
    content_type: str
    file_name: str | None = None
    file_size: int | None = None


class OneRewardOutput(BaseModel):
    """What the model made."""

    images: list[File]
    seed: int
    has_nsfw_concepts: list[bool] = Field(description="always false: nothing looks")
    prompt: str
    timings: dict[str, float] = Field(description="inference: seconds of the model alone")


class Submission(BaseModel):
    """A job the queue has accepted."""

    status: Literal["IN_QUEUE"] = "IN_QUEUE"
    request_id: str
    gateway_request_id: str
    queue_position: int
    response_url: str
    status_url: str
    cancel_url: str


class LogLine(BaseModel):
    timestamp: str
    level: str
    source: Literal["USER"] = "USER"
    message: str


class Status(BaseModel):
    """Where a job is. COMPLETED covers failed and cancelled jobs: see error and error_type."""

    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    request_id: str
    response_url: str
    status_url: str
    cancel_url: str
    queue_position: int | None = Field(None, description="jobs ahead; while IN_QUEUE only")
    logs: list[LogLine] | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    error: str | None = None
    error_type: str | None = None


class QueueAnswer(BaseModel):
    """What became of a cancel, or NOT_FOUND."""

    status: Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]


class ErrorDetail(BaseModel):
    """An error: text, or one entry for every field at fault."""

    detail: str | list[dict[str, Any]]
    error_type: str | None = None


def parse_json(body: bytes) -> dict[str, Any] | None:
    """The object in a request's body; None if it is none."""
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_input(body: Mapping[str, Any], max_images: int) -> OneRewardInput | Answer:
    """The input with its defaults, or fal's refusal."""
    try:
        checked = OneRewardInput.model_validate(dict(body))
    except ValidationError as error:
        return errors.refused([_entry(one) for one in error.errors(include_url=False)])
    if checked.num_images > max_images:
        message = f"Input should be less than or equal to {max_images}"
        entry = errors.entry(
            "num_images", "less_than_equal", message, checked.num_images, {"le": max_images}
        )
        return errors.refused([entry])
    if (checked.seed or 0) + checked.num_images - 1 > MAX_SEED:
        message = "Value error, seed + num_images passes 64 bits"
        return errors.refused([errors.entry("seed", "value_error", message, checked.seed)])
    return checked


def unknown_fields(body: Mapping[str, Any]) -> list[str]:
    """Names the endpoint does not know, as they may be shown."""
    return [json.dumps(name[:40]) for name in body if name not in OneRewardInput.model_fields]


def _entry(error: Mapping[str, Any]) -> dict[str, Any]:
    name = ".".join(str(part) for part in error["loc"])
    ctx = {key: value for key, value in error.get("ctx", {}).items() if _plain(value)}
    return errors.entry(name, error["type"], error["msg"], error["input"], ctx)


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
