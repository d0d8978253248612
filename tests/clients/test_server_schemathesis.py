"""Whatever a program makes up from the server's own description, it never fails with a 500."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.live_server import LiveServer

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# Two processes of one thread each: with several threads, Python 3.11 can fail inside ast.parse.
PHASES = ("coverage", "fuzzing,stateful")
OPTIONS = (
    "--checks=not_a_server_error", "--max-examples=8", "--generation-deterministic", "--no-shrink",
    "--request-timeout=60", "--workers=1", "--continue-on-failure", "--suppress-health-check=all",
    "--no-color", "--warnings=off",
)  # fmt: skip


@pytest.fixture
def server(plain: LiveServer) -> LiveServer:
    return plain


def operations(server: LiveServer) -> list[str]:
    """Every method and path that the server describes."""
    paths = server.call("GET", "/openapi.json").json()["paths"]
    return [f"{method} {path}" for path, item in paths.items() for method in item]


def start(server: LiveServer, phases: str, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [str(SCHEMATHESIS), "run", f"{server.url}/openapi.json", f"--phases={phases}"]
    command += [*OPTIONS, "--header", f"Authorization: Key {server.key}"]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_no_request_that_its_description_suggests_breaks_the_server(
    server: LiveServer, tmp_path: Path
) -> None:
    runs = [start(server, phases, tmp_path / phases) for phases in PHASES]
    for run in runs:
        said, _ = run.communicate(timeout=600)
        assert run.returncode == 0, said[-8000:]
        counts = re.search(r"Tested: (\d+)[\s\S]*?(\d+) generated, (\d+) passed", said)
        assert counts, said
        tested, generated, passed = (int(count) for count in counts.groups())
        assert tested == len(operations(server)) and generated == passed > 5 * tested
    assert server.call("GET", "/health").status_code == 200
    assert "Traceback" not in server.errors
