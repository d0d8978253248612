"""Answers of the queue, as JSON in fal's shapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from starlette.responses import Response

from ..messages import Answer
from ..queue.job_states import DONE, QUEUED, RUNNING, Job, LogEntry
from ..settings import Settings

REQUEST_ID = "x-fal-request-id"
STATES = {QUEUED: "IN_QUEUE", RUNNING: "IN_PROGRESS", DONE: "COMPLETED"}
NOT_FOUND = Answer(404, {"status": "NOT_FOUND"})


def reply(answer: Answer, request_id: str = "") -> Response:
    """An answer on the wire; ASCII only, as a prompt may hold what UTF-8 has no bytes for."""
    headers = {**answer.headers, **({REQUEST_ID: request_id} if request_id else {})}
    body = json.dumps(answer.body).encode()
    return Response(body, answer.status, headers, "application/json")


def urls(job: Job, settings: Settings) -> dict[str, str]:
    base = f"{settings.public_url}/{settings.endpoint}/requests/{job.id}"
    return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}


def submission(job: Job, ahead: int, settings: Settings) -> Answer:
    """The answer to a submission."""
    ids = {"request_id": job.id, "gateway_request_id": job.id}
    place = {"status": "IN_QUEUE", "queue_position": ahead}
    return Answer(200, {**place, **ids, **urls(job, settings)})


def status(
    job: Job, ahead: int | None, logs: Sequence[LogEntry] | None, settings: Settings
) -> Answer:
    """Where a job is: 202 until it is COMPLETED. `ahead` while it is queued, `logs` if wanted."""
    lines = None if logs is None else [_line(entry) for entry in logs]
    body: dict[str, Any] = {"status": STATES[job.state], "request_id": job.id}
    body |= {**urls(job, settings), "logs": lines, "metrics": {}}
    if job.state == QUEUED:
        body["queue_position"] = ahead
    if job.state == DONE:
        if job.started is not None and job.ended is not None:
            body["metrics"] = {"inference_time": job.ended - job.started}
        if job.status != 200:
            body["error"] = f"Invalid status code: {job.status}"
            body["error_type"] = job.error_type
    return Answer(200 if job.state == DONE else 202, body)


def _line(entry: LogEntry) -> dict[str, str]:
    stamp = datetime.fromtimestamp(entry.at, timezone.utc).isoformat()
    return {"timestamp": stamp, "level": entry.level, "source": "USER", "message": entry.message}
