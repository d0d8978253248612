"""The real server, started as its users start it, and plain requests to it."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import trustme
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENDPOINT = "fal-ai/onereward"
HOSTS = (
    "127.0.0.1", "localhost", "queue.fal.run", "fal.run", "rest.fal.ai", "v3.fal.media",
    "api.fal.ai",
)  # fmt: skip
KEY = re.compile(r"\b[\w-]+:[\w-]{16,}")
SQUARE = (64, 64, 160, 160)  # the masked part of `arguments`
START_SECONDS = STOP_SECONDS = 300.0


class LiveServer:
    """`python -m local_backend serve` on a free port of this machine.

        with LiveServer(tmp_path, "--max-images", "2") as server:
            follow(server, submit(server))

    Attributes:
        url, port: where it answers; the same after a restart.
        key: the first key, which the server made.
        ca_file: what a client of its TLS has to trust; None without TLS.
        process: the server, while it runs.
    """

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        self.url = self.key = ""
        self.port = 0
        self.ca_file: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._folder, self._options = folder, list(options)
        if tls:
            self._make_certificate()
        self._session = requests.Session()
        self._session.trust_env = False
        if self.ca_file is not None:
            self._session.verify = str(self.ca_file)

    def __enter__(self) -> LiveServer:
        try:
            self.start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self._kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "local_backend", "serve", "--port", str(self.port)]
        command += ["--data", str(self._folder / "data"), *self._options]
        with open(self._said, "wb") as said, open(self._errors, "ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=_environment(), stdout=said, stderr=errors
            )
        self.url = self._wait_for(r"^Serving .* at (\S+), API page \S+/docs$")
        self.port = int(self.url.rpartition(":")[2])
        found = KEY.search(self._said.read_text())
        self.key = found[0] if found else self.key

    def stop(self) -> None:
        """SIGTERM, as a service manager or a container does.

        Raises:
            RuntimeError: it does not end in time, or not with 0.
        """
        self._session.close()  # an idle TLS connection would be waited for
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise RuntimeError(f"The server did not stop.\n{self.errors}") from error
        if code:
            raise RuntimeError(f"The server ended with {code}.\n{self.errors}")

    def restart(self) -> None:
        """Stop, and start at the same address with the same data."""
        self.stop()
        self.start()

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return self._errors.read_text("utf-8", "replace")

    def call(self, method: str, url: str, key: str | None = None, **more: Any) -> requests.Response:
        """One request with the server's own key or another one; a path means this server."""
        headers = {"Authorization": f"Key {self.key if key is None else key}"}
        headers.update(more.pop("headers", {}))
        url = self.url + url if url.startswith("/") else url
        return self._session.request(method, url, headers=headers, timeout=60, **more)

    def another_key(self, name: str) -> str:
        """A second key, made while the server runs."""
        command = [sys.executable, "-m", "local_backend", "keys", "add", name]
        command += ["--data", str(self._folder / "data")]
        run = subprocess.run(
            command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=60
        )
        found = KEY.search(run.stdout)
        assert run.returncode == 0 and found, run.stderr
        return found[0]

    @property
    def _said(self) -> Path:
        return self._folder / "stdout.txt"

    @property
    def _errors(self) -> Path:
        return self._folder / "stderr.txt"

    def _make_certificate(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert(*HOSTS)
        self.ca_file = self._folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        chain, key = self._folder / "cert.pem", self._folder / "key.pem"
        for number, part in enumerate(certificate.cert_chain_pems):
            part.write_to_path(str(chain), append=number > 0)
        certificate.private_key_pem.write_to_path(str(key))
        self._options += ["--tls-cert", str(chain), "--tls-key", str(key)]

    def _wait_for(self, line: str) -> str:
        assert self.process is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(line, self._said.read_text(), re.MULTILINE)
            if found:
                return found[1]
            time.sleep(0.02)
        raise RuntimeError(f"The server did not start.\n{self._said.read_text()}{self.errors}")

    def _kill(self) -> None:
        self._session.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


def arguments(size: tuple[int, int] = (256, 256), steps: int = 2, **more: Any) -> dict[str, Any]:
    """A picture of colour ramps whose SQUARE is masked, inline."""
    ramp = Image.linear_gradient("L").resize(size)
    picture = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))
    mask = Image.new("L", size)
    mask.paste(255, SQUARE)
    urls = {"image_url": data_uri(picture), "mask_url": data_uri(mask)}
    rest = {"prompt": "a red ball", "output_format": "png", "seed": 5}
    return {**urls, **rest, "num_inference_steps": steps, **more}


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_of(uri: str) -> Image.Image:
    """The picture inside a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def submit(
    server: LiveServer, body: dict[str, Any] | None = None, **headers: str
) -> dict[str, Any]:
    """What the server says to the job, `arguments()` by default."""
    body = arguments() if body is None else body
    answer = server.call("POST", f"/{ENDPOINT}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def follow(
    server: LiveServer, told: dict[str, Any], seconds: float = 300.0
) -> tuple[list[dict[str, Any]], requests.Response]:
    """All status answers and the result."""
    seen, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        answer = server.call("GET", told["status_url"] + "?logs=1")
        seen.append(answer.json())
        assert answer.status_code == (200 if seen[-1]["status"] == "COMPLETED" else 202)
        if answer.status_code == 200:
            return seen, server.call("GET", told["response_url"])
        time.sleep(0.05)
    raise AssertionError(f"The job was not done after {seconds} s: {seen[-1]}")


def wait_until_runs(server: LiveServer, told: dict[str, Any], seconds: float = 120.0) -> None:
    """Until the job's status is IN_PROGRESS."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = server.call("GET", told["status_url"]).json()["status"]
        assert status != "COMPLETED"
        if status == "IN_PROGRESS":
            return
        time.sleep(0.02)
    raise AssertionError(f"The job did not run after {seconds} s.")
