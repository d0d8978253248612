"""Reads the pictures of a job: data URIs, this server's own files, and files on the internet."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
from asyncio import to_thread
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from urllib.parse import unquote_to_bytes, urljoin

import httpcore

from ..settings import MEGABYTE, Settings
from . import ssrf
from .files import Files
from .ssrf import Address, BadAddressError, Resolver, look_up

DEADLINE = 30.0  # seconds for all of it, names and redirects too
CONNECT_SECONDS = 10.0  # for each of a host's addresses
MOST_REDIRECTS = 3
MOST_ESCAPES = 1_000_000  # each takes a hundred bytes for a while
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SPACE = re.compile(rb"[ \t\r\n\f]+")
_HEADERS = [
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),  # a bomb must be as large on the wire as it is here
    (b"User-Agent", b"onereward-server"),
    (b"Connection", b"close"),
]
# What httpcore raises has no common base.
_BROKEN = (
    httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException,
    httpcore.UnsupportedProtocol, httpcore.ConnectionNotAvailable, OSError,
)  # fmt: skip


class FetchError(Exception):
    """A picture cannot be had.

    Attributes:
        kind: fal's word for the fault.
        message: a sentence for the client; no query string and no password is in it.
        ctx: fal's numbers for that fault.
    """

    def __init__(self, kind: str, message: str, ctx: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.ctx = ctx


async def fetch(url: str, settings: Settings, own: Files, resolve: Resolver = look_up) -> bytes:
    """The file at a data:, http: or https: URL, of at most `settings.max_body_mb`.

    Raises:
        FetchError: file_download_error, file_too_large or image_load_error.
    """
    most = settings.max_body_mb * MEGABYTE
    if url[:5].lower() == "data:":
        return await to_thread(_decode, url, most)
    try:
        return await asyncio.wait_for(_follow(url, settings, own, resolve, most), DEADLINE)
    except BadAddressError as error:
        raise _failed(f"{error}.") from error
    except asyncio.TimeoutError as error:
        raise _failed(f"The file did not arrive within {DEADLINE:.0f} seconds.") from error


async def _follow(url: str, settings: Settings, own: Files, resolve: Resolver, most: int) -> bytes:
    scheme = ""
    for _ in range(MOST_REDIRECTS + 1):
        name = own.own(url)
        if name is not None:
            return await to_thread(_read, own, name, most)
        address = ssrf.parse(url)
        if (scheme, address.scheme) == ("https", "http"):
            raise BadAddressError("A redirect from https to http is not followed")
        scheme = address.scheme
        answer = await _get(address, settings, resolve, most)
        if isinstance(answer, bytes):
            return answer
        url = _joined(url, answer)
    raise BadAddressError(f"There were more than {MOST_REDIRECTS} redirects")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise BadAddressError("A redirect leads to no URL") from error


async def _get(address: Address, settings: Settings, resolve: Resolver, most: int) -> bytes | str:
    """The file, or the address that the answer redirects to."""
    url = httpcore.URL(
        scheme=address.scheme, host=address.host, port=address.port, target=address.target
    )
    headers = [(b"Host", address.authority.encode()), *_HEADERS]
    guard = _Guard(ssrf.is_allowed(address, settings.allow_hosts), resolve)
    try:
        async with httpcore.AsyncConnectionPool(
            ssl_context=_trust(), network_backend=guard, max_connections=1
        ) as pool, pool.stream("GET", url, headers=headers) as answer:  # fmt: skip
            if answer.status in _REDIRECTS:
                return _header(answer.headers, b"location")
            return await _body(answer, most, address.host)
    except _BROKEN as error:
        raise _failed(f"The file could not be fetched from {address.host}.") from error


async def _body(answer: httpcore.Response, most: int, host: str) -> bytes:
    if answer.status != 200:
        raise _failed(f"{host} answered {answer.status} in place of the file.")
    if _header(answer.headers, b"content-encoding").lower() not in ("", "identity"):
        raise _failed(f"{host} sent the file compressed, which was not asked for.")
    declared = _header(answer.headers, b"content-length")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > most):
        raise _too_large(most)
    data = bytearray()
    async for chunk in answer.aiter_stream():
        data += chunk
        if len(data) > most:
            raise _too_large(most)
    return bytes(data)


class _Guard(httpcore.AsyncNetworkBackend):
    """Connects to the very IP address that ssrf.py allowed, so that DNS cannot give another one in
    between (DNS rebinding). TLS still checks the host's name.
    """

    def __init__(self, allowed: bool, resolve: Resolver) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._net = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if not (self._allowed or ssrf.is_open_port(port)):
            raise BadAddressError(f"Files are not fetched from port {port}")
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError()
        for address in await self._addresses(host, port):
            try:
                return await self._net.connect_tcp(address, port, CONNECT_SECONDS)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = list(await self._resolve(host, port))
        except OSError:
            found = []
        # One sentence for both: who asks does not learn the names of this network.
        if not found or not (self._allowed or all(map(ssrf.is_public, found))):
            raise BadAddressError(f"{host} has no public address")
        return found


def _decode(uri: str, most: int) -> bytes:
    head, comma, text = uri.partition(",")
    if not comma:
        raise FetchError("image_load_error", "The data URI has no comma.")
    if len(text) > 4 * most:  # longer than even percent signs could make it
        raise _too_large(most)
    if text.count("%") > MOST_ESCAPES:
        raise FetchError("image_load_error", "The data URI has too many escapes. Use base64.")
    try:
        data = unquote_to_bytes(text)
        if head.lower().endswith(";base64"):
            plain = _SPACE.sub(b"", data).rstrip(b"=")
            data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, UnicodeError) as error:
        raise FetchError("image_load_error", "The data URI is not valid base64.") from error
    if len(data) > most:
        raise _too_large(most)
    return data


def _read(own: Files, name: str, most: int) -> bytes:
    found = own.find(name)
    data = None
    with suppress(FileNotFoundError):
        if found is not None and found[0].stat().st_size > most:
            raise _too_large(most)
        data = own.read(name)
    if data is None:
        raise _failed("There is no such file on this server, or not any more.")
    return data


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _failed(message: str) -> FetchError:
    return FetchError("file_download_error", message)


def _too_large(most: int) -> FetchError:
    message = f"The file is too large: {most // MEGABYTE} MB are allowed."
    return FetchError("file_too_large", message, {"max_size": most})


@cache
def _trust() -> ssl.SSLContext:
    return httpcore.default_ssl_context()
