"""The sockets of the fake server: one thread per connection, faults that are real on the wire."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from fakes.fal_faults import Fault, Reply

NOT_CARRIED_OUT = Reply(500)


@dataclass(frozen=True)
class Recorded:
    """One request as it came; header names are in lower case, `at` is when its headers were in."""

    phase: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float


class Site(Protocol):
    """What answers the requests."""

    stopping: threading.Event
    errors: list[BaseException]

    def phase(self, method: str, path: str) -> str:
        """The request's kind."""

    def take_fault(self, phase: str) -> Fault | None:
        """The next scripted fault of that phase."""

    def record(self, request: Recorded) -> None:
        """Keep the request."""

    def respond(self, request: Recorded) -> Reply:
        """Carry the request out."""


class Listener(ThreadingHTTPServer):
    """Bound to its port from the start, but refuses connections until start()."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, site: Site, port: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", port), Handler, bind_and_activate=False)
        self.site = site
        self.tls = tls
        self._closing = threading.Event()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._accepting: threading.Thread | None = None
        self.server_bind()

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this host's name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def start(self) -> None:
        self.server_activate()
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._accepting.start()

    def stop(self) -> list[threading.Thread]:
        """Refuse new connections, end the open ones; the threads that are on their way out."""
        if self._accepting is not None:
            self.shutdown()
            self._accepting.join()
        self.server_close()
        self._closing.set()
        ending = list(self._open.items())
        for _, connection in ending:
            try:
                # The plain socket's shutdown: the TLS one would pull the rug from under its thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                continue  # the peer was faster, or the connection is closed already
        return [thread for thread, _ in ending]

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._open[threading.current_thread()]

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        # Here and not at accept: a client that is slow to shake hands holds up nobody else.
        wrap = self.tls.wrap_socket
        with wrap(request, server_side=True, do_handshake_on_connect=False) as wrapped:
            self._open[threading.current_thread()] = wrapped
            if not self._closing.is_set():
                wrapped.do_handshake()
                super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        # Clients may hang up when they like; all else is a mistake in the fake.
        if error is not None and not isinstance(error, OSError):
            self.site.errors.append(error)


class Handler(BaseHTTPRequestHandler):
    """The Wire that faults write to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    phase = ""

    def _serve(self) -> None:
        at, parts, site = time.monotonic(), urlsplit(self.path), self.server.site
        path = parts.path.rstrip("/")
        self.phase = site.phase(self.command, path)
        fault = site.take_fault(self.phase)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if fault is None or fault.reads_body else b""
        if fault is None and "Transfer-Encoding" in self.headers:
            self.close()
            self.send(Reply(411))
            return
        if len(body) < length and (fault is None or fault.reads_body):
            self.close()  # the client hung up in the middle: that was no request
            return
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Recorded(self.phase, self.command, path, query, headers, body, at)
        site.record(request)
        if fault is None:
            self.send(site.respond(request))
        else:
            fault.send(self, site.respond(request) if fault.carried_out else NOT_CARRIED_OUT)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815

    def send(self, reply: Reply) -> None:
        self.send_head(reply, **{"Content-Length": str(len(reply.body))})
        self.write(reply.body)

    def send_head(self, reply: Reply, **headers: str) -> None:
        self.send_response(reply.status)
        sent = {**reply.headers, **headers}
        if reply.from_fal and "x-fal-request-id" not in sent:
            sent["x-fal-request-id"] = str(uuid.uuid4())
        for name, value in sent.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def write(self, data: bytes) -> None:
        self.wfile.write(data)

    def pause(self, seconds: float) -> None:
        self.server.site.stopping.wait(seconds)

    def close(self) -> None:
        self.close_connection = True

    def reset(self) -> None:
        self.close()
        linger_for_no_time = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
        # Closing the descriptor itself, as the reader and the writer still hold the socket.
        socket.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""
