"""One real ComfyUI for all tests in this folder, whose fal is a fake one on this machine; and the
browser tabs that look at it.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from comfy_browser import FRONTS, Browser, FrontEnd, find_browser
from comfy_server import QUEUE_URL, ComfyUI, base_directory, running
from comfy_source import newest_front_end
from fakes.fal_server import FalServer


@pytest.fixture(scope="session")
def fal_server() -> Iterator[FalServer]:
    with FalServer(key=f"{uuid.uuid4()}:{secrets.token_hex(16)}") as server:
        yield server


@pytest.fixture
def fal(fal_server: FalServer) -> Iterator[FalServer]:
    """The fake that ComfyUI takes for fal, with nothing asked of it yet."""
    fal_server.requests.clear()
    fal_server.jobs.clear()
    fal_server.queue_seconds, fal_server.run_seconds = 0.0, 0.05
    fal_server.cancel_stops_running = True
    yield fal_server
    fal_server.release()
    assert fal_server.leaks == []


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, fal_server: FalServer) -> Iterator[ComfyUI]:
    folder = base_directory(tmp_path_factory.mktemp("comfyui") / "base")
    variables = {"FAL_KEY": fal_server.key, QUEUE_URL: fal_server.url}
    with running(folder, variables=variables) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(comfyui: ComfyUI) -> dict[str, Any]:
    info: dict[str, Any] = comfyui.get("/object_info")
    return info


@pytest.fixture(scope="session")
def comfyui_with_newest_front_end(
    tmp_path_factory: pytest.TempPathFactory, fal_server: FalServer
) -> Iterator[ComfyUI]:
    folder = base_directory(tmp_path_factory.mktemp("comfyui newest") / "base")
    variables = {"FAL_KEY": fal_server.key, QUEUE_URL: fal_server.url}
    options = ("--front-end-root", str(newest_front_end()))
    with running(folder, *options, variables=variables) as server:
        yield server


BROWSER = pytest.StashKey[Browser]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Close the browser with this folder's last test: other tests call asyncio.run, which cannot
    be while Playwright's own event loop is there.
    """
    try:
        yield
    finally:
        stash = item.session.stash
        leaves = nextitem is None or Path(__file__).parent not in nextitem.path.parents
        if leaves and BROWSER in stash:
            stash[BROWSER].close()
            del stash[BROWSER]


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """The one browser of all files."""
    found, stash = find_browser(), request.session.stash
    if found is None:
        message = "No Chromium or Chrome on the PATH: the front end is NOT tested."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    if BROWSER not in stash:
        stash[BROWSER] = Browser(found, tmp_path_factory.mktemp("screenshots"))
    return stash[BROWSER]


SERVERS = {"1.32.9": "comfyui", "newest": "comfyui_with_newest_front_end"}


@pytest.fixture(scope="module", params=FRONTS, ids=" ".join)
def front(request: pytest.FixtureRequest, browser: Browser) -> Iterator[FrontEnd]:
    """A tab of every front end that the pack is for, in each of its two renderers."""
    version, renderer = request.param
    server: ComfyUI = request.getfixturevalue(SERVERS[version])
    with browser.tab(server, f"{version} {renderer}") as tab:
        with tab.nodes_2() if renderer == "nodes 2.0" else nullcontext():
            yield tab
