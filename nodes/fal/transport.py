"""Transport: one HTTP exchange, bounded in time and size, never redirected.

Its errors say whether a request was sent. The exceptions of `requests` end here.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from ..errors import RemoteError

USER_AGENT = "ComfyUI-OneReward/0.1"
MEGABYTE = 1 << 20
CHUNK = 64 << 10
HIDDEN = "(the key)"
REQUEST_ID = "x-fal-request-id"


class ConnectionLost(RemoteError):
    """No whole answer came.

    Attributes:
        sent: whether the service may have received the request.
    """

    def __init__(self, message: str, *, sent: bool, request_id: str | None = None) -> None:
        super().__init__(message, may_be_billed=sent, request_id=request_id)
        self.sent = sent


class Oversized(RemoteError):
    """An answer is larger than anything that belongs there."""


@dataclass(frozen=True)
class Reply:
    """A whole answer. `headers` is case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def from_app(self) -> bool:
        """The service itself answered, not something on the way to it."""
        return REQUEST_ID in self.headers or isinstance(self.json(), dict)

    def without(self, secret: str) -> Reply:
        """The same answer, without a secret it may repeat."""
        headers = CaseInsensitiveDict((k, hide(v, secret)) for k, v in self.headers.items())
        body = self.body.replace(secret.encode(), HIDDEN.encode()) if secret else self.body
        return Reply(self.status, headers, body)

    @property
    def billed_units(self) -> float | None:
        """What the service says it billed, in its own units."""
        return amount(self.headers.get("x-fal-billable-units"))

    def json(self) -> Any:
        """The body as JSON, None if it is not."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def hide(text: str, secret: str) -> str:
    return text.replace(secret, HIDDEN) if secret else text


def amount(value: object) -> float | None:
    """A finite number from 0 up; None for anything else, such as text, NaN or a negative bill."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


class Upload:
    """A request body that knows whether the service can have all of it. No `io` class: requests
    would ask it for its position, and then send it in chunks of unknown length.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._position, self._lock = data, 0, threading.Lock()
        self._aborted = False

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            if self._aborted:
                raise ConnectionLost("The request was given up.", sent=False)
            end = len(self._data) if size < 0 else self._position + size
            block = self._data[self._position : end]
            self._position += len(block)
            return block

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(CHUNK):
            yield block

    @property
    def handed_over(self) -> bool:
        """The last byte has gone to the connection: the service may have it all."""
        return self._position == len(self._data)

    def abort(self) -> bool:
        """Send no more; False if it is too late for that."""
        with self._lock:
            self._aborted = not self.handed_over
            return self._aborted


class KeyAuth(AuthBase):
    """fal's `Authorization: Key ...`. As an auth object, and not a plain header, because requests
    lets an entry in ~/.netrc replace a header.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Key {self.key}"
        return request

    def __repr__(self) -> str:
        return "KeyAuth(...)"


class NoAuth(AuthBase):
    """Nothing, not even from ~/.netrc: for files, which anyone with the URL may fetch."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _NoRedirects(requests.Session):
    """Told not to follow a redirect, requests still reads its whole body and takes its address
    apart. This one does not.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def new_session(ca: Path | None = None) -> requests.Session:
    """A session that keeps connections, and no cookies. Proxies of the environment count.

    Args:
        ca: the certificates that a service is checked against; None for those the machine knows.
    """
    session = _NoRedirects()
    session.verify = True if ca is None else str(ca)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = USER_AGENT
    adapter = HTTPAdapter(max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    *,
    auth: AuthBase,
    timeout: tuple[float, float],
    headers: Mapping[str, str] | None = None,
    data: bytes | Upload | None = None,
    max_bytes: int = 8 * MEGABYTE,
) -> Reply:
    """Send one request and read the whole answer, of any status.

    Args:
        timeout: seconds to connect, and between two reads.
        max_bytes: the largest answer, after decompression.

    Raises:
        ConnectionLost: there was no whole answer; its `sent` says whether a request went out.
        Oversized: the answer is larger than `max_bytes`.
    """
    head: Mapping[str, str] = {}
    try:
        with session.request(
            method, url, auth=auth, headers=dict(headers or {}), timeout=timeout,
            data=data, stream=True, allow_redirects=False,
            verify=session.verify,  # given here, the environment does not replace a file
        ) as response:  # fmt: skip
            head = response.headers
            body = _read(response, max_bytes, url)
            return Reply(response.status_code, response.headers, body)
    except (requests.RequestException, HTTPError, OSError) as error:
        # An upload knows better than the error: TLS, too, can break after all was read.
        sent = data.handed_over if isinstance(data, Upload) else _was_sent(error)
        # The cause is left out: its text holds the URL, which may be a signed one.
        raise ConnectionLost(
            f"The connection to {urlsplit(url).hostname} failed ({_reason(error)}). Check the "
            "network, the proxy and the server's address.",
            sent=sent,
            request_id=head.get(REQUEST_ID),
        ) from None


def _read(response: requests.Response, max_bytes: int, url: str) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise Oversized(
                f"{urlsplit(url).hostname} sent more than {max_bytes // MEGABYTE} MB, which no "
                "answer of this kind needs."
            )
    return bytes(body)


def _was_sent(error: Exception) -> bool:
    """False only if no connection was ever made."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError)):
        return False
    if isinstance(error, (requests.exceptions.ProxyError, requests.exceptions.InvalidURL)):
        return False
    inner = error.args[0] if error.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else inner
    return not isinstance(reason, (NewConnectionError, SSLError, ProxyError))


def _reason(error: Exception) -> str:
    """A short reason, without URLs."""
    names = {
        requests.exceptions.ConnectTimeout: "no connection in time",
        requests.exceptions.ReadTimeout: "no answer in time",
        requests.exceptions.SSLError: "the certificate or TLS was refused",
        requests.exceptions.ProxyError: "the proxy refused",
        requests.exceptions.ChunkedEncodingError: "the answer was cut short",
        requests.exceptions.ContentDecodingError: "the answer could not be decompressed",
    }
    for kind, text in names.items():
        if isinstance(error, kind):
            return text
    return "it was closed" if _was_sent(error) else "nothing answers there"
