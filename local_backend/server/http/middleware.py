"""fal's host names on one origin, its proxy route, and the request id of every answer."""

from __future__ import annotations

import json
import uuid
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .responses import REQUEST_ID
from .routes_run import PREFIX

PROXY = "/api/fal/proxy"
TARGET = "x-fal-target-url"
# what a path begins with on each of fal's hosts
HOSTS = {
    "fal.run": PREFIX,
    "queue.fal.run": "",
    "rest.fal.ai": "",
    "rest.alpha.fal.ai": "",
    "v3.fal.media": "",
    "api.fal.ai": "",
}


class FalHosts:
    """Leads a request for one of fal's hosts, by its Host or through the proxy route, to this
    server's own route. Other hosts are refused there: this is no open proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"].rstrip("/") == PROXY and scope["method"] != "OPTIONS":
            target = headers.get(TARGET)
            if target is None:
                await _refusal(400, f"Missing the {TARGET} header")(scope, receive, send)
                return
            found = _target(target)
            if found is None:
                await _refusal(412, f"Invalid {TARGET} header")(scope, receive, send)
                return
            path, query = found
        else:
            host = headers.get("host", "").rsplit(":", 1)[0].lower()
            path = HOSTS.get(host, "") + scope["path"]
            query = scope["query_string"]
        path = path.rstrip("/") or "/"
        moved = {"path": path, "raw_path": path.encode(), "query_string": query}
        await self._app({**scope, **moved}, receive, send)


class RequestIds:
    """Every answer names its request: the job's id, or one of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(REQUEST_ID, str(uuid.uuid4()))
            await send(message)

        await self._app(scope, receive, named if scope["type"] == "http" else send)


def _target(url: str) -> tuple[str, bytes] | None:
    """Path and query on this server; None for a host that is not fal's."""
    try:
        parts = urlsplit(url)
        prefix = HOSTS.get(parts.hostname or "")
    except ValueError:  # brackets that hold no address
        return None
    if parts.scheme != "https" or prefix is None or not url.isascii():
        return None
    return prefix + unquote(parts.path), parts.query.encode()


def _refusal(status: int, text: str) -> Response:
    return Response(json.dumps({"detail": text}), status, media_type="application/json")
