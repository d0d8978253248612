"""The commands of the server: what they refuse in one sentence, and the keys they make."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trustme
from onereward_pack.local_backend.cli import main
from onereward_pack.local_backend.server.cli import run
from onereward_pack.local_backend.server.database import open_database
from onereward_pack.local_backend.server.keys import Keys
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.nodes.errors import InputError, ModelNotFoundError


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "Give --public-url"),
        (["--tls-cert", "a.pem"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], "cannot be used for TLS"),
        (["--max-queue", "0"], "max_queue: Input should be greater than or equal to 1"),
        (["--public-url", "gpu.lan"], "public_url: .*http:// or https://"),
        (["--precision", "fp4"], "precision: .*use one of"),
        (["--database", "sqlite:////no/such/folder/x.sqlite3"], "database cannot be opened"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_is_served(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run(["serve", "--port", "0", "--data", str(tmp_path / "data"), *flags])


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = []
    for name in ("one", "two"):
        made = authority.issue_cert(f"{name}.example")
        made.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        made.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        files.append(str(tmp_path / name))
    with pytest.raises(InputError, match="one.pem and .*two.key cannot be used"):
        run(["serve", "--tls-cert", files[0] + ".pem", "--tls-key", files[1] + ".key"])


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(InputError, match=f"127.0.0.1, port {port} cannot be listened on"):
            run(["serve", "--port", port, "--data", str(tmp_path / "data")])


def test_keys_are_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data")]
    run(["keys", "add", "laptop of Ada", *data])
    key = capsys.readouterr().out.split()[-1]
    engine = open_database(Settings(data=tmp_path / "data"))
    known = Keys(engine)
    assert known.check(f"Key {key}") == key.partition(":")[0]
    run(["keys", "list", *data])
    listed = capsys.readouterr().out
    assert "laptop of Ada" in listed and key.partition(":")[2] not in listed
    run(["keys", "revoke", key.partition(":")[0], *data])
    run(["keys", "list", *data])
    assert "revoked" in capsys.readouterr().out
    assert Keys(engine).check(f"Key {key}") is None
    with pytest.raises(InputError, match='no key "x" in use'):
        run(["keys", "revoke", "x", *data])
    engine.dispose()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["add"], "keys add needs a name"),
        (["revoke"], "keys revoke needs the id of a key"),
        (["list"], "no-server has no keys.*Give the server's --data"),
        (["revoke", "x"], "no-server has no keys.*Give the server's --data"),
    ],
)
def test_a_keys_command_that_lacks_something_says_so_and_makes_no_database(
    tmp_path: Path, command: list[str], words: str
) -> None:
    folder = tmp_path / "no-server"
    with pytest.raises(InputError, match=words):
        run(["keys", *command, "--data", str(folder)])
    assert not folder.exists()


def test_models_that_are_missing_are_named_before_a_first_key_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, models = tmp_path / "data", tmp_path / "no-models"
    with pytest.raises(ModelNotFoundError, match="no-models is no folder"):
        run(["serve", "--port", "0", "--data", str(folder), "--models", str(models)])
    assert "key" not in capsys.readouterr().out and not folder.exists()


def test_the_command_line_knows_the_server_and_says_what_went_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["serve", "--host", "0.0.0.0", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: --host 0.0.0.0 is open to others")
    with pytest.raises(SystemExit):
        main.main(["--help"])
    listed = capsys.readouterr().out
    assert "serve" in listed and "keys" in listed
