"""What can go wrong at fal: faults of single requests, and outcomes of whole jobs.

A fault is given to FalServer.fail(phase, fault), an outcome to FalServer.next_job(outcome).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MEGABYTE = 1 << 20
Entries = list[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """One HTTP answer. A fal answer carries x-fal-request-id, an ingress page does not."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    from_fal: bool = True


def json_reply(status: int, value: object, headers: Mapping[str, str] | None = None) -> Reply:
    """The value as JSON; the headers win over the content type."""
    body = json.dumps(value).encode()
    return Reply(status, body, {"Content-Type": "application/json", **(headers or {})})


class Wire(Protocol):
    """What a fault may do to the connection."""

    phase: str

    def send(self, reply: Reply) -> None:
        """Send the whole answer."""

    def send_head(self, reply: Reply, **headers: str) -> None:
        """Send status and headers only; the caller names the body's length."""

    def write(self, data: bytes) -> None:
        """Send raw bytes."""

    def pause(self, seconds: float) -> None:
        """Wait, unless the server stops earlier."""

    def close(self) -> None:
        """End the connection in good order after this request."""

    def reset(self) -> None:
        """Tear the connection down: the peer sees a TCP reset."""


@dataclass(frozen=True)
class Fault:
    """send(wire, reply) answers instead of the server; `reply` is real only if it is carried out.

    carried_out: the request has its effect (a submit makes a job) whatever the client sees.
    reads_body: the fault strikes after the request's body was read, else right after its headers.
    """

    send: Callable[[Wire, Reply], None]
    carried_out: bool = False
    reads_body: bool = True


# Faults of the answer's content


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Fault:
    """A str body is an HTML page of the ingress, without x-fal-request-id; all else is fal JSON."""
    if isinstance(body, str):
        page = Reply(status, body.encode(), {"Content-Type": "text/html", **(headers or {})}, False)
        return Fault(lambda wire, _: wire.send(page))
    reply = json_reply(status, body, headers)
    return Fault(lambda wire, _: wire.send(reply))


def unauthorized() -> Fault:
    return answer(401, {"detail": "No user found for Key ID and Secret"})


def locked() -> Fault:
    return answer(403, {"detail": "User is locked. Reason: Exhausted balance"})


def not_found() -> Fault:
    return answer(404, {"status": "NOT_FOUND"})


def invalid(
    field_name: str = "num_inference_steps",
    kind: str = "less_than_equal",
    ctx: Mapping[str, object] | None = None,
    message: str = "Input should be less than or equal to 50",
) -> Fault:
    """422 with one model error, whose ctx holds the bound."""
    entry = error_entry(field_name, kind, message, {"le": 50} if ctx is None else ctx)
    return answer(422, {"detail": [{**entry, "input": 1000}]}, {"x-fal-billable-units": "0"})


def too_many(retry_after: float | str | None = 1) -> Fault:
    """429; with None there is no Retry-After."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return answer(429, {"detail": "Concurrent requests limit reached"}, headers)


def ingress(status: int = 503) -> Fault:
    """An HTML page that no part of fal has signed: 502 or 503."""
    title = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable"}[status]
    head = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1>"
    return answer(status, head + "</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>")


def server_error() -> Fault:
    """500 by fal itself, with x-fal-request-id."""
    body = {"detail": "Internal Server Error", "error_type": "internal_error"}
    return answer(500, body, {"X-Fal-Error-Type": "internal_error"})


def html_page() -> Fault:
    """200 with a web page, as a hotel's network answers."""
    return answer(200, "<!DOCTYPE html><html><body>Please log in to the network.</body></html>")


def redirect(url: str, status: int = 307) -> Fault:
    """307 asks for the same method, body and headers at another place."""
    return Fault(lambda wire, _: wire.send(Reply(status, b"", {"Location": url})))


# Faults of the connection


def reset_before_body() -> Fault:
    """A TCP reset right after the headers; the body is not read and nothing is carried out."""
    return Fault(lambda wire, _: wire.reset(), reads_body=False)


def reset_after_body() -> Fault:
    """The request is carried out, and a TCP reset takes the place of the answer."""
    return Fault(lambda wire, _: wire.reset(), carried_out=True)


