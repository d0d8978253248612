"""The HTTP head: everything that serves requests and works off the queue, put together."""

from __future__ import annotations

import asyncio
from asyncio import Task, to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from .. import errors
from ..database import open_database
from ..keys import Keys
from ..messages import Answer, WorkerPool
from ..queue.dispatcher import Dispatcher, new_owner, patiently
from ..queue.leases import Leases
from ..queue.notifications import Notifier
from ..queue.store import JobStore
from ..settings import Settings
from ..storage.files import Files
from ..storage.url_fetch import fetch
from . import routes_queue, routes_run, routes_storage
from .auth import require_key
from .body_limit import BodyLimit
from .middleware import FalHosts, RequestIds
from .responses import REQUEST_ID, reply
from .routes_queue import Queue

SWEEP = 60.0  # seconds between two looks for what has expired


class Head:
    """The parts of one head. Opens the database, and raises InputError if it cannot."""

    def __init__(self, settings: Settings, pool: WorkerPool) -> None:
        self.settings = settings
        self.engine: Engine = open_database(settings)
        self.keys, self.files = Keys(self.engine), Files(self.engine, settings)
        self.store, self.notifier = JobStore(self.engine), Notifier()
        self.leases = Leases(self.engine, new_owner())
        self.dispatcher = Dispatcher(
            self.store, self.leases, self.files,
            partial(fetch, settings=settings, own=self.files), pool, self.notifier, settings,
        )  # fmt: skip
        self.at_work: list[Task[None]] = []

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """The dispatcher and the sweeper run while the server does."""
        self.at_work = [
            asyncio.create_task(work) for work in (self.dispatcher.run(), self._sweep())
        ]
        try:
            yield
        finally:
            for task in self.at_work:
                task.cancel()
            await asyncio.wait(self.at_work)
            self.engine.dispose()

    async def _sweep(self) -> None:
        while True:
            await patiently(self.files.sweep)
            await patiently(self.leases.forget)
            await asyncio.sleep(SWEEP)

    def check(self) -> None:
        """Raises RuntimeError if the queue is not worked off any more, until the program starts
        anew.
        """
        if any(task.done() for task in self.at_work):
            raise RuntimeError("The queue is not worked off")

    async def health(self) -> Answer:
        """ok while the queue is worked off; reads the database."""
        counts = await to_thread(self.store.counts)
        if not self.at_work or any(task.done() for task in self.at_work):
            return errors.platform(503, "internal_error", "The queue is not worked off")
        return Answer(200, {"status": "ok", **counts})


def make_app(head: Head) -> ASGIApp:
    """The head as an ASGI application."""
    settings = head.settings
    app = FastAPI(
        title="OneReward server",
        description="fal's protocol for mask-guided edits on your own machines.",
        lifespan=head.lifespan,
    )
    queue = Queue(head.store, head.dispatcher, head.notifier, settings)
    key = require_key(head.keys)

    @app.get("/health", tags=["server"], summary="Whether the server works, and its load")
    async def health() -> Response:
        return reply(await head.health())

    @app.get("/models/pricing", tags=["server"], summary="Your own server costs nothing")
    @app.get("/v1/models/pricing", tags=["server"], include_in_schema=False)
    def pricing(endpoint_id: str = "") -> dict[str, Any]:
        price = {"endpoint_id": settings.endpoint, "unit_price": 0, "unit": "images"}
        asked = settings.endpoint in endpoint_id.split(",")
        prices = [{**price, "currency": "USD"}] if asked else []
        return {"prices": prices, "next_cursor": None, "has_more": False}

    app.include_router(routes_storage.make_router(head.files, head.keys, settings))
    app.include_router(routes_run.make_router(queue, key))
    app.include_router(routes_queue.make_router(queue, key))
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _failed)
    return _wrapped(app, settings)


def _wrapped(app: ASGIApp, settings: Settings) -> ASGIApp:
    whole: ASGIApp = RequestIds(FalHosts(BodyLimit(app, settings)))
    if not settings.cors_origins:
        return whole
    return CORSMiddleware(
        whole,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PUT"],
        allow_headers=["*"],
        expose_headers=[REQUEST_ID],
    )


def _http_error(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 404 and error.detail == "Not Found":
        headers["x-fal-billable-units"] = "0"
        return reply(Answer(404, {"detail": f"Path {request.url.path} not found"}, headers))
    return reply(Answer(error.status_code, {"detail": error.detail}, headers))


def _invalid(request: Request, error: RequestValidationError) -> Response:
    entries = [
        {**errors.entry("", one["type"], one["msg"], None), "loc": list(one["loc"])}
        for one in error.errors()
    ]
    return reply(Answer(422, {"detail": entries}))


def _failed(request: Request, error: Exception) -> Response:
    return reply(errors.platform(500, "internal_error", "The server failed"))
