"""The routes of uploads and files over HTTP: what fal's clients send, and what others try."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from onereward_pack.local_backend.server.database import FILES, open_database
from onereward_pack.local_backend.server.http.app_factory import Head, make_app
from onereward_pack.local_backend.server.http.routes_storage import make_router
from onereward_pack.local_backend.server.keys import Keys
from onereward_pack.local_backend.server.messages import Event, PaintRequest
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.local_backend.server.storage.files import Files
from sqlalchemy import Engine, select
from starlette.testclient import TestClient

MB = 1 << 20
HERE = "http://testserver"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
LIFE = "X-Fal-Object-Lifecycle"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data", public_url=HERE, max_upload_mb=1, max_storage_mb=2
    )  # fmt: skip


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def files(engine: Engine, settings: Settings) -> Files:
    return Files(engine, settings)


@pytest.fixture
def keys(engine: Engine) -> Keys:
    return Keys(engine)


@pytest.fixture
def key(keys: Keys) -> dict[str, str]:
    return {"Authorization": f"Key {keys.make('laptop')}"}


@pytest.fixture
def client(files: Files, keys: Keys, settings: Settings) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(make_router(files, keys, settings))
    with TestClient(app) as client:
        yield client


def token(client: TestClient, key: dict[str, str]) -> dict[str, str]:
    answer = client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={}, headers=key)
    assert answer.status_code == 200
    said = answer.json()
    return {"Authorization": f"{said['token_type']} {said['token']}"}


def initiate(client: TestClient, key: dict[str, str], multipart: bool = False, **more: Any) -> Any:
    path = "initiate-multipart" if multipart else "initiate"
    body = {"content_type": "image/png", "file_name": "a.png"}
    answer = client.post(
        f"/storage/upload/{path}?storage_type=fal-cdn-v3", json=body, headers={**key, **more}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def remaining(engine: Engine) -> float:
    with engine.begin() as connection:
        return float(connection.execute(select(FILES.c.expires)).scalar_one()) - time.time()


def on_disk(settings: Settings) -> int:
    return len(list(settings.files.iterdir()))


# The Python client


def test_the_token_is_what_the_python_client_reads(client: TestClient, key: dict[str, str]) -> None:
    said = client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={}, headers=key).json()
    assert set(said) == {"token", "token_type", "base_url", "expires_at"}
    assert said["base_url"] == HERE
    assert said["expires_at"].endswith("+00:00") and "Z" not in said["expires_at"]
    left = datetime.fromisoformat(said["expires_at"]) - datetime.now(timezone.utc)
    assert timedelta(minutes=50) < left <= timedelta(hours=1)


def test_a_file_is_uploaded_with_the_token_and_read_without_any(
    client: TestClient, key: dict[str, str]
) -> None:
    headers = {**token(client, key), "Content-Type": "image/png", "X-Fal-File-Name": "../x.html"}
    said = client.post("/files/upload", content=PNG, headers=headers).json()
    answer = client.get(said["access_url"])
    assert answer.content == PNG and answer.headers["content-type"] == "image/png"
    assert said["access_url"].startswith(f"{HERE}/files/in-")
    assert client.post("/files/upload", content=PNG, headers=key).status_code == 200


def test_the_python_clients_multipart(client: TestClient, key: dict[str, str]) -> None:
    headers = {**token(client, key), "Content-Type": "image/png"}
    begun = client.post("/files/upload/multipart", headers=headers).json()
    url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
    parts = []
    for number in (2, 1, 3):
        answer = client.put(f"{url}/{number}", content=bytes([number]) * 9, headers=headers)
        assert answer.status_code == 200
        parts.append({"partNumber": number, "etag": answer.headers["etag"]})
    assert client.get(begun["access_url"]).status_code == 404
    done = client.post(f"{url}/complete", json={"parts": parts}, headers=token(client, key))
    assert done.status_code == 200
    assert client.get(begun["access_url"]).content == b"\1" * 9 + b"\2" * 9 + b"\3" * 9


def test_multipart_of_another_upload_or_key_is_unknown(
    client: TestClient, key: dict[str, str], keys: Keys
) -> None:
    begun, second = (client.post("/files/upload/multipart", headers=key).json() for _ in range(2))
    url = f"{begun['access_url']}/multipart"
    other = {"Authorization": f"Key {keys.make('other')}"}
    body = {"parts": [{"partNumber": 1, "etag": "0" * 64}]}
    for upload_id, headers, status in (
        (second["uploadId"], key, 404), (begun["uploadId"], other, 404),
        (begun["uploadId"], {}, 401), (begun["uploadId"], key, 200),
    ):  # fmt: skip
        put = client.put(f"{url}/{upload_id}/1", content=b"x", headers=headers)
        assert put.status_code == status
        if status != 200:
            end = client.post(f"{url}/{upload_id}/complete", json=body, headers=headers)
            assert end.status_code == status


def test_the_python_clients_fallback_puts_its_key_along(
    client: TestClient, key: dict[str, str]
) -> None:
    said = client.post(
        "/storage/upload/initiate?storage_type=gcs",
        json={"file_name": "upload.bin", "content_type": "image/jpeg"},
        headers={**key, LIFE: '{"expiration_duration_seconds": 60}'},
    ).json()
    put = client.put(said["upload_url"], content=b"jpg", headers=key)
    assert put.status_code == 200
    assert client.get(said["file_url"]).headers["content-type"] == "image/jpeg"
    for nonsense in ("Bearer x", "Key wrong:wrong", "\xff"):
        again = initiate(client, key)
        headers = {"Authorization": nonsense.encode("latin-1")}
        assert client.put(again["upload_url"], content=b"x", headers=headers).status_code == 200


# The JavaScript client


def test_the_javascript_clients_upload_needs_no_key_and_works_once(
    client: TestClient, key: dict[str, str]
) -> None:
    said = initiate(client, key)
    assert set(said) == {"upload_url", "file_url"}
    assert client.get(said["file_url"]).status_code == 404
    assert client.put(said["upload_url"], content=PNG).json() == {}
    assert client.put(said["upload_url"], content=b"other").status_code == 403
    assert client.get(said["file_url"]).content == PNG


def test_the_javascript_clients_multipart_has_the_etag_in_the_body(
    client: TestClient, key: dict[str, str]
) -> None:
    said = initiate(client, key, multipart=True)
    parts = []
    for number in (1, 2):
        answer = client.put(f"{said['upload_url']}/{number}", content=bytes([number]) * 5)
        assert set(answer.json()) == {"partNumber", "etag"}
        assert answer.json()["partNumber"] == number
        parts.append(answer.json())
    done = client.post(f"{said['upload_url']}/complete", json={"parts": parts})
    assert done.status_code == 200 and "json" in done.headers["content-type"]
    assert client.get(said["file_url"]).content == b"\1" * 5 + b"\2" * 5


@pytest.mark.parametrize("path", ["initiate", "initiate-multipart"])
def test_other_kinds_of_storage_are_refused(
    client: TestClient, key: dict[str, str], path: str
) -> None:
    body = {"content_type": "image/png", "file_name": "a.png"}
    for kind, status in (("gcs", 200), ("fal-cdn-v3", 200), ("s3", 400), ("", 400)):
        answer = client.post(f"/storage/upload/{path}?storage_type={kind}", json=body, headers=key)
        assert answer.status_code == status
    assert client.post("/storage/auth/token?storage_type=s3", headers=key).status_code == 400


# Keys


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/storage/auth/token"), ("POST", "/files/upload"), ("POST", "/files/upload/multipart"),
    ("POST", "/storage/upload/initiate"), ("POST", "/storage/upload/initiate-multipart"),
    ("PUT", "/files/x/multipart/y/1"), ("POST", "/files/x/multipart/y/complete"),
])  # fmt: skip
def test_without_a_good_key_nothing_is_begun(
    client: TestClient, settings: Settings, method: str, path: str
) -> None:
    body: dict[str, Any] = {"content_type": "a/b", "file_name": "x"}
    body |= {"parts": [{"partNumber": 1, "etag": "x"}]}
    for header in ({}, {"Authorization": "Key a:b"}, {"Authorization": "Bearer " + "a" * 99}):
        answer = client.request(method, path, json=body, headers=header)
        assert answer.status_code == 401
        assert answer.json() == {"detail": "No user found for Key ID and Secret"}
    assert on_disk(settings) == 0


def test_a_token_begins_uploads_but_is_no_key(client: TestClient, key: dict[str, str]) -> None:
    bearer = token(client, key)
    assert client.post("/storage/auth/token", headers=bearer).status_code == 401
    body = {"content_type": "a/b", "file_name": "x"}
    assert client.post("/storage/upload/initiate", json=body, headers=bearer).status_code == 401


def test_a_revoked_keys_token_uploads_nothing(
    client: TestClient, key: dict[str, str], keys: Keys
) -> None:
    bearer = token(client, key)
    keys.revoke(keys.rows()[0].id)
    assert client.post("/files/upload", content=b"x", headers=bearer).status_code == 401


def test_an_upload_address_that_was_never_given_out_is_unknown(client: TestClient) -> None:
    name = "in-" + "a" * 32 + ".png"
    for path in (f"/upload/{name}", f"/upload/{name}/multipart/1", "/upload/..%2f..%2fx",
                 "/upload/%2e%2e", "/upload/" + "x" * 5000):  # fmt: skip
        assert client.put(path, content=b"x").status_code == 404
    body = {"parts": [{"partNumber": 1, "etag": "x"}]}
    assert client.post(f"/upload/{name}/multipart/complete", json=body).status_code == 404


# Lifetimes


LIVES = (
    ('{"expiration_duration_seconds": 60}', 60), ('{"expiration_duration_seconds": 60.5}', 60.5),
    ('{"expiration_duration_seconds": null}', 86400), ('{"expiration_duration_seconds": 0}', 86400),
    ('{"expiration_duration_seconds": 31536000}', 86400), ("{}", 86400),
    ('{"expiration_duration_seconds": 99, "initial_acl": {"default": "allow"}, "new": 1}', 99),
)  # fmt: skip


@pytest.mark.parametrize("name", [LIFE, f"{LIFE}-Preference"])
def test_the_lifecycle_headers_shorten_a_files_life_and_never_lengthen_it(
    client: TestClient, key: dict[str, str], engine: Engine, files: Files, name: str
) -> None:
    for header, seconds in LIVES:
        answer = client.post("/files/upload", content=b"x", headers={**key, name: header})
        assert answer.status_code == 200
        assert seconds - 10 < remaining(engine) <= seconds
        files.forget(answer.json()["access_url"].rpartition("/")[2])


@pytest.mark.parametrize("seconds", [(500, 100), (100, 500)])
def test_of_both_headers_the_shorter_counts(
    client: TestClient, key: dict[str, str], engine: Engine, seconds: tuple[int, int]
) -> None:
    lives = {name: json.dumps({"expiration_duration_seconds": n})
             for name, n in zip((LIFE, f"{LIFE}-Preference"), seconds, strict=True)}  # fmt: skip
    initiate(client, key, **lives)
    assert 90 < remaining(engine) <= 100


BROKEN = (
    "", "x", "[]", "60", '{"expiration_duration_seconds": "60"}', "\xff",
    '{"expiration_duration_seconds": -1}', '{"expiration_duration_seconds": NaN}',
    '{"expiration_duration_seconds": Infinity}', '{"expiration_duration_seconds": 1e999}',
    '{"expiration_duration_seconds": true}', '{"initial_acl": {"default": "forbid"}}',
    '{"initial_acl": {"default": "hide"}}', "{" * 5000,
    '{"initial_acl": {"rules": [{"user": "a", "decision": "allow"}]}}',
)  # fmt: skip


@pytest.mark.parametrize("name", [LIFE, f"{LIFE}-Preference"])
def test_a_lifecycle_that_cannot_be_kept_is_refused(
    client: TestClient, key: dict[str, str], settings: Settings, name: str
) -> None:
    body = {"content_type": "a/b", "file_name": "x"}
    for header in BROKEN:
        headers = {**key, name: header.encode("latin-1")}
        for path, sent in (("/files/upload", {"content": b"x"}), ("/files/upload/multipart", {}),
                           ("/storage/upload/initiate", {"json": body})):  # fmt: skip
            answer = client.post(path, headers=headers, **sent)
            assert answer.status_code == 400 and LIFE in answer.json()["detail"], header
    assert on_disk(settings) == 0


# Limits


def test_a_too_large_upload_is_refused_and_leaves_nothing(
    client: TestClient, key: dict[str, str], settings: Settings
) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * (MB // 8)

    answer = client.post("/files/upload", content=endless(), headers=key)
    assert answer.status_code == 413 and "1 MB" in answer.json()["detail"]
    said = initiate(client, key)
    assert client.put(said["upload_url"], content=b"x" * (MB + 1)).status_code == 413
    assert on_disk(settings) == 0
    assert client.put(said["upload_url"], content=b"x" * MB).status_code == 200


def test_a_key_with_no_room_left_is_told(client: TestClient, key: dict[str, str]) -> None:
    sent = [client.post("/files/upload", content=b"x" * MB, headers=key) for _ in range(3)]
    assert [answer.status_code for answer in sent] == [200, 200, 413]
    assert "2 MB together" in sent[2].json()["detail"]


def asgi(app: Callable[..., Any], path: str, key: dict[str, str], *messages: Any) -> list[Any]:
    """Sends the messages as the body of a POST; what the app sends back."""
    sent: list[Any] = []
    waiting = iter(messages)
    headers = [(name.lower().encode(), value.encode()) for name, value in key.items()]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
             "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
             "scheme": "http", "server": ("testserver", 80), "root_path": ""}  # fmt: skip

    async def receive() -> Any:
        return next(waiting)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(
    files: Files, keys: Keys, settings: Settings, key: dict[str, str], engine: Engine
) -> None:
    app = FastAPI()
    app.include_router(make_router(files, keys, settings))
    half = {"type": "http.request", "body": b"x" * 1000, "more_body": True}
    sent = asgi(app, "/files/upload", key, half, half, {"type": "http.disconnect"})
    assert sent[0]["status"] == 400 and on_disk(settings) == 0
    with engine.begin() as connection:
        assert connection.execute(select(FILES)).first() is None


# Files


@pytest.mark.parametrize("kind", [
    "text/html", "image/svg+xml", "application/javascript", "text/css", "application/pdf",
    "multipart/form-data", "nonsense", "image/pngx", "application/xhtml+xml",
])  # fmt: skip
def test_what_is_no_plain_picture_comes_as_a_download(
    client: TestClient, key: dict[str, str], kind: str
) -> None:
    page = b"<script>alert(1)</script>"
    said = client.post("/files/upload", content=page, headers={**key, "Content-Type": kind}).json()
    answer = client.get(said["access_url"])
    assert answer.content == page
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    harmless(answer)


def test_pictures_are_shown_as_such_but_never_run(files: Files, client: TestClient) -> None:
    for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff"):
        name = files.keep("k", PNG, f"image/{kind}", 60)
        answer = client.get(f"/files/{name}")
        assert answer.headers["content-type"] == f"image/{kind}"
        assert answer.headers["content-disposition"].startswith("inline")
        harmless(answer)


def harmless(answer: Any) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy and "allow" not in policy


def test_head_ranges_and_etags(files: Files, client: TestClient) -> None:
    url = f"/files/{files.keep('k', PNG, 'image/png', 60)}"
    head, whole = client.head(url), client.get(url)
    assert head.content == b"" and head.headers["content-length"] == str(len(PNG))
    assert head.headers["etag"] == whole.headers["etag"]
    part = client.get(url, headers={"Range": "bytes=4-9"})
    assert part.status_code == 206 and part.content == PNG[4:10]
    changed = client.get(url, headers={"Range": "bytes=4-9", "If-Range": '"other"'})
    assert changed.status_code == 200 and changed.content == PNG
    for bad in ("bytes=9999-", "bytes=9-4", "x", "bytes=", "bytes=" + "0-1," * 200, "bytes=--1"):
        assert client.get(url, headers={"Range": bad}).status_code in (200, 206, 400, 416)


def test_an_expired_or_unknown_file_is_not_found(
    files: Files, client: TestClient, pass_time: Callable[[float], None]
) -> None:
    name = files.keep("k", PNG, "image/png", 60)
    pass_time(61)
    for path in (
        name,
        "..%2fserver.sqlite3",
        "%2e%2e",
        "server.sqlite3",
        "in-x",
        "x" * 5000,
        "%00",
    ):
        assert client.get(f"/files/{path}").status_code == 404, path


def test_a_file_whose_bytes_are_lost_is_not_found(files: Files, client: TestClient) -> None:
    name = files.keep("k", PNG, "image/png", 60)
    found = files.find(name)
    assert found is not None
    found[0].unlink()
    assert client.get(f"/files/{name}").status_code == 404


# The whole server


class NoWorkers:
    capacity = 0

    async def paint(self, work: PaintRequest) -> AsyncIterator[Event]:
        return
        yield


BODIES = (
    b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"content_type": NaN, "file_name": "a"}',
    b'{"content_type": 1}', b'{"file_name": "\\ud800"}', b'{"content_type": "\\ud800/x"}',
    b'{"file_name": {"a": Infinity}}', b"[" * 100_000, b'{"parts": {}}', b'{"parts": [1]}',
    b'{"parts": []}', b'{"parts": [{"partNumber": 1e400, "etag": "x"}]}', b"\x00",
    b'{"parts": [{"partNumber": 1, "etag": "' + b"x" * 1000 + b'"}]}',
    b'{"parts": [{"partNumber": 99999, "etag": ""}]}', b'{"content_type": "' + b"x" * 999 + b'"}',
)  # fmt: skip


def test_no_body_makes_the_server_fail(settings: Settings, keys: Keys) -> None:
    key = {"Authorization": f"Key {keys.make('laptop')}"}
    with TestClient(make_app(Head(settings, NoWorkers()))) as client:
        name = Path(initiate(client, key)["file_url"]).name
        for path in (
            "/storage/upload/initiate", "/storage/upload/initiate-multipart",
            f"/upload/{name}/multipart/complete", f"/files/{name}/multipart/{name[3:35]}/complete",
        ):  # fmt: skip
            for body in BODIES:
                headers = {**key, "Content-Type": "application/json"}
                answer = client.post(path, content=body, headers=headers)
                assert 400 <= answer.status_code < 500, (path, body)
                assert "detail" in answer.json()
            assert client.post(path, content=b"{}", headers=key).status_code == 422


def test_no_part_number_makes_the_server_fail(client: TestClient, key: dict[str, str]) -> None:
    said = initiate(client, key, multipart=True)
    for number in ("0", "-1", "10001", "x", "1.5", "9" * 5000, "%00"):
        answer = client.put(f"{said['upload_url']}/{number}", content=b"x")
        assert answer.status_code == 422


def test_the_api_page_describes_every_body(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    for path in ("/storage/upload/initiate", "/upload/{name}/multipart/complete"):
        assert "application/json" in page["paths"][path]["post"]["requestBody"]["content"]
    words = page["components"]["schemas"]
    assert set(words["Initiate"]["properties"]) == {"content_type", "file_name"}
    assert words["Part"]["properties"]["partNumber"]["type"] == "integer"
    assert "Authorization" in json.dumps(page["components"]["securitySchemes"])
    for path in ("/files/upload", "/upload/{name}"):
        method = "post" if path == "/files/upload" else "put"
        content = page["paths"][path][method]["requestBody"]["content"]
        assert content["application/octet-stream"]["schema"] == {
            "type": "string",
            "format": "binary",
        }
