"""What a route takes from a browser, and how it refuses: always JSON, always in sentences."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from ...config.json_values import parse
from ...errors import JournalError, OneRewardError, RemoteError
from ...loopback import is_loopback

LARGEST = 64 * 1024
OWN_PAGE = ("same-origin", "none")  # Sec-Fetch-Site of ComfyUI's page, and of a typed address
# A proxy names the machine it speaks for; then the one that we see is not the one that asks.
SPEAKS_FOR_ANOTHER = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")

T = TypeVar("T")


async def json_body(request: web.Request, *, this_machine_only: bool) -> dict[str, Any]:
    """The JSON object of a POST that a page of this ComfyUI, or a program, sent.

    Args:
        this_machine_only: only requests from the machine that ComfyUI runs on are answered.

    Raises:
        web.HTTPException: with JSON {"error": text}. 415: not sent as application/json, which a
            form of another site could be; 403: sent by another site's page, or from another
            machine where this one is asked for; 400: no JSON object, or more than 64 KB.
    """
    if request.content_type != "application/json":
        raise _no(web.HTTPUnsupportedMediaType, "Send JSON, as Content-Type application/json.")
    if not _from_own_page(request):
        raise _no(web.HTTPForbidden, "This was sent by a page of another site. Use ComfyUI's own.")
    if this_machine_only:
        _check_machine(request)
    return _object(await _read(request))


def refusal(error: Exception | str, status: int = 400, input: str | None = None) -> web.Response:
    """An answer that says what was wrong; `input` names the node's input at fault."""
    payload = {"error": str(error)} | ({} if input is None else {"input": input})
    return web.json_response(payload, status=status)


async def answer(work: Callable[[], object]) -> web.Response:
    """What `work` returns, as JSON, or the error that the pack raised on purpose, as text. The
    work is done on a thread of its own.
    """
    try:
        return web.json_response(await asyncio.to_thread(work))
    except OneRewardError as error:
        status = 502 if isinstance(error, RemoteError) else 400
        return refusal(error, 500 if isinstance(error, JournalError) else status)


def one_text(kind: type[T], body: Mapping[str, object]) -> T:
    """The body as a dataclass of one text field, and nothing else.

    Raises:
        InputError: there is another field or value. The message does not show the value.
    """
    return parse(kind, body, "The body", secret=True)


def is_here(request: web.Request) -> bool:
    """Whether a request comes from this machine, and by this machine's own name.

    The name counts against DNS rebinding: a site that points its own name at 127.0.0.1 makes a
    visitor's browser ask from here.
    """
    if any(name in request.headers for name in SPEAKS_FOR_ANOTHER):
        return False
    named = _split(f"//{request.host}")
    return named is not None and is_loopback(request.remote) and is_loopback(named.hostname)


def _check_machine(request: web.Request) -> None:
    if not is_here(request):
        text = "This works on the machine that ComfyUI runs on alone. Open it there, as "
        raise _no(web.HTTPForbidden, f"{text}http://127.0.0.1 with its port.")


def _from_own_page(request: web.Request) -> bool:
    """False for a page of another site (cross-site request forgery). True for programs, which name
    no origin and which no page can make ask.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN_PAGE:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    parts = _split(origin)
    return parts is not None and parts.netloc.lower() == request.host.lower()


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # brackets that hold no address
        return None


async def _read(request: web.Request) -> bytes:
    data = bytearray()
    async for chunk in request.content.iter_chunked(LARGEST):
        data += chunk
        if len(data) > LARGEST:
            text = f"This is more than {LARGEST // 1024} KB. Send less."
            raise _no(web.HTTPBadRequest, text)
    return bytes(data)


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):  # the error's own text would show the body
        raise _no(web.HTTPBadRequest, "This is no JSON. Send a JSON object.") from None
    if not isinstance(body, dict):
        raise _no(web.HTTPBadRequest, "This is no JSON object. Send one, in {}.")
    return body


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _no(kind: type[web.HTTPException], text: str) -> web.HTTPException:
    return kind(text=json.dumps({"error": text}), content_type="application/json")
