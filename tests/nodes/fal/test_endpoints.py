"""Where the key may go, where files may lie, and what servers.json may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from onereward_pack.nodes.errors import InputError
from onereward_pack.nodes.fal.endpoints import (
    FAL_MEDIA,
    QUEUE_URL_VARIABLE,
    Server,
    find_server,
    server_names,
)


@pytest.fixture
def fal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.delenv(QUEUE_URL_VARIABLE, raising=False)
    return find_server("fal", tmp_path)


def named(folder: Path, url: str, **more: object) -> Server:
    (folder / "servers.json").write_text(json.dumps({"studio": {"url": url, **more}}))
    return find_server("studio", folder)


OWN = ["https://queue.fal.run/x", "https://queue.fal.run:443/x?y=1", "HTTPS://Queue.Fal.Run/x"]
FOREIGN = [
    "http://queue.fal.run/x",
    "https://queue.fal.run:8443/x",
    "https://fal.run/x",
    "https://rest.fal.ai/x",
    "https://v3.fal.media/x",
    "https://queue.fal.run.evil.com/x",
    "https://evilqueue.fal.run/x",
    "https://a.queue.fal.run/x",
    "https://queue.fal.run@evil.com/x",
    "https://queue.fal.run:443@evil.com/x",
    "https://evil.com/queue.fal.run",
    "https://evil.com?@queue.fal.run/x",
    "https://evil.com#@queue.fal.run/x",
    "https://queue.fal.run\\@evil.com/x",
    "https://queue.fal.run\t.evil.com/x",
    "https://queue.fal.run:x/x",
    "https://queue.fal.run:99999/x",
    "//queue.fal.run/x",
    "queue.fal.run/x",
    "ftp://queue.fal.run/x",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "",
]


@pytest.mark.parametrize("url", OWN)
def test_the_key_may_go_to_the_queue(fal: Server, url: str) -> None:
    assert fal.trusts(url) and fal.holds_file(url)


@pytest.mark.parametrize("url", FOREIGN)
def test_the_key_goes_nowhere_else(fal: Server, url: str) -> None:
    assert not fal.trusts(url)


# urlsplit reads the host after the backslash, the HTTP library the one before it.
@pytest.mark.parametrize("host", ["queue.fal.run", "v3.fal.media"])
def test_a_backslash_does_not_hide_the_host_that_is_called(fal: Server, host: str) -> None:
    url = f"https://evil.com\\@{host}/x"
    assert not fal.trusts(url) and not fal.holds_file(url)


@pytest.mark.parametrize("url", ["https://[", "https://[::1", "https://fal.media\u2100/x"])
def test_what_is_no_url_is_nobodys(fal: Server, url: str) -> None:
    assert not fal.trusts(url) and not fal.holds_file(url)


@pytest.mark.parametrize("host", [*FAL_MEDIA, "v3.fal.media", "v3b.FAL.media"])
def test_results_may_lie_on_fals_media_hosts_over_https(fal: Server, host: str) -> None:
    assert fal.holds_file(f"https://{host}/files/x.png?token=1")
    assert not fal.holds_file(f"http://{host}/files/x.png")
    assert not fal.trusts(f"https://{host}/files/x.png")


@pytest.mark.parametrize("host", [
    "evilfal.media", "fal.media.evil.com", "fal.media@evil.com", "evil.com#.fal.media",
    "evil.com?.fal.media", "evil.com/.fal.media", "fal.mediaevil", "media", "127.0.0.1",
    "a.storage.googleapis.com.evil.com", "googleapis.com", "169.254.169.254",
])  # fmt: skip
def test_results_lie_nowhere_else(fal: Server, host: str) -> None:
    assert not fal.holds_file(f"https://{host}/x.png")


def test_fal_itself_is_where_its_documentation_says(fal: Server) -> None:
    assert (fal.queue_url, fal.storage_url) == ("https://queue.fal.run", "https://rest.fal.ai")
    assert fal.api_url == "https://api.fal.ai/v1"
    assert fal.priced and fal.key_env is None


def test_a_gateway_takes_the_place_of_fals_own_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUEUE_URL_VARIABLE, "https://gateway.studio/fal/")
    server = find_server("fal", tmp_path)
    assert server.queue_url == server.storage_url == "https://gateway.studio/fal"
    assert server.api_url == "https://gateway.studio/fal/v1"
    assert server.priced and server.key_env is None
    assert server.holds_file("https://v3.fal.media/x") and server.trusts("https://gateway.studio/x")
    assert not server.trusts("https://queue.fal.run/x")
    monkeypatch.setenv(QUEUE_URL_VARIABLE, "http://gateway.studio")
    with pytest.raises(InputError, match=QUEUE_URL_VARIABLE):
        find_server("fal", tmp_path)
    monkeypatch.setenv(QUEUE_URL_VARIABLE, "")
    assert find_server("fal", tmp_path).queue_url == "https://queue.fal.run"


def test_a_named_server_is_its_own_queue_storage_and_media(tmp_path: Path) -> None:
    server = named(tmp_path, "https://gpu.studio:8443/one/", key_env="STUDIO_KEY")
    assert server == Server(
        "studio", "https://gpu.studio:8443/one", "https://gpu.studio:8443/one",
        "https://gpu.studio:8443/one/v1", (), "STUDIO_KEY", priced=False,
    )  # fmt: skip
    assert server.holds_file("https://gpu.studio:8443/files/x")
    assert not server.holds_file("https://v3.fal.media/x")
    assert not server.trusts("https://gpu.studio/one")
    assert server_names(tmp_path) == ["fal", "studio"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "LOCALHOST"])
def test_plain_http_is_for_this_machine(tmp_path: Path, host: str) -> None:
    assert named(tmp_path, f"http://{host}:8000").trusts(f"http://{host}:8000/x")


@pytest.mark.parametrize("url", [
    "http://192.168.1.5", "http://0.0.0.0", "http://localhost.evil.com", "http://127.0.0.1.evil.com",
    "http://127.0.0.1@evil.com", "http://[::2]", "http://gpu", "ftp://127.0.0.1", "gpu.studio",
    "//gpu.studio", "file:///tmp", "https://", "https:///x", "", "https://gpu?key=secret",
    "https://gpu#part", "https://user:secret@gpu", "https://user:secret?@gpu",
    "https://gpu:x", "https://gpu:99999", "https://[", "https://evil.com\\@gpu",
])  # fmt: skip
def test_an_address_that_is_not_safe_is_refused_without_its_secrets(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:8000") as failure:
        named(tmp_path, url)
    assert 'servers.json, "studio"' in str(failure.value)
    assert "secret" not in str(failure.value)


BROKEN = {
    "no JSON": b"{'fal': 1}",
    "cut short": b'{"studio": {"url": ',
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a word": b'"studio"',
    "null": b"null",
    "an entry that is a text": b'{"studio": "https://gpu"}',
    "an entry that is null": b'{"studio": null}',
    "no url": b'{"studio": {}}',
    "a url that is a number": b'{"studio": {"url": 8000}}',
    "a word nobody reads": b'{"studio": {"url": "https://gpu", "key": "id:secret"}}',
    "a variable that is no text": b'{"studio": {"url": "https://gpu", "key_env": 5}}',
    "an authority that is no text": b'{"studio": {"url": "https://gpu", "ca": false}}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("use", [server_names, lambda folder: find_server("studio", folder)])
def test_a_broken_file_is_named_with_the_remedy(
    tmp_path: Path, text: bytes, use: Callable[[Path], object]
) -> None:
    (tmp_path / "servers.json").write_bytes(text)
    with pytest.raises(InputError, match="Write servers.json as") as failure:
        use(tmp_path)
    assert str(tmp_path / "servers.json") in str(failure.value)
    assert "id:secret" not in str(failure.value)
    if b'"studio": ' in text and text.endswith(b"}"):
        assert '"studio"' in str(failure.value)


def test_the_remedy_can_be_copied_into_the_file(tmp_path: Path) -> None:
    (tmp_path / "servers.json").write_text("broken")
    with pytest.raises(InputError) as failure:
        server_names(tmp_path)
    example = re.search(r"\{.*\}", str(failure.value).partition("Write servers.json as")[2])
    assert example is not None and set(json.loads(example[0])["name"]) == {"url", "key_env", "ca"}


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    server = named(tmp_path, "https://gpu.example.com")
    file = tmp_path / "servers.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert find_server("studio", tmp_path) == server


def test_the_file_cannot_rename_fal(tmp_path: Path) -> None:
    (tmp_path / "servers.json").write_text('{"fal": {"url": "https://evil.com"}}')
    with pytest.raises(InputError, match='"fal", which is fal itself. Rename it'):
        server_names(tmp_path)
    assert find_server("fal", tmp_path).queue_url == "https://queue.fal.run"


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "servers.json").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        server_names(tmp_path)


def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path) -> None:
    named(tmp_path, "https://gpu.studio")
    with pytest.raises(InputError, match='no server "gpu".*fal, studio'):
        find_server("gpu", tmp_path)
    (tmp_path / "servers.json").unlink()
    assert server_names(tmp_path) == ["fal"]
