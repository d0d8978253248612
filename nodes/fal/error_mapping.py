"""Error mapping: from an HTTP answer that is no success to the error it means, with a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import (
    BalanceError,
    ContentPolicyError,
    CredentialsError,
    OneRewardError,
    RateLimitError,
    RemoteError,
    RemoteTimeoutError,
    RemoteValidationError,
)
from .endpoints import ENDPOINT
from .transport import REQUEST_ID, Reply

CANCELLED = ("client_cancelled", "client_disconnected")
REFUSED = ("content_policy_violation", "no_media_generated")
LONGEST = 300
RAW = 4000
SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", re.IGNORECASE)
DATA_URI = re.compile(r"data:[\w/+.;=-]*;base64,[\w+/=-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Detail:
    """What an error body says: the first complaint, with the field and the limit it names."""

    text: str
    type: str | None = None
    field: str | None = None
    limit: str | None = None


def error_of(reply: Reply, *, server: str, request_id: str | None = None) -> OneRewardError:
    """The error that a failed answer means.

    Args:
        server: the name the user knows the server by.
        request_id: the job's, if there is one; else the answer's own.
    """
    detail = read_detail(reply)
    facts: dict[str, Any] = {
        "status": reply.status,
        "request_id": request_id or reply.headers.get(REQUEST_ID),
        "error_type": detail.type,
    }
    message = f"{server} answered {reply.status}: {detail.text.rstrip('.')}"
    if reply.status == 401:
        collect = f" The job {request_id} is kept; the same run collects it." if request_id else ""
        return CredentialsError(f"{message}. The key is not valid there; set another one.{collect}")
    if reply.status in (402, 403):
        return BalanceError(
            f"{message}. Add credit to the account, or use a key that may call this model.", **facts
        )
    if reply.status in (408, 429):
        return RateLimitError(
            f"{message}. Wait a little, or lower parallel_jobs on OneReward Fal Backend.", **facts
        )
    if reply.status == 422:
        # Charged if a GPU had worked on it, says the documentation; only a job can have had one.
        facts["may_be_billed"] = request_id is not None and reply.billed_units != 0
        return _refused_field(message, detail, facts)
    return _failed(reply, server, message, facts)


def is_cancelled(error: OneRewardError) -> bool:
    """The job ended because somebody cancelled it."""
    return isinstance(error, RemoteError) and error.error_type in CANCELLED


def read_detail(reply: Reply) -> Detail:
    """The complaint of an error body, in any of the service's four shapes."""
    body = reply.json()
    header = tidy(reply.headers.get("x-fal-error-type", "")) or None
    if not isinstance(body, dict):
        text = "a web page or text of something in between" if reply.body else "nothing"
        return Detail(text, header)
    found, kind = body.get("detail"), tidy(str(body.get("error_type") or "")) or header
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return _field_detail(found[0], kind)
    text = found or body.get("error") or body.get("message") or body.get("status") or "no reason"
    return Detail(tidy(str(text)), kind)


def _field_detail(item: dict[str, Any], kind: str | None) -> Detail:
    loc = item.get("loc")
    path = loc if isinstance(loc, list) else [loc]
    where = [str(part) for part in path if part is not None and part != "body"]
    limits = item.get("ctx") if isinstance(item.get("ctx"), dict) else {}
    return Detail(
        tidy(str(item.get("msg") or "no reason")),
        tidy(str(item.get("type") or kind or "")) or None,
        tidy(".".join(where)) or None,
        tidy(", ".join(f"{name} {value}" for name, value in (limits or {}).items())) or None,
    )


def _refused_field(message: str, detail: Detail, facts: dict[str, Any]) -> RemoteError:
    if detail.type in REFUSED:
        return ContentPolicyError(f"{message}. Change the prompt or the picture.", **facts)
    parts = [
        f"field {detail.field}" if detail.field else "",
        f"limit {detail.limit}" if detail.limit else "",
        f"type {detail.type}" if detail.type else "",
    ]
    named = "; ".join(part for part in parts if part)
    return RemoteValidationError(
        f"{message}{f' ({named})' if named else ''}. Change what it names and run again.",
        **facts,
    )


def _failed(reply: Reply, server: str, message: str, facts: dict[str, Any]) -> RemoteError:
    if reply.status == 504 and reply.headers.get("x-fal-request-timeout-type") == "user":
        return RemoteTimeoutError(
            f"{server} did not start the job within the start deadline. Raise it on OneReward "
            "Fal Backend, or try again later.",
            **facts,
        )
    if facts["error_type"] in CANCELLED:
        # Nothing says that a job which had started is free.
        return RemoteError(
            f"The job was cancelled ({message}). Running the same again sends a new one.",
            **facts,
            may_be_billed=True,
        )
    if 300 <= reply.status < 400:
        return RemoteError(
            f"{message}. Redirects are not followed, so that the key stays here. Check the "
            "server's address and the proxy.",
            **facts,
        )
    if reply.status == 404:
        return RemoteError(f"{message}. Check the server's address; it has no {ENDPOINT}.", **facts)
    if reply.status >= 500:
        return RemoteError(f"{message}. It is a fault of the service; try again later.", **facts)
    return RemoteError(f"{message}. Change the prompt, the picture or the seed.", **facts)


def tidy(text: str) -> str:
    """One short line, without pictures and without the signed part of a URL."""
    text = " ".join(text[:RAW].split())  # the patterns below take long on long text
    text = SIGNED.sub(r"\1", DATA_URI.sub("(a picture)", text))
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
