"""Reads a submission: its body and headers become a job, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ....nodes.errors import InputError
from .. import errors
from ..messages import Answer
from ..queue.store import NewJob
from ..schemas import OneRewardInput, check_input, parse_json, unknown_fields
from ..settings import Settings
from ..storage.expiry import lifetime

PRIVATE_SECONDS = 3600.0  # how long the result of a job that is not to be stored can be fetched
YES = ("1", "true", "yes")
PRIORITIES = ("normal", "low")


def read_job(
    body: bytes, headers: Mapping[str, str], key_id: str, settings: Settings
) -> tuple[NewJob, Answer | None]:
    """The job, and fal's refusal if its input breaks a rule: the queue takes it all the same.

    Raises:
        InputError: the body is no JSON object, or a header cannot be honoured.
    """
    found = parse_json(body)
    if found is None:
        raise InputError("The body is not a JSON object")
    priority = headers.get("x-fal-queue-priority", PRIORITIES[0])
    if priority not in PRIORITIES:
        raise InputError("X-Fal-Queue-Priority is normal or low")
    private = headers.get("x-fal-store-io") == "0"
    keep = min(settings.keep_seconds, PRIVATE_SECONDS) if private else settings.keep_seconds
    job = NewJob(
        key_id=key_id,
        body=body,
        keep_seconds=keep,
        file_seconds=min(keep, lifetime(headers, settings)),
        low_priority=priority == "low",
        start_by=_deadline(headers.get("x-fal-request-timeout")),
        may_retry=headers.get("x-fal-no-retry", "").lower() not in YES,
        warnings=tuple(
            f"The field {name} is not known and was ignored." for name in unknown_fields(found)[:8]
        ),
    )
    checked = check_input(found, settings.max_images)
    return job, None if isinstance(checked, OneRewardInput) else checked


def bad_request(text: str) -> Answer:
    return errors.platform(400, "bad_request", text)


def _deadline(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError("X-Fal-Request-Timeout is a number of seconds above 0")
    return seconds
