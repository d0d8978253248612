"""Uploads to the server by fal's own Python client, which reaches it under fal's own host names."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
from fakes.connect_proxy import ConnectProxy
from fakes.live_server import LiveServer
from fakes.official_clients import python_client

MEGABYTE = 1 << 20
# Parts of 10 MiB from 100 MiB on would take long; nothing else of the client is touched.
LOWERED = f"""
fal_client.client.MULTIPART_THRESHOLD = {MEGABYTE}
fal_client.client.MULTIPART_CHUNK_SIZE = {MEGABYTE // 4}
data = bytes(range(256)) * 4096 + b"the end"
"""
PICTURE = """
import base64
png = base64.b64decode(ARGUMENTS["image_url"].partition(",")[2])
mask = base64.b64decode(ARGUMENTS["mask_url"].partition(",")[2])
"""
DOWNLOAD = "application/octet-stream"  # what is no picture is not for a browser to show
LARGE = hashlib.sha256(bytes(range(256)) * 4096 + b"the end").hexdigest()


@pytest.fixture
def server(secure: LiveServer) -> LiveServer:
    return secure


def stored(server: LiveServer, url: str) -> tuple[str, str]:
    """The content type and the SHA-256 of an upload, which whoever has the URL may get."""
    answer = server.call("GET", url, headers={"Authorization": None})
    assert answer.status_code == 200 and url.startswith(server.url + "/files/")
    return answer.headers["content-type"], hashlib.sha256(answer.content).hexdigest()


def sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def test_the_untouched_client_reaches_queue_and_run_by_fals_own_names(
    server: LiveServer, proxy: ConnectProxy
) -> None:
    script = "said = [fal_client.subscribe(APP, ARGUMENTS), fal_client.run(APP, ARGUMENTS)]"
    queued, run = python_client(script, server, proxy=proxy)
    assert (queued["seed"], run["seed"]) == (5, 5)
    assert {"queue.fal.run:443", "fal.run:443"} <= set(proxy.asked)


def test_a_file_is_uploaded_and_used_as_input(server: LiveServer, proxy: ConnectProxy) -> None:
    script = f"""{PICTURE}
inline = fal_client.subscribe(APP, {{**ARGUMENTS, "sync_mode": True}})
urls = {{"image_url": fal_client.upload(png, "image/png", "picture.png"),
        "mask_url": fal_client.upload(mask, "image/png")}}
linked = fal_client.subscribe(APP, {{**ARGUMENTS, **urls, "sync_mode": True}})
said = [urls, inline["images"] == linked["images"]]
"""
    urls, same = python_client(script, server, proxy=proxy)
    assert same and urls["image_url"] != urls["mask_url"]
    assert all(stored(server, url)[0] == "image/png" for url in urls.values())
    assert {"rest.fal.ai:443", "v3.fal.media:443"} <= set(proxy.asked)


def test_the_other_repository_takes_files_too(server: LiveServer, proxy: ConnectProxy) -> None:
    script = """
said = [fal_client.upload(b"one", "text/plain", repository="fal"),
        asyncio.run(fal_client.upload_async(b"two", "text/plain", "b.txt", repository="fal"))]
"""
    one, two = python_client(script, server, proxy=proxy)
    assert stored(server, one) == (DOWNLOAD, sha(b"one"))
    assert stored(server, two) == (DOWNLOAD, sha(b"two"))


def test_a_client_that_fails_at_the_first_repository_falls_back_to_the_other(
    server: LiveServer, proxy: ConnectProxy
) -> None:
    script = """
fal_client.client.CDN_URL += "/gone"
said = [fal_client.upload(b"one", "text/plain"),
        asyncio.run(fal_client.upload_async(b"two", "text/plain"))]
"""
    one, two = python_client(script, server, proxy=proxy)
    assert [stored(server, url)[1] for url in (one, two)] == [sha(b"one"), sha(b"two")]


def test_a_large_file_goes_in_parts(server: LiveServer, proxy: ConnectProxy) -> None:
    script = LOWERED + "said = fal_client.upload(data, 'application/x-large')"
    url = python_client(script, server, proxy=proxy)
    assert stored(server, url) == (DOWNLOAD, LARGE)


def test_a_large_file_goes_in_parts_from_disk_and_asynchronously(
    server: LiveServer, proxy: ConnectProxy
) -> None:
    script = f"""{LOWERED}
import tempfile, pathlib
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "large.png"
    path.write_bytes(data)
    said = [fal_client.upload_file(path), asyncio.run(fal_client.upload_file_async(path))]
"""
    for url in python_client(script, server, proxy=proxy):
        assert stored(server, url) == ("image/png", LARGE)


def test_a_large_picture_that_came_in_parts_is_used_as_input(
    server: LiveServer, proxy: ConnectProxy
) -> None:
    script = f"""{PICTURE}
fal_client.client.MULTIPART_THRESHOLD, fal_client.client.MULTIPART_CHUNK_SIZE = 100, 100
assert len(png) > 500
inline = fal_client.subscribe(APP, {{**ARGUMENTS, "sync_mode": True}})
url = fal_client.upload(png, "image/png")
linked = fal_client.subscribe(APP, {{**ARGUMENTS, "image_url": url, "sync_mode": True}})
said = [inline["images"] == linked["images"]]
"""
    assert python_client(script, server, proxy=proxy) == [True]


def test_a_file_that_is_too_large_is_refused(server: LiveServer, proxy: ConnectProxy) -> None:
    script = """
large = bytes(2 << 20) + b"!"
whole = [failure(fal_client.upload, large, "a/b", repository=one, fallback_repository=one)
         for one in ("fal_v3", "fal")]
fal_client.client.MULTIPART_THRESHOLD = fal_client.client.MULTIPART_CHUNK_SIZE = 1 << 20
said = [*whole, failure(fal_client.upload, large, "a/b")]
"""
    said: list[Any] = python_client(script, server, proxy=proxy)
    assert [one and one[0] for one in said] == [413, 413, 413]


def test_an_upload_is_kept_as_long_as_its_lifecycle_says(
    server: LiveServer, proxy: ConnectProxy
) -> None:
    script = """
def keep(**more):
    lifecycle = fal_client.StorageSettings(expires_in=1)
    return fal_client.upload(b"short", "text/plain", lifecycle=lifecycle, **more)
said = [keep(), keep(repository="fal"), fal_client.upload(b"long", "text/plain")]
"""
    *short, long = python_client(script, server, proxy=proxy)
    for url in short:
        wait_until_gone(server, url)
    assert server.call("GET", long).status_code == 200


def test_the_pictures_of_a_job_are_kept_as_long_as_its_lifecycle_says(
    server: LiveServer, proxy: ConnectProxy
) -> None:
    script = """
preference = json.dumps({"expiration_duration_seconds": 5})
result = fal_client.subscribe(
    APP, ARGUMENTS, headers={"X-Fal-Object-Lifecycle-Preference": preference})
said = result["images"][0]["url"]
"""
    url = python_client(script, server, proxy=proxy)
    assert server.call("GET", url).status_code == 200
    wait_until_gone(server, url)


def wait_until_gone(server: LiveServer, url: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while server.call("GET", url).status_code != 404:
        assert time.monotonic() < end, f"{url} is still there"
        time.sleep(0.05)


def test_uploads_need_a_good_key(server: LiveServer, proxy: ConnectProxy) -> None:
    script = """
import httpx
client = fal_client.SyncClient(key="id:wrong")
said = [failure(client.upload, b"x", "a/b", repository="fal", fallback_repository="fal")]
try:
    client.upload(b"x", "a/b", repository="fal_v3", fallback_repository="fal_v3")
except httpx.HTTPStatusError as error:
    said.append(error.response.status_code)
"""
    (code, message, _), token = python_client(script, server, proxy=proxy)
    assert (code, token) == (401, 401) and isinstance(message, str)
