"""fal's queue: submit, status, status stream, result, cancel."""

from __future__ import annotations

import json
import time
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from ....nodes.errors import InputError
from .. import errors
from ..messages import Answer
from ..queue.dispatcher import Dispatcher
from ..queue.job_states import DONE, QUEUED, Job
from ..queue.notifications import Notifier
from ..queue.store import JobStore, QueueFullError
from ..schemas import ErrorDetail, OneRewardInput, OneRewardOutput, QueueAnswer, Status, Submission
from ..settings import Settings
from . import responses
from .responses import NOT_FOUND, reply
from .submit import bad_request, read_job

KEEP_ALIVE = 10.0  # seconds of silence on a stream before a comment is sent
POLL = 0.5  # seconds between two looks for what another head did
WRITTEN_ON = {"1": True, "true": True, "0": False, "false": False}
NOT_READY = Answer(400, {"detail": "Request is still in progress"})
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": OneRewardInput.model_json_schema()}},
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorDetail} for code in (400, 401, 413, 422, 429, 499, 500, 503, 504)
}
GONE: dict[int | str, dict[str, Any]] = {404: {"model": QueueAnswer}}

Route = TypeVar("Route", bound=Callable[..., Any])
Logs = Annotated[Literal["0", "1", "true", "false"], Query(description="log lines, too")]


class Queue:
    """What the routes of the queue and of direct runs share."""

    def __init__(
        self, store: JobStore, dispatcher: Dispatcher, notifier: Notifier, settings: Settings
    ) -> None:
        self.store, self.dispatcher, self.notifier = store, dispatcher, notifier
        self.settings = settings

    async def submit(self, request: Request, key_id: str) -> tuple[Job, int] | Answer:
        """The accepted job and how many stand before it, or why it was not accepted."""
        if "fal_webhook" in request.query_params:
            return bad_request("Webhooks are not supported by this server. Poll the status")
        try:
            job, refusal = read_job(await request.body(), request.headers, key_id, self.settings)
            most = self._most(request.query_params.get("fal_max_queue_length"))
        except InputError as error:
            return bad_request(str(error))
        if refusal is not None:
            return await to_thread(self.store.refuse, job, refusal), 0
        try:
            limit = self.settings.submits_per_minute
            accepted = await to_thread(self.store.add, job, most, limit)
        except QueueFullError as error:
            return errors.platform(429, "queue_full", str(error), **{"Retry-After": "5"})
        self.dispatcher.wake()
        return accepted

    def _most(self, asked: str | None) -> int:
        if asked is None:
            return self.settings.max_queue
        if not asked.isascii() or not asked.isdecimal() or len(asked) > 9:
            raise InputError("fal_max_queue_length is a whole number")
        return min(int(asked), self.settings.max_queue)

    def find(self, request_id: str, key_id: str) -> Job | None:
        """The key's job; None for ids of any other form, too."""
        try:
            name = str(UUID(request_id))
        except ValueError:
            return None
        return self.store.find(name, key_id)

    def status(self, job: Job, with_logs: bool, after: int = 0) -> Answer:
        ahead = self.store.position(job) if job.state == QUEUED else None
        logs = self.store.logs(job.number, after) if with_logs else None
        return responses.status(job, ahead, logs, self.settings)

    def result(self, job: Job) -> Response:
        """The answer of a job, its pictures or its error."""
        stored = self.store.answer(job.number) if job.state == DONE else None
        if stored is None:
            return reply(NOT_READY, job.id)
        code, headers, body = stored
        sent = {**headers, responses.REQUEST_ID: job.id}
        return Response(body, code, sent, "application/json")

    def cancel(self, job: Job) -> Answer:
        word = self.store.cancel(job)
        codes = {"OK": 200, "CANCELLATION_REQUESTED": 202, "ALREADY_COMPLETED": 400}
        return Answer(codes[word], {"status": word})

    async def stream(self, job: Job, key_id: str, with_logs: bool) -> AsyncIterator[str]:
        """Server-sent events: the status whenever it changes, with the lines that are new."""
        lines, spoke = 0, time.monotonic()
        seen: Mapping[str, Any] = {}
        with self.notifier.listen(job.number) as subscription:
            while True:
                found = await to_thread(self.store.find, job.id, key_id)
                if found is None:
                    return
                body = (await to_thread(self.status, found, with_logs, lines)).body
                place = {**body, "logs": None}
                if body["logs"] or place != seen:
                    yield f"data: {json.dumps(body)}\n\n"
                    lines, seen, spoke = lines + len(body["logs"] or ()), place, time.monotonic()
                elif time.monotonic() - spoke > KEEP_ALIVE:
                    yield ": still here\n\n"
                    spoke = time.monotonic()
                if found.state == DONE:
                    return
                await subscription.wait(POLL)

    async def until_done(self, job: Job, key_id: str, request: Request) -> Job | None:
        """The job when it is done; None if the client hung up, so that nobody waits for it."""
        with self.notifier.listen(job.number) as subscription:
            while True:
                found = await to_thread(self.store.find, job.id, key_id)
                if found is None or found.state == DONE:
                    return found
                if await request.is_disconnected():
                    return None
                await subscription.wait(POLL)


