"""The server's files: names that cannot be guessed or abused, limits, expiry, and parts."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from onereward_pack.local_backend.server.database import FILES, open_database
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.local_backend.server.storage import files as files_module
from onereward_pack.local_backend.server.storage import uploads
from onereward_pack.local_backend.server.storage.files import Files, UploadError
from onereward_pack.local_backend.server.storage.uploads import complete, store, store_part
from sqlalchemy import Engine, func, select

MB = 1 << 20
DAY = 86400.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data", public_url="https://gpu.example.com", max_upload_mb=3,
        max_storage_mb=5,
    )  # fmt: skip


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def files(engine: Engine, settings: Settings) -> Files:
    return Files(engine, settings)


def on_disk(settings: Settings) -> list[str]:
    return sorted(os.listdir(settings.files))


def rows(engine: Engine) -> int:
    with engine.begin() as connection:
        return connection.execute(select(func.count()).select_from(FILES)).scalar_one()


async def chunks(*data: bytes | BaseException) -> AsyncIterator[bytes]:
    for one in data:
        if isinstance(one, BaseException):
            raise one
        yield one


def upload(files: Files, name: str, *data: bytes | BaseException) -> None:
    asyncio.run(store(files, name, chunks(*data)))


def upload_part(files: Files, name: str, number: int, *data: bytes | BaseException) -> str:
    return asyncio.run(store_part(files, name, number, chunks(*data)))


def made(files: Files, key: str, size: int) -> str:
    name = files.begin(key, "image/png", DAY)
    upload(files, name, b"x" * size)
    return name


# Names


def test_a_result_is_read_back_under_a_name_nobody_can_guess(
    files: Files, settings: Settings
) -> None:
    names = {files.keep("k", b"picture", "image/png", DAY) for _ in range(20)}
    assert len(names) == 20
    for name in names:
        assert re.fullmatch(r"out-[A-Za-z0-9_-]{32}\.png", name)
        assert files.read(name) == b"picture"
        found = files.find(name)
        assert found is not None and found[1] == "image/png"
        assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
        assert files.url(name) == f"https://gpu.example.com/files/{name}"
    assert on_disk(settings) == sorted(names)


@pytest.mark.parametrize(("said", "ending", "kept"), [
    ("image/jpeg", "jpg", "image/jpeg"), ("IMAGE/PNG; charset=x", "png", "image/png"),
    ("text/html", "bin", "text/html"), ("../../etc/passwd", "bin", "application/octet-stream"),
    ("", "bin", "application/octet-stream"), ("a/" + "b" * 200, "bin", "application/octet-stream"),
    ("image/png\r\nX: y", "bin", "application/octet-stream"),
])  # fmt: skip
def test_the_content_type_gives_the_ending_and_nothing_else(
    files: Files, said: str, ending: str, kept: str
) -> None:
    name = files.keep("k", b"", said, DAY)
    found = files.find(name)
    assert name.endswith(f".{ending}") and found is not None and found[1] == kept


STRANGERS = (
    "../server.sqlite3", "..", ".", "", "/etc/passwd", "server.sqlite3", "in-x.png",
    "stray.png", "out-" + "a" * 32 + ".png", "out-" + "a" * 32 + ".png\n", "x" * 10_000,
    "out-" + "a" * 32 + ".png/../../server.sqlite3", "out-" + "\u0660" * 32 + ".png", "%2e%2e",
)  # fmt: skip


def test_a_name_that_is_not_in_the_table_leads_to_no_file(files: Files, settings: Settings) -> None:
    (settings.files / "stray.png").write_bytes(b"secret")
    (settings.files / ("out-" + "a" * 32 + ".png")).write_bytes(b"no row speaks of it")
    for name in STRANGERS:
        assert files.find(name) is None and files.read(name) is None
        with pytest.raises(UploadError) as caught:
            files.is_pending(name)
        assert caught.value.status == 404


def test_a_row_with_a_bad_name_leads_to_no_file_either(files: Files, engine: Engine) -> None:
    row = {
        "key_id": "k",
        "content_type": "a/b",
        "size": 1,
        "whole": True,
        "expires": time.time() + 9,
    }
    with engine.begin() as connection:
        connection.execute(FILES.insert().values({**row, "name": "../server.sqlite3"}))
    assert files.find("../server.sqlite3") is None


def test_the_servers_own_addresses_are_known_and_no_others(files: Files) -> None:
    name = files.keep("k", b"x", "image/png", DAY)
    for good in ("https://gpu.example.com", "HTTPS://GPU.Example.com:443"):
        assert files.own(f"{good}/files/{name}") == name
    assert files.own(files.url(name) + "#top") == name
    for bad in (
        f"http://gpu.example.com/files/{name}", f"https://gpu.example.com:444/files/{name}",
        f"https://gpu.example.com.evil.com/files/{name}", f"https://gpu.example.com/x/files/{name}",
        f"https://u@gpu.example.com/files/{name}", f"https://gpu.example.com/files/{name}?a",
        "https://gpu.example.com/files/../server.sqlite3", "https://gpu.example.com/files/",
        f"https://gpu.example.com/files/x/../{name}", f"https://[/files/{name}", name, "",
        f"https://gpu.example.com:99999/files/{name}", "data:image/png;base64," + "A" * 5000,
    ):  # fmt: skip
        assert files.own(bad) is None, bad


def test_a_server_below_a_path_knows_its_files(engine: Engine, settings: Settings) -> None:
    below = settings.model_copy(update={"public_url": "http://box:8000/gpu"})
    files = Files(engine, below)
    name = files.keep("k", b"x", "image/png", DAY)
    assert files.url(name) == f"http://box:8000/gpu/files/{name}"
    assert files.own(files.url(name)) == name
    assert files.own(f"http://box:8000/files/{name}") is None


# Expiry


def test_an_expired_file_is_gone_before_the_sweeper_comes_and_then_from_the_disk(
    files: Files, settings: Settings, engine: Engine, pass_time: Callable[[float], None]
) -> None:
    kept, gone = files.keep("k", b"a", "image/png", DAY), files.keep("k", b"b", "image/png", 60)
    assert files.read(gone) == b"b"
    pass_time(61)
    assert files.read(gone) is None and files.find(gone) is None
    assert gone in on_disk(settings)
    assert files.sweep(time.time()) == 1
    assert on_disk(settings) == [kept] and rows(engine) == 1 and files.read(kept) == b"a"


def test_no_file_outlives_what_the_server_keeps(files: Files, settings: Settings) -> None:
    names = [files.keep("k", b"a", "image/png", 9e9), files.begin("k", "image/png", 9e9)]
    upload(files, names[1], b"b")
    assert files.sweep(time.time() + settings.keep_seconds - 60) == 0
    assert files.sweep(time.time() + settings.keep_seconds + 1) == 2
    assert on_disk(settings) == []


def test_parts_that_nobody_adds_to_and_files_without_a_row_are_swept(
    files: Files, settings: Settings, engine: Engine
) -> None:
    whole, young, old = (files.begin("k", "image/png", DAY) for _ in range(3))
    upload(files, whole, b"x")
    for name in (young, old):
        upload_part(files, name, 1, b"p")
    orphan = settings.files / ("out-" + "a" * 32 + ".png")
    late = settings.files / f"{whole}.1.{'0' * 64}.part"
    foreign = settings.files / "notes.txt"
    for file in (orphan, late, foreign):
        file.write_bytes(b"o")
    for entry in os.scandir(settings.files):
        if not entry.name.startswith(young):
            os.utime(entry.path, (time.time() - files_module.STALE - 9,) * 2)
    files.sweep(time.time())
    left = on_disk(settings)
    assert len(left) == 3 and "notes.txt" in left and whole in left
    assert any(name.startswith(young) for name in left)
    assert rows(engine) == 2 and files.is_pending(young)
    with pytest.raises(UploadError):
        files.is_pending(old)


def test_parts_of_an_expired_upload_are_swept_with_it(files: Files, settings: Settings) -> None:
    files.sweep()  # so that the whole folder is not looked through anyway
    name = files.begin("k", "image/png", 60)
    upload_part(files, name, 1, b"p")
    assert files.sweep(time.time() + 61) == 1 and on_disk(settings) == []


def test_a_result_that_cannot_be_written_leaves_nothing(
    files: Files, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.keep("k", b"x", "image/png", DAY)
    assert on_disk(settings) == [] and rows(engine) == 0


# Uploads


def test_an_upload_is_served_when_it_is_whole_and_can_be_made_once(files: Files) -> None:
    name = files.begin("k", "image/png", DAY)
    assert name.startswith("in-") and files.is_pending(name) and files.find(name) is None
    upload(files, name, b"ab", b"", b"c" * (2 * MB))
    assert not files.is_pending(name)
    assert files.read(name) == b"ab" + b"c" * (2 * MB)
    with pytest.raises(UploadError) as caught:
        upload(files, name, b"other")
    assert caught.value.status == 403
    assert files.read(name) == b"ab" + b"c" * (2 * MB)


def test_a_file_whose_row_is_not_whole_is_not_served(files: Files, settings: Settings) -> None:
    name = files.begin("k", "image/png", DAY)
    (settings.files / name).write_bytes(b"moved by a head that died before it said so")
    assert files.find(name) is None and files.read(name) is None


def test_a_broken_upload_leaves_nothing_and_can_be_made_again(
    files: Files, settings: Settings
) -> None:
    name = files.begin("k", "image/png", DAY)
    for error in (ConnectionResetError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            upload(files, name, b"x" * (2 * MB), error)
        assert on_disk(settings) == [] and files.find(name) is None
    upload(files, name, b"y" * 3 * MB)
    made(files, "k", 2 * MB)  # the whole quota is there: the broken ones were taken off


def test_of_two_uploads_of_a_name_at_once_one_is_kept_whole(
    files: Files, settings: Settings
) -> None:
    name = files.begin("k", "image/png", DAY)

    async def both() -> list[Any]:
        ways = (store(files, name, chunks(*[bytes([n]) * 100] * 3)) for n in (1, 2))
        return await asyncio.gather(*ways, return_exceptions=True)

    ends = asyncio.run(both())
    assert sorted(type(end).__name__ for end in ends) == ["NoneType", "UploadError"]
    winner = ends.index(None) + 1
    assert files.read(name) == bytes([winner]) * 300 and on_disk(settings) == [name]


def test_a_file_over_the_limit_is_refused_while_it_comes(files: Files, settings: Settings) -> None:
    name = files.begin("k", "image/png", DAY)
    came = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal came
        while True:
            came += 1
            yield b"x" * (MB // 4)

    with pytest.raises(UploadError, match="3 MB") as caught:
        asyncio.run(store(files, name, endless()))
    assert caught.value.status == 413 and came <= 4 * 4 and on_disk(settings) == []
    upload(files, name, b"x" * 3 * MB)  # exactly the limit


def test_live_uploads_of_a_key_are_bounded_and_results_are_not_counted(files: Files) -> None:
    for _ in range(3):
        files.keep("k", b"r" * 3 * MB, "image/png", DAY)
    made(files, "k", 3 * MB)
    with pytest.raises(UploadError, match="5 MB together") as caught:
        made(files, "k", 2 * MB + 1)
    assert caught.value.status == 413
    made(files, "k", 2 * MB)
    with pytest.raises(UploadError):
        made(files, "k", 1)
    made(files, "other", 3 * MB)


def test_expired_uploads_make_room(files: Files, pass_time: Callable[[float], None]) -> None:
    name = files.begin("k", "image/png", 60)
    upload(files, name, b"x" * 3 * MB)
    pass_time(61)
    made(files, "k", 3 * MB)


def test_uploads_at_the_same_time_do_not_pass_the_quota_together(files: Files) -> None:
    names = [files.begin("k", "image/png", DAY) for _ in range(8)]

    async def all_at_once() -> list[Any]:
        ways = (store(files, name, chunks(*[b"x" * MB] * 2)) for name in names)
        return await asyncio.gather(*ways, return_exceptions=True)

    refused = [end for end in asyncio.run(all_at_once()) if end is not None]
    kept = [name for name in names if files.read(name)]
    assert len(kept) <= 2 and len(kept) + len(refused) == 8
    assert all(isinstance(end, UploadError) and end.status == 413 for end in refused)
    made(files, "k", (5 - 2 * len(kept)) * MB if kept else 3 * MB)  # and what was refused is free


def test_a_key_cannot_fill_the_table_with_uploads_it_never_makes(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_MOST_UPLOADS", 3)
    for _ in range(3):
        files.begin("k", "image/png", DAY)
    with pytest.raises(UploadError, match="3 uploads"):
        files.begin("k", "image/png", DAY)
    files.begin("other", "image/png", DAY)


def test_an_upload_that_expires_while_it_comes_is_refused(
    files: Files, settings: Settings, pass_time: Callable[[float], None]
) -> None:
    name = files.begin("k", "image/png", 60)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        pass_time(61)

    with pytest.raises(UploadError) as caught:
        asyncio.run(store(files, name, slow()))
    assert caught.value.status == 404 and on_disk(settings) == []


# Parts


def test_parts_in_any_order_make_the_file(files: Files, settings: Settings) -> None:
    name = files.begin("k", "image/png", DAY)
    etags = {n: upload_part(files, name, n, bytes([n]) * n * 1000) for n in (3, 1, 11, 2)}
    etags |= {n: upload_part(files, name, n, bytes([n])) for n in range(4, 11)}
    assert files.find(name) is None
    complete(files, name, "k", [(n, etags[n]) for n in (11, 2, 1, 3, *range(10, 3, -1))])
    small = bytes(range(4, 11))
    parts = b"\1" * 1000 + b"\2" * 2000 + b"\3" * 3000 + small + b"\x0b" * 11000
    assert files.read(name) == parts and on_disk(settings) == [name]
    complete(files, name, "k", [(1, etags[1])])  # the client did not hear the answer: as before
    assert files.read(name) == parts
    with pytest.raises(UploadError):
        upload_part(files, name, 1, b"more")


def test_a_part_sent_again_counts_once_or_is_another(files: Files, settings: Settings) -> None:
    name = files.begin("k", "image/png", DAY)
    for _ in range(4):
        good = upload_part(files, name, 1, b"x" * 2 * MB)  # 4 MB claimed at a time
    assert len(on_disk(settings)) == 1
    wrong = upload_part(files, name, 1, b"y")
    assert wrong != good
    complete(files, name, "k", [(1, good.strip('"'))])
    assert files.read(name) == b"x" * 2 * MB
    made(files, "k", 3 * MB)


@pytest.mark.parametrize("listed", [
    [], [(2, "{2}")], [(1, "{1}"), (1, "{1}")], [(1, "{1}"), (3, "{3}")], [(1, "{2}"), (2, "{1}")],
    [(1, "")], [(1, '"' + "0" * 64 + '"')], [(1, "../../server.sqlite3")], [(0, "{1}")],
    [(1, "{1}"), (2, "{2}"), (3, "{3}"), (4, "{3}")], [(-1, "{1}")],
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused_and_the_upload_goes_on(
    files: Files, listed: list[tuple[int, str]]
) -> None:
    name = files.begin("k", "image/png", DAY)
    etags = {f"{{{n}}}": upload_part(files, name, n, bytes([n])) for n in (1, 2, 3)}
    with pytest.raises(UploadError) as caught:
        complete(files, name, "k", [(n, etags.get(etag, etag)) for n, etag in listed])
    assert caught.value.status == 400 and files.is_pending(name)
    complete(files, name, "k", [(n, etags[f"{{{n}}}"]) for n in (1, 2, 3)])
    assert files.read(name) == b"\1\2\3"


def test_parts_together_may_not_pass_the_limit_of_a_file(files: Files, settings: Settings) -> None:
    name = files.begin("k", "image/png", DAY)
    etags = [upload_part(files, name, n, b"x" * MB) for n in (1, 2)]
    etags.append(upload_part(files, name, 3, b"x" * MB, b"x"))
    parts = list(enumerate(etags, 1))
    with pytest.raises(UploadError, match="3 MB") as caught:
        complete(files, name, "k", parts)
    assert caught.value.status == 413 and files.find(name) is None
    complete(files, name, "k", parts[:2])
    assert on_disk(settings) == [name, parted(name, parts[2])]
    assert files.read(name) == b"x" * 2 * MB


def parted(name: str, part: tuple[int, str]) -> str:
    etag = part[1].strip('"')
    return f"{name}.{part[0]}.{etag}.part"


def test_parts_that_are_never_put_together_are_bounded(
    files: Files, settings: Settings, engine: Engine
) -> None:
    roomy = Files(engine, settings.model_copy(update={"max_storage_mb": 100}))
    name = roomy.begin("k", "image/png", DAY)
    for n in range(1, 4):
        upload_part(roomy, name, n, b"x" * 2 * MB)
    with pytest.raises(UploadError, match="3 MB"):
        upload_part(roomy, name, 4, b"x")
    assert len(on_disk(settings)) == 3


def test_empty_parts_count_too(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    name = files.begin("k", "image/png", DAY)
    monkeypatch.setattr(uploads, "_BLOCK", 2 * MB)
    for n in (1, 2):
        upload_part(files, name, n, b"")
    with pytest.raises(UploadError, match="5 MB together"):
        upload_part(files, name, 3, b"")


def test_a_broken_part_leaves_nothing(files: Files, settings: Settings) -> None:
    name = files.begin("k", "image/png", DAY)
    with pytest.raises(ConnectionResetError):
        upload_part(files, name, 1, b"x" * 2 * MB, ConnectionResetError())
    assert on_disk(settings) == []
    upload_part(files, name, 1, b"x" * 3 * MB)


def test_another_keys_upload_cannot_be_completed(files: Files) -> None:
    name = files.begin("k", "image/png", DAY)
    etag = upload_part(files, name, 1, b"x")
    with pytest.raises(UploadError) as caught:
        complete(files, name, "other", [(1, etag)])
    assert caught.value.status == 404 and files.is_pending(name)
    with pytest.raises(UploadError):
        asyncio.run(store_part(files, name, 2, chunks(b"y"), "other"))


def test_completing_twice_at_once_makes_one_file_and_no_error(
    files: Files, settings: Settings
) -> None:
    name = files.begin("k", "image/png", DAY)
    parts = [(n, upload_part(files, name, n, bytes([n]) * 200_000)) for n in range(1, 9)]
    with ThreadPoolExecutor(4) as threads:
        ends = [threads.submit(complete, files, name, "k", parts) for _ in range(4)]
        assert [end.result() for end in ends] == [None] * 4
    assert files.read(name) == b"".join(bytes([n]) * 200_000 for n in range(1, 9))
    assert on_disk(settings) == [name]
