"""fal's direct calls: one request that answers with the result."""

from __future__ import annotations

from asyncio import to_thread
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from ..messages import Answer
from ..schemas import OneRewardOutput
from .responses import NOT_FOUND, reply
from .routes_queue import BODY, ERRORS, Queue

PREFIX = "/run"  # where queue and direct calls share one host


def make_router(queue: Queue, key: Any) -> APIRouter:
    """The route of direct calls; `key` is the dependency that gives the caller's key id."""
    router = APIRouter(tags=["direct call"])

    @router.post(
        f"{PREFIX}/{queue.settings.endpoint}", response_model=OneRewardOutput, responses=ERRORS,
        openapi_extra=BODY, summary="Send a job and wait for its result; hanging up cancels it",
    )  # fmt: skip
    async def run(request: Request, key_id: str = Depends(key)) -> Response:
        accepted = await queue.submit(request, key_id)
        if isinstance(accepted, Answer):
            return reply(accepted)
        job = accepted[0]
        done = None
        try:
            done = await queue.until_done(job, key_id, request)
        finally:
            if done is None:
                await to_thread(queue.cancel, job)
                queue.dispatcher.cancel(job.number)
        return reply(NOT_FOUND) if done is None else await to_thread(queue.result, done)

    return router
