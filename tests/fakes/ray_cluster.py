"""A Ray of this machine alone, and on it the server, started by `serve run` as its users do.

Run as a program it is the Ray, which ends with its standard input.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

ROOT = Path(__file__).resolve().parents[2]
TARGET = "local_backend.server.app:deployment"
START_SECONDS = 180.0
CPUS = 4  # as Ray counts them; the machine may have fewer


class RayCluster:
    """The server on workers of its own Ray.

        with RayCluster(tmp_path, min_replicas=2, max_replicas=2) as server:
            server.call("GET", "/health")

    Attributes:
        url, key: where it answers, and a key that it takes.
        data: its data folder.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.data, self.key = folder / "data", ""
        self._log, self._settings = folder / "cluster.log", settings
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._token = secrets.token_hex(32)
        # short, as it becomes part of the names of sockets
        self._temporary = tempfile.mkdtemp(prefix="ray")
        self._processes: list[subprocess.Popen[str]] = []
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> RayCluster:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def call(self, method: str, url: str, **more: Any) -> requests.Response:
        """One request with the key; a path means this server."""
        headers = {"Authorization": f"Key {self.key}", **more.pop("headers", {})}
        url = self.url + url if url.startswith("/") else url
        return self._session.request(method, url, headers=headers, timeout=60, **more)

    def replicas(self, name: str) -> list[int]:
        """The process ids of the `Worker`s, or of the `Head`s."""
        title, found = f"ray::ServeReplica:default:{name}", []
        for process in _children(self._processes[0].pid):
            with suppress(psutil.NoSuchProcess):
                if "".join(process.cmdline()[:1]).startswith(title):  # its method may follow
                    found.append(process.pid)
        return sorted(found)

    @property
    def log(self) -> str:
        """What Ray and Serve said."""
        return self._log.read_text("utf-8", "replace")

    def _start(self) -> None:
        ray = self._run([sys.executable, __file__, str(self._port), self._temporary], None)
        command = [sys.executable, "-m", "local_backend", "keys", "add", "test"]
        made = subprocess.run(
            [*command, "--data", str(self.data)], cwd=ROOT, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
        self.key = made.stdout.split()[-1]
        assert ray.stdout is not None
        address = ray.stdout.readline().strip()  # what libraries say goes to stderr
        assert address, f"Ray did not start.\n{self.log}"
        given = {"data": self.data, "public_url": self.url, **self._settings}
        words = [f"{name}={value}" for name, value in given.items()]
        serve = str(Path(sys.executable).with_name("serve"))
        self._run([serve, "run", "--address", address, TARGET, *words], address)
        end = time.monotonic() + START_SECONDS
        while "is ready at" not in self.log:
            dead = [p.args for p in self._processes if p.poll() is not None]
            assert time.monotonic() < end and not dead, f"Not ready.\n{self.log}"
            time.sleep(0.1)

    def _run(self, command: list[str], address: str | None) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there: on the loopback address
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONWARNINGS": "default",
            **({"RAY_ADDRESS": address} if address else {}),
        }
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, text=True, stderr=log,
                stdin=subprocess.PIPE, stdout=log if address else subprocess.PIPE,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _stop(self) -> None:
        """The Ray ends, and with it all that runs on it."""
        self._session.close()
        children = [child for process in self._processes for child in _children(process.pid)]
        for process in reversed(self._processes):
            process.kill()
            process.communicate()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children)
        shutil.rmtree(self._temporary, ignore_errors=True)


def _children(number: int) -> list[psutil.Process]:
    try:
        return psutil.Process(number).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def main(port: int, folder: str) -> None:
    """Ray and Serve's HTTP proxy, until standard input ends; its address on stdout."""
    import ray
    from ray import serve

    context = ray.init(
        num_cpus=CPUS, num_gpus=0, include_dashboard=False, log_to_driver=False,
        object_store_memory=200_000_000, _temp_dir=folder, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    sys.stdout.write(context.address_info["gcs_address"] + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
