"""The servers that the tests of this folder share, as each takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.connect_proxy import ConnectProxy
from fakes.live_server import LiveServer


@pytest.fixture(scope="package")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Over TLS, which fal's Python client insists on."""
    folder = tmp_path_factory.mktemp("secure")
    with LiveServer(folder, "--max-upload-mb", "2", tls=True) as server:
        yield server


@pytest.fixture(scope="package")
def proxy(secure: LiveServer) -> Iterator[ConnectProxy]:
    """What leads a client from fal's own host names to the server."""
    with ConnectProxy(secure.port) as running:
        yield running


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Over plain http, for clients that send a lot."""
    limits = ("--submits-per-minute", "100000", "--max-queue", "100000")
    with LiveServer(tmp_path_factory.mktemp("plain"), *limits) as server:
        yield server
