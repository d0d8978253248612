"""Refuses bodies that are too long, before they fill the memory or the disk."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from ..settings import MEGABYTE, Settings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LINGER = 2.0  # seconds in which a client may go on sending, so that it hears why not
_SMALL = 2 * MEGABYTE  # JSON about an upload, which is read before the key is checked
_UPLOAD = re.compile(r"/files/upload/?|/upload/[^/]+(/multipart/\d+)?/?|/files/[^/]+/multipart/.*")
_ABOUT_UPLOADS = re.compile(r"/storage/.*|.*/multipart/([^/]+/)?complete/?")


class BodyLimit:
    """ASGI middleware: 413 for a body over `max_body_mb`, or an upload over `max_upload_mb`,
    whether Content-Length declares it or the body turns out so long."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most(scope["path"])
        body = _Body(receive, send, most)
        declared = Headers(scope=dict(scope)).get("content-length", "")
        if declared.isdecimal() and (len(declared) > 15 or int(declared) > most):
            await body.refuse()
            return
        try:
            await self._app(scope, body.receive, body.send)
        except ClientDisconnect:
            if not body.refused:
                raise

    def _most(self, path: str) -> int:
        if _ABOUT_UPLOADS.fullmatch(path):
            return min(_SMALL, self._settings.max_body_mb * MEGABYTE)
        upload = _UPLOAD.fullmatch(path)
        return (self._settings.max_upload_mb if upload else self._settings.max_body_mb) * MEGABYTE


class _Body:
    """One request's body, counted. Past the limit the app hears that the client has gone, and
    what it says to that is not sent."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._most = receive, send, most
        self._size = 0
        self._started = False
        self._more = True  # to come from the client
        self.refused = False

    async def receive(self) -> Message:
        if self._size <= self._most:
            message = await self._next()
            if self._size <= self._most:
                return message
            if not self._started:
                await self.refuse()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._started = True
            await self._send(message)

    async def refuse(self) -> None:
        """Answer 413. The connection is closed only after a while, as a client that is still
        sending would find it broken before it reads the answer."""
        self.refused = True
        detail = f"The body is too large: {self._most // MEGABYTE} MB are allowed."
        body = json.dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close"),
                   (b"content-length", str(len(body)).encode())]  # fmt: skip
        await self._send({"type": "http.response.start", "status": 413, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drain(), LINGER)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        while self._more:
            await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._more = bool(message.get("more_body"))
        return message
