"""The server's guide and container name what the server has: settings, flags, working entries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.nodes.fal.endpoints import find_server

ROOT = Path(__file__).resolve().parents[3]
SERVER = ROOT / "local_backend" / "server"
GUIDE = (SERVER / "README.md").read_text("utf-8")
CONTAINER = (SERVER / "Dockerfile").read_text("utf-8")


def test_the_table_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", GUIDE, re.MULTILINE))
    assert list(rows) == list(Settings.model_fields)
    for name, said in rows.items():
        default = Settings.model_fields[name].default
        if default not in ("", None, (), False, 0):
            shown = f"{default:g}" if isinstance(default, (int, float)) else f"`{default}`"
            assert said == shown, name


def test_every_flag_of_the_guide_and_of_the_container_is_one_of_the_servers() -> None:
    command = [sys.executable, "-m", "local_backend", "serve", "--help"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    known = set(re.findall(r"--[a-z][a-z-]+", run.stdout))
    entry = re.findall(r'^(?:ENTRYPOINT|CMD) (\[".*"\])$', CONTAINER, re.MULTILINE)
    started = [word for words in entry for word in json.loads(words)]
    assert started[:4] == ["python", "-m", "local_backend", "serve"]
    told = re.findall(r"--[a-z][a-z-]+", " ".join(re.findall(r"local_backend serve .*", GUIDE)))
    assert {"--tls-cert", "--public-url"} <= known
    assert {word for word in [*started, *told] if word.startswith("--")} <= known


@pytest.mark.parametrize("entry", re.findall(r"^\{.*\}$", GUIDE, re.MULTILINE))
def test_every_entry_of_the_guide_names_a_server(tmp_path: Path, entry: str) -> None:
    (tmp_path / "servers.json").write_text(entry)
    [(name, said)] = json.loads(entry).items()
    if "ca" in said:
        trustme.CA().cert_pem.write_to_path(str(tmp_path / said["ca"]))
    assert find_server(name, tmp_path).key_env == "STUDIO_KEY"


def test_the_container_holds_no_key_and_runs_as_nobody_special() -> None:
    assert "USER onereward" in CONTAINER and "KEY" not in CONTAINER
    copied = re.findall(r"^COPY (.+) \S+$", CONTAINER, re.MULTILINE)
    missing = [path for line in copied for path in line.split() if not (ROOT / path).exists()]
    assert copied and missing == []
