"""What ComfyUI tells a browser over its websocket, heard on a thread, so that a test can act."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from comfy_server import ComfyUI

PROGRESS_TEXT = 3  # ComfyUI's number for a line of text on a node, first in a binary message
LINE = "line"
PATIENCE = 120.0  # seconds
ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass(frozen=True)
class Heard:
    """One message.

    Attributes:
        at: time.monotonic() when it came.
        name: ComfyUI's word for it; LINE for a line of text on a node.
        data: as sent; of a line, (node id, text).
    """

    at: float
    name: str
    data: Any


class Ear:
    """One client of ComfyUI. `messages` grows while the connection is open, `raw` with it."""

    def __init__(self, url: str) -> None:
        self.client_id = uuid.uuid4().hex
        self.messages: list[Heard] = []
        self.raw: list[bytes] = []
        self._url = f"{url}/ws?clientId={self.client_id}"
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wait(self, wanted: Callable[[Heard], bool]) -> Heard:
        """The first message that is wanted, past ones included; AssertionError if none comes."""
        found: list[Heard] = []

        def is_there() -> bool:
            found.extend([m for m in self.messages if wanted(m)][:1])
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(is_there, PATIENCE), self.messages[-5:]
        return found[0]

    def line(self, start: str) -> Heard:
        """The first line on any node that starts so."""
        return self.wait(lambda m: m.name == LINE and m.data[1].startswith(start))

    def end_of(self, prompt_id: str) -> Heard:
        """How a run ended: one of ENDS."""
        return self.wait(lambda m: m.name in ENDS and m.data["prompt_id"] == prompt_id)

    def lines(self, node_id: str) -> list[str]:
        """Every line that the node showed so far."""
        said = [m.data for m in self.messages if m.name == LINE]
        return [text for node, text in said if node == node_id]

    def steps(self) -> int:
        """How many steps of a run, of one node after another, were told so far."""
        return max(m.data["value"] for m in self.messages if m.name == "progress")

    def open(self) -> None:
        self._thread.start()
        with self._changed:
            assert self._changed.wait_for(lambda: self._socket is not None, PATIENCE)

    def close(self) -> None:
        assert self._socket is not None
        asyncio.run_coroutine_threadsafe(self._socket.close(), self._loop).result(10)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, max_msg_size=0) as socket,
        ):
            with self._changed:
                self._socket = socket
                self._changed.notify_all()
            async for message in socket:
                self._keep(message)

    def _keep(self, message: aiohttp.WSMessage) -> None:
        heard = _read(message)
        with self._changed:
            data = message.data
            self.raw.append(data if isinstance(data, bytes) else str(data).encode())
            self.messages.extend(heard)
            self._changed.notify_all()


@contextmanager
def listening(comfyui: ComfyUI) -> Iterator[Ear]:
    """An ear that hears from now on; give its client_id to ComfyUI.queue."""
    ear = Ear(comfyui.url)
    ear.open()
    try:
        yield ear
    finally:
        ear.close()


def _read(message: aiohttp.WSMessage) -> list[Heard]:
    now = time.monotonic()
    if message.type is aiohttp.WSMsgType.TEXT:
        said = json.loads(message.data)
        return [Heard(now, said["type"], said["data"])]
    kind, length = struct.unpack(">II", message.data[:8])
    if kind != PROGRESS_TEXT:  # a preview
        return []
    node, text = message.data[8 : 8 + length], message.data[8 + length :]
    return [Heard(now, LINE, (node.decode(), text.decode()))]