def make_router(queue: Queue, key: Any) -> APIRouter:
    """The queue's routes; `key` is the dependency that gives the caller's key id."""
    router, endpoint = APIRouter(tags=["queue"]), f"/{queue.settings.endpoint}"

    @router.post(
        endpoint, response_model=Submission, responses=ERRORS, openapi_extra=BODY,
        summary="Send a job. Mistakes in its input come with its result",
    )  # fmt: skip
    async def submit(request: Request, key_id: str = Depends(key)) -> Response:
        accepted = await queue.submit(request, key_id)
        if isinstance(accepted, Answer):
            return reply(accepted)
        job, ahead = accepted
        return reply(responses.submission(job, ahead, queue.settings), job.id)

    route = partial(_route, router, endpoint)

    @route("/status", "GET", response_model=Status, responses={202: {"model": Status}, **GONE})
    def status(request_id: str, key_id: str = Depends(key), logs: Logs = "0") -> Response:
        job = queue.find(request_id, key_id)
        if job is None:
            return reply(NOT_FOUND)
        return reply(queue.status(job, WRITTEN_ON[logs]), job.id)

    @route("/status/stream", "GET", response_class=StreamingResponse, responses=GONE)
    async def stream(request_id: str, key_id: str = Depends(key), logs: Logs = "0") -> Response:
        job = await to_thread(queue.find, request_id, key_id)
        if job is None:
            return reply(NOT_FOUND)
        events = queue.stream(job, key_id, WRITTEN_ON[logs])
        headers = {responses.REQUEST_ID: job.id, "Cache-Control": "no-store"}
        return StreamingResponse(events, 200, headers, "text/event-stream")

    @route("/cancel", "PUT", response_model=QueueAnswer,
           responses={code: {"model": QueueAnswer} for code in (202, 400, 404)})  # fmt: skip
    async def cancel(request_id: str, key_id: str = Depends(key)) -> Response:
        job = await to_thread(queue.find, request_id, key_id)
        if job is None:
            return reply(NOT_FOUND)
        answer = await to_thread(queue.cancel, job)
        queue.dispatcher.cancel(job.number)
        queue.notifier.notify(job.number)
        return reply(answer, job.id)

    @route("/response", "GET", response_model=OneRewardOutput, responses={**ERRORS, **GONE})
    @route("", "GET", response_model=OneRewardOutput, responses={**ERRORS, **GONE})
    def result(request_id: str, key_id: str = Depends(key)) -> Response:
        job = queue.find(request_id, key_id)
        return reply(NOT_FOUND) if job is None else queue.result(job)

    return router


def _route(
    router: APIRouter, endpoint: str, path: str, method: str, **about: Any
) -> Callable[[Route], Route]:
    """On the endpoint's own path and on any below it, as clients ask either way."""

    def add(function: Route) -> Route:
        for base, shown in ((endpoint, True), (endpoint + "/{sub:path}", False)):
            router.add_api_route(
                f"{base}/requests/{{request_id}}{path}", function, methods=[method],
                include_in_schema=shown, **about,
            )  # fmt: skip
        return function

    return add