def silence(seconds: float) -> Fault:
    """The request is carried out, its answer comes only after so many seconds."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.pause(seconds)
        wire.send(reply)

    return Fault(send, carried_out=True)


def truncated() -> Fault:
    """The request is carried out, half of the announced body comes, then the connection ends."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.send_head(reply, **{"Content-Length": str(max(1, len(reply.body)))})
        wire.write(reply.body[: len(reply.body) // 2])
        wire.close()

    return Fault(send, carried_out=True)


def slow(seconds_per_chunk: float, chunk: int = 1024) -> Fault:
    """The real answer, dribbled: a pause after every `chunk` bytes of the body."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.send_head(reply, **{"Content-Length": str(len(reply.body))})
        for start in range(0, len(reply.body), chunk):
            wire.write(reply.body[start : start + chunk])
            wire.pause(seconds_per_chunk)

    return Fault(send, carried_out=True)


def huge_body(megabytes: int = 200) -> Fault:
    """200 and a body of unannounced length, made while it is sent."""
    return Fault(lambda wire, _: _stream(wire, (b" " * MEGABYTE for _ in range(megabytes))))


def gzip_bomb(megabytes: int = 200) -> Fault:
    """200 and zeros in gzip: about a thousandth of that size on the wire."""

    def packed() -> Iterator[bytes]:
        packer = zlib.compressobj(9, wbits=31)
        for _ in range(megabytes):
            yield packer.compress(bytes(MEGABYTE))
        yield packer.flush()

    return Fault(lambda wire, _: _stream(wire, packed(), **{"Content-Encoding": "gzip"}))


def _stream(wire: Wire, pieces: Iterator[bytes], **headers: str) -> None:
    kind = "image/png" if wire.phase == "download" else "application/json"
    reply = Reply(200, b"", {"Content-Type": kind, **headers})
    wire.send_head(reply, **{"Transfer-Encoding": "chunked"})
    for piece in filter(None, pieces):
        wire.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    wire.write(b"0\r\n\r\n")


# Outcomes of jobs


@dataclass(frozen=True)
class Outcome:
    """How a job ends; the default ends well. See the functions below for each field."""

    error: Callable[[Mapping[str, Any]], Reply] | None = None
    flagged: bool = False
    size: tuple[int, int] | None = None
    inline: bool = False
    requeued: bool = False
    no_images: bool = False
    status_base: str = ""
    file_url: str = ""
    swap: Callable[[bytes], tuple[bytes, str]] | None = None
    logs: tuple[str, ...] = ()


def error_entry(name: str, kind: str, message: str, ctx: Mapping[str, object]) -> dict[str, Any]:
    """One entry of a model error's detail, about a field of the body; `input` is still to come."""
    url = f"https://docs.fal.ai/errors#{kind}"
    entry = {"loc": ["body", name], "msg": message, "type": kind, "url": url}
    return {**entry, "ctx": dict(ctx)} if ctx else entry


def model_error(
    status: int, detail: Entries | str, headers: Mapping[str, str] | None = None
) -> Outcome:
    """The model refuses. An entry without `input` gets the job's own, so it may echo a data URI."""

    def error(arguments: Mapping[str, Any]) -> Reply:
        said: object = detail
        if not isinstance(detail, str):
            said = [{**e, "input": e.get("input", arguments.get(e["loc"][-1]))} for e in detail]
        sent = {"x-fal-billable-units": "0", **(headers or {})}
        return json_reply(status, {"detail": said}, sent)

    return Outcome(error=error)


def content_policy() -> Outcome:
    message = "The content could not be processed because it was flagged by a content checker."
    return model_error(422, [error_entry("prompt", "content_policy_violation", message, {})])


def image_too_large(max_width: int = 2048, max_height: int = 2048) -> Outcome:
    ctx = {"max_width": max_width, "max_height": max_height}
    return model_error(422, [error_entry("image_url", "image_too_large", "Image too large", ctx)])


def platform_error(
    status: int, error_type: str, headers: Mapping[str, str] | None = None
) -> Outcome:
    """fal itself fails. request_timeout also says that it was our start deadline."""
    body = {"detail": error_type.replace("_", " ").capitalize(), "error_type": error_type}
    sent = {"X-Fal-Error-Type": error_type}
    if error_type == "request_timeout":
        sent["X-Fal-Request-Timeout-Type"] = "user"
    reply = json_reply(status, body, {**sent, **(headers or {})})
    return Outcome(error=lambda _: reply)


def flagged() -> Outcome:
    """A black picture and has_nsfw_concepts true, unless the job turned the checker off."""
    return Outcome(flagged=True)


def wrong_size(width: int, height: int) -> Outcome:
    """The picture comes in another size, and the result says so."""
    return Outcome(size=(width, height))


def as_data_uri() -> Outcome:
    """The picture comes within the result although sync_mode is false."""
    return Outcome(inline=True)


def requeued() -> Outcome:
    """IN_PROGRESS goes back to IN_QUEUE once; each stays until a status answer has shown it."""
    return Outcome(requeued=True)


def foreign_status_url(base: str) -> Outcome:
    """The submit answer's three URLs begin with `base` instead of the server's own address."""
    return Outcome(status_base=base.rstrip("/"))


def foreign_file_url(url: str) -> Outcome:
    """The result's picture is said to lie at `url`."""
    return Outcome(file_url=url)


def html_image() -> Outcome:
    """A web page lies where the picture should be."""
    return Outcome(swap=lambda _: (b"<!DOCTYPE html><html>Sorry</html>", "text/html"))


def truncated_image() -> Outcome:
    """The file holds half of the picture; its Content-Length is that half's."""
    return Outcome(swap=lambda data: (data[: len(data) // 2], ""))


def bomb_png(width: int = 30000, height: int = 30000) -> Outcome:
    """A PNG of under 100 bytes that claims such a size; the result claims the input's."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", shape), chunk(b"IDAT", zlib.compress(b"\0" * 64)), chunk(b"IEND", b"")
    file = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    return Outcome(swap=lambda _: (file, "image/png"))


def no_images() -> Outcome:
    """200 with an empty list of pictures."""
    return Outcome(no_images=True)


def logs(lines: list[str]) -> Outcome:
    """Each status answer while the job runs shows one line more, the last one shows all."""
    return Outcome(logs=tuple(lines))
