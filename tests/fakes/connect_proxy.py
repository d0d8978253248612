"""An HTTPS proxy that leads every host to one port of this machine: a client that is sure it talks
to fal's own hosts talks to the server under test.
"""

from __future__ import annotations

import selectors
import socket
import socketserver
import threading
from types import TracebackType

CHUNK = 1 << 16


class ConnectProxy:
    """Tunnels to 127.0.0.1:port, whatever host the client names.

    Attributes:
        url: what HTTPS_PROXY is set to.
        asked: the HOST:PORT of every tunnel so far.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._server = _Tunnels(("127.0.0.1", 0), _Tunnel)
        self._server.proxy, self._server.to = self, ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ConnectProxy:
        self._accepting = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._accepting.join()
        self._server.stopping.set()
        self._server.server_close()  # waits for the tunnels


class _Tunnels(socketserver.ThreadingTCPServer):
    proxy: ConnectProxy
    to: tuple[str, int]
    request_queue_size = 64

    def __init__(self, *where: object) -> None:
        self.stopping = threading.Event()
        super().__init__(*where)  # type: ignore[arg-type]


class _Tunnel(socketserver.StreamRequestHandler):
    server: _Tunnels
    rbufsize = 0  # what follows the headers belongs into the tunnel

    def handle(self) -> None:
        method, target, *_ = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        if method != "CONNECT":
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        self.server.proxy.asked.append(target)
        with socket.create_connection(self.server.to) as inner:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._pump(self.connection, inner)

    def _pump(self, client: socket.socket, inner: socket.socket) -> None:
        """Carry bytes both ways until one side is done."""
        other = {client: inner, inner: client}
        with selectors.DefaultSelector() as ready:
            for end in other:
                ready.register(end, selectors.EVENT_READ)
            while not self.server.stopping.is_set():
                for key, _ in ready.select(timeout=0.1):
                    end = client if key.fileobj is client else inner
                    try:
                        data = end.recv(CHUNK)
                        other[end].sendall(data)
                    except OSError:  # the other side hung up
                        return
                    if not data:
                        return
