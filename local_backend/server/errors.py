"""Error answers in fal's shapes. No other module writes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .messages import Answer

ERROR_PAGE = "https://docs.fal.ai/errors"
CANCELLED = "client_cancelled"


def entry(
    name: str,
    kind: str,
    message: str,
    value: object,
    ctx: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """One entry of a refusal, about the field of that name; `kind` is fal's word for the fault."""
    fault = {"loc": ["body", name] if name else ["body"], "msg": message, "type": kind}
    detail = {**fault, "url": f"{ERROR_PAGE}#{kind}", "input": shortened(value)}
    return {**detail, "ctx": dict(ctx)} if ctx else detail


def refused(entries: Sequence[Mapping[str, Any]]) -> Answer:
    """The input breaks rules: fal's 422."""
    return Answer(422, {"detail": [dict(one) for one in entries]}, {"x-fal-billable-units": "0"})


def platform(status: int, error_type: str, text: str, **headers: str) -> Answer:
    """The server's side failed, or the queue refused."""
    body = {"detail": text, "error_type": error_type}
    return Answer(status, body, {"X-Fal-Error-Type": error_type, **headers})


def shortened(value: object) -> object:
    """The input without the megabytes of a data URI, which the client has itself."""
    if isinstance(value, str) and len(value) > 200:
        return value[:200] + "..."
    if isinstance(value, dict):
        return {str(name): shortened(one) for name, one in value.items()}
    return [shortened(one) for one in value] if isinstance(value, list) else value
