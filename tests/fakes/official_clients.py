"""fal's own clients, unchanged: scripts for them, run in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fakes.connect_proxy import ConnectProxy
from fakes.live_server import ENDPOINT, LiveServer, arguments

JS_CLIENT = "@fal-ai/client@1.10.1"
JS_SCRIPT = Path(__file__).resolve().parents[1] / "clients" / "official_client.mjs"
SECONDS = 300

# What every Python script finds: APP, ARGUMENTS, EXTRA and some helpers. It leaves `said`.
PRELUDE = """
import asyncio, json, sys, time, fal_client
APP, ARGUMENTS, EXTRA = json.load(sys.stdin)
LONG = {**ARGUMENTS, "num_inference_steps": 1000}
def failure(call, *args, **more):
    try:
        call(*args, **more)
    except fal_client.FalClientHTTPError as error:
        return [error.status_code, error.message, error.error_type]
def wait_until_runs(handle):
    while not isinstance(handle.status(), fal_client.InProgress):
        time.sleep(0.02)
def running():
    handle = fal_client.submit(APP, LONG)
    wait_until_runs(handle)
    return handle
def stop(handle):
    handle.cancel()
    while not isinstance(handle.status(), fal_client.Completed):
        time.sleep(0.02)
"""


def python_client(
    script: str, server: LiveServer, extra: object = None, proxy: ConnectProxy | None = None
) -> Any:
    """What the script leaves in `said`.

    With a proxy the client reaches the server under fal's own host names; else it is told the
    server's address in the environment.
    """
    env = {name: value for name, value in os.environ.items() if not _leads_elsewhere(name)}
    env |= {"FAL_KEY": server.key, "SSL_CERT_FILE": str(server.ca_file)}
    if proxy is None:
        host = server.url.partition("//")[2]
        env |= {"FAL_RUN_HOST": host + "/run", "FAL_QUEUE_RUN_HOST": host}
    else:
        env["HTTPS_PROXY"] = proxy.url
    command = [sys.executable, "-c", PRELUDE + script + "\nprint(json.dumps(said))"]
    return _said(command, [ENDPOINT, arguments(), extra], env)


def javascript_client(scenario: str, redirection: str, server: LiveServer, **more: Any) -> Any:
    """What the scenario of tests/clients/official_client.mjs says.

    Args:
        redirection: "middleware", "proxy" or "fetch": how the client is led to the server.
    """
    told = {"scenario": scenario, "redirection": redirection, "url": server.url, "key": server.key}
    told |= {"app": ENDPOINT, "input": arguments(), **more}
    env = {name: value for name, value in os.environ.items() if not _leads_elsewhere(name)}
    return _said(["node", str(JS_SCRIPT), str(javascript_modules())], told, env)


def why_no_javascript() -> str:
    """Why the JavaScript client cannot run here; empty if it can."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"needs {' and '.join(missing)}: apt-get install nodejs npm" if missing else ""


def javascript_modules() -> Path:
    """The folder in which Node finds the client; fetched from npm when asked for the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comfyui-onereward"
    folder = cache / JS_CLIENT.rpartition("/")[2].replace("client@", "fal-client-js-")
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            npm = ["npm", "install", "--prefix", scratch, "--no-fund", "--no-audit", "--silent"]
            subprocess.run([*npm, "--ignore-scripts", JS_CLIENT], check=True)
            made = Path(scratch) / "made"
            made.mkdir()
            (Path(scratch) / "node_modules").rename(made / "node_modules")
            try:
                made.rename(folder)
            except OSError:  # another test run was faster
                if not folder.is_dir():
                    raise
    return folder


def _leads_elsewhere(name: str) -> bool:
    """Whether a variable of the environment tells a client of another server or key."""
    return name.startswith("FAL_") or name.lower().endswith("_proxy")


def _said(command: list[str], told: object, env: dict[str, str]) -> Any:
    run = subprocess.run(
        command, input=json.dumps(told), env=env, capture_output=True, text=True, timeout=SECONDS
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
