"""Schemas of fal's JSON: the payload of a submit, and the answers to submit, status and result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contracts import EditRequest, FalSpec
from ..errors import InputError, RemoteError
from ..image_io import to_bytes
from .endpoints import ENDPOINT, Server
from .error_mapping import tidy
from .transport import Reply, amount

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
PRIVATE_LIFETIME = 60  # seconds; the shortest word the official clients know


@dataclass(frozen=True)
class Submission:
    """A job the service has accepted, and where to ask about it."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True)
class Status:
    """Where a job is. `logs` is every line so far; `failed` holds for a completed job only."""

    state: str
    queue_position: int | None
    logs: tuple[str, ...]
    failed: bool

    @property
    def completed(self) -> bool:
        """It is over: done, failed or cancelled."""
        return self.state == "COMPLETED"


@dataclass(frozen=True)
class File:
    """An image of a result: an https or data URL, and what the service says about it."""

    url: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Output:
    """What the model answered."""

    images: tuple[File, ...]
    seed: int | None
    has_nsfw_concepts: tuple[bool, ...]
    prompt: str | None
    timings: Mapping[str, float]
    billed_units: float | None


def recipe_fields(request: EditRequest, spec: FalSpec) -> dict[str, Any]:
    """The fields that decide what the picture looks like, all but the pixels."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "guidance_scale": request.guidance_scale,
        "true_cfg": request.true_cfg,
        "num_inference_steps": request.num_inference_steps,
        "acceleration": request.acceleration,
        "num_images": request.num_images,
        "output_format": spec.output_format,
        "seed": request.seed,
        "enable_safety_checker": spec.enable_safety_checker,
    }


def payload(request: EditRequest, spec: FalSpec, image_url: str, mask_url: str) -> dict[str, Any]:
    """The body of a submit."""
    return {
        "image_url": image_url,
        "mask_url": mask_url,
        **recipe_fields(request, spec),
        "sync_mode": spec.private,
    }


def headers(spec: FalSpec) -> dict[str, str]:
    """What a submit asks of the queue, beside the body."""
    wanted = {
        "Content-Type": "application/json",
        "x-app-fal-disable-fallback": "true",  # OneReward's result or none
        "X-Fal-Queue-Priority": spec.priority,
    }
    if spec.start_deadline:
        wanted["X-Fal-Request-Timeout"] = str(float(spec.start_deadline))
    if spec.private:
        wanted["X-Fal-Store-IO"] = "0"
        wanted["X-Fal-Object-Lifecycle-Preference"] = lifecycle(PRIVATE_LIFETIME)
    return wanted


def lifecycle(seconds: int) -> str:
    """How long the service may keep a private file."""
    return json.dumps({"expiration_duration_seconds": seconds})


def job_key(request: EditRequest, spec: FalSpec, server: Server) -> str:
    """The same for two jobs exactly if they ask the same server for the same picture."""
    asked = json.dumps([server.queue_url, ENDPOINT, recipe_fields(request, spec)], sort_keys=True)
    digest = hashlib.sha256(asked.encode())
    for pixels in (request.image, request.mask):
        digest.update(str(tuple(pixels.shape)).encode())
        digest.update(to_bytes(pixels))
    return digest.hexdigest()


def check_request_id(text: str) -> str:
    """The id, if it can be one: it becomes part of an address.

    Raises:
        InputError: it cannot.
    """
    if not REQUEST_ID.fullmatch(text):
        raise InputError(
            f'"{tidy(text)}" is no request id. It looks like '
            "764cabcf-b745-4b3e-ae38-1200304cf45b, and stands in the report of the run."
        )
    return text


def submission_at(server: Server, request_id: str) -> Submission:
    """Where the service keeps a job, from its id alone."""
    base = f"{server.queue_url}/{ENDPOINT}/requests/{check_request_id(request_id)}"
    return Submission(request_id, f"{base}/status", base, f"{base}/cancel")


def read_submission(reply: Reply, server: Server) -> Submission | None:
    """The accepted job; None if the answer does not name one. Foreign URLs are not used."""
    body = reply.json()
    request_id = body.get("request_id") if isinstance(body, dict) else None
    if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
        return None
    ours = submission_at(server, request_id)
    urls = {}
    for name in ("status_url", "response_url", "cancel_url"):
        url = body.get(name)
        trusted = isinstance(url, str) and server.trusts(url)
        urls[name] = url if trusted else getattr(ours, name)
    return Submission(request_id, **urls)


def read_status(reply: Reply, request_id: str) -> Status:
    """Raises RemoteError if the answer is no status."""
    body = reply.json()
    state = body.get("status") if isinstance(body, dict) else None
    if state not in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
        raise RemoteError(
            "The status of the job cannot be read: the answer names none that is known. "
            "Running the same again, with the same seed, goes on with it.",
            status=reply.status, request_id=request_id, may_be_billed=True,
        )  # fmt: skip
    lines = body.get("logs")
    logs = [
        line.get("message")
        for line in (lines if isinstance(lines, list) else [])
        if isinstance(line, dict)
    ]
    position = body.get("queue_position")
    return Status(
        state,
        _whole(position),
        tuple(tidy(str(text)) for text in logs if text),
        bool(body.get("error") or body.get("error_type")),
    )


def read_output(reply: Reply, request_id: str) -> Output:
    """Raises RemoteError if the answer holds no images."""
    body = reply.json()
    found = body.get("images") if isinstance(body, dict) else None
    images = [_file(item) for item in found] if isinstance(found, list) else []
    if not images or None in images:
        raise RemoteError(
            "The result holds no images that can be read. Running the same again asks once more; "
            "another seed sends a new job.",
            status=reply.status, request_id=request_id, may_be_billed=True,
        )  # fmt: skip
    flags = body.get("has_nsfw_concepts")
    if not isinstance(flags, list):  # one flag for all, or none
        flags = [bool(flags)] * len(images)
    seed, prompt = body.get("seed"), body.get("prompt")
    return Output(
        tuple(image for image in images if image is not None),
        _whole(seed),
        tuple(bool(i < len(flags) and flags[i]) for i in range(len(images))),
        prompt if isinstance(prompt, str) else None,
        _timings(body.get("timings")),
        reply.billed_units,
    )


def _file(item: object) -> File | None:
    if not isinstance(item, dict) or not isinstance(item.get("url"), str):
        return None
    size = [item.get(name) for name in ("width", "height")]
    width, height = (_whole(value) for value in size)
    return File(item["url"], width, height)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _timings(found: object) -> dict[str, float]:
    items = found.items() if isinstance(found, dict) else ()
    numbers = {tidy(str(name)): amount(value) for name, value in items}
    return {name: value for name, value in numbers.items() if value is not None}
