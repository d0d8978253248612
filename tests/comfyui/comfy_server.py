"""Starts a real ComfyUI with the pack as its custom node, and speaks HTTP with it."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from comfy_source import comfyui_source
from PIL import Image

PACK = Path(__file__).parents[2]
PACK_FOLDER = "onereward"  # what ComfyUI-Manager would call it
QUEUE_URL = "ONEREWARD_FAL_QUEUE_URL"  # names the server that the pack takes for fal
START_LIMIT = 300.0
RUN_LIMIT = 600.0
# What a user has behind them after the first day: no tutorial, no template chooser.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.32.9",
    "Comfy.UseNewMenu": "Top",
    "Comfy.Minimap.Visible": False,
}


class ComfyUIError(RuntimeError):
    """ComfyUI did not start, died, or refused a request; carries what it said."""


@dataclass(frozen=True)
class ComfyUI:
    """A running server.

    Attributes:
        url: where it listens, such as http://127.0.0.1:40001.
        folder: its base directory, with input/ and output/.
        log: the file that holds everything it has written.
        process: its process, the leader of a group of its own.
    """

    url: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str, **query: str) -> Any:
        """The JSON behind GET `path`; ComfyUIError on any status but 200."""
        reply = requests.get(self.url + path, params=query, timeout=30)
        return self._checked(reply, path).json()

    def post(self, path: str, body: Any) -> requests.Response:
        """The reply to POST `path` with `body` as JSON; ComfyUIError on any status but 2xx."""
        return self._checked(requests.post(self.url + path, json=body, timeout=30), path)

    def queue(self, prompt: Mapping[str, Any], client_id: str = "tests") -> str:
        """Queue an API prompt; returns its id. ComfyUIError names every input it refuses."""
        reply = self.post("/prompt", {"prompt": prompt, "client_id": client_id})
        return str(reply.json()["prompt_id"])

    def run(self, prompt: Mapping[str, Any]) -> Run:
        """Queue an API prompt and wait until it is over, well or badly."""
        prompt_id = self.queue(prompt)
        self.wait(lambda: bool(self.get(f"/history/{prompt_id}")), RUN_LIMIT)
        return self.finished(prompt_id)

    def free(self) -> None:
        """What the buttons for it do: unload the models, forget results. ComfyUI does it between
        two runs, so that one has to pass.
        """
        self.post("/free", {"unload_models": True, "free_memory": True})
        size = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
        empty = {"class_type": "EmptyImage", "inputs": size}
        show = {"class_type": "PreviewImage", "inputs": {"images": ["empty", 0]}}
        run = self.run({"empty": empty, "show": show})
        if run.status != "success":
            raise ComfyUIError(f"{run.message('execution_error')}{self.tail()}")

    def finished(self, prompt_id: str) -> Run:
        """What the history says about a prompt that is over."""
        entry = self.get(f"/history/{prompt_id}")[prompt_id]
        messages = tuple((name, data) for name, data in entry["status"]["messages"])
        return Run(prompt_id, entry["status"]["status_str"], messages, entry["outputs"])

    def picture(self, shown: Mapping[str, str]) -> Image.Image:
        """The picture that an output node showed: RGB, as saved."""
        reply = requests.get(self.url + "/view", params=dict(shown), timeout=30)
        return Image.open(io.BytesIO(self._checked(reply, "/view").content)).convert("RGB")

    def metadata(self, shown: Mapping[str, str]) -> dict[str, str]:
        """The words in the file of a picture that an output node showed, such as its graph."""
        reply = requests.get(self.url + "/view", params=dict(shown), timeout=30)
        picture = Image.open(io.BytesIO(self._checked(reply, "/view").content))
        return {str(name): str(text) for name, text in picture.info.items()}

    def wait(self, ready: Callable[[], bool], limit: float) -> None:
        """Return when `ready()`; ComfyUIError after `limit` seconds or when the server dies."""
        end = time.monotonic() + limit
        while not ready():
            if self.process.poll() is not None:
                raise ComfyUIError(f"ComfyUI ended ({self.process.returncode}).{self.tail()}")
            if time.monotonic() > end:
                raise ComfyUIError(f"ComfyUI was not ready in {limit:.0f} s.{self.tail()}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """True once the server takes requests."""
        try:
            self.get("/system_stats")
        except requests.ConnectionError:
            return False
        return True

    def tail(self) -> str:
        """The end of the log, for an error message."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n--- the end of ComfyUI's log ---\n" + text[-4000:]

    def _checked(self, reply: requests.Response, path: str) -> requests.Response:
        if not reply.ok:
            raise ComfyUIError(f"{path}: {reply.status_code} {reply.text[:2000]}{self.tail()}")
        return reply


@dataclass(frozen=True)
class Run:
    """One prompt that is over.

    Attributes:
        prompt_id: the server's name for it.
        status: "success" or "error"; an interrupted run is an error too.
        messages: (name, data) as sent to the browser, in order.
        outputs: what each output node showed, by node id.
    """

    prompt_id: str
    status: str
    messages: tuple[tuple[str, dict[str, Any]], ...]
    outputs: Mapping[str, Mapping[str, Any]]

    def message(self, name: str) -> dict[str, Any] | None:
        """The data of the last message of that name."""
        return next((data for said, data in reversed(self.messages) if said == name), None)


def base_directory(folder: Path, pack: Path | None = PACK) -> Path:
    """Lay out a fresh ComfyUI installation in `folder`, with `pack` as its only custom node."""
    for name in ("custom_nodes", "input", "output", "temp", "models", "user/default"):
        (folder / name).mkdir(parents=True)
    shutil.copy(comfyui_source() / "input" / "example.png", folder / "input")
    if pack is not None:
        (folder / "custom_nodes" / PACK_FOLDER).symlink_to(pack, target_is_directory=True)
    return folder


def command(folder: Path, *options: str) -> list[str]:
    """ComfyUI's command line for a base directory, less the interpreter."""
    fixed = ["--cpu", "--disable-auto-launch", "--disable-api-nodes"]
    places = ["--base-directory", str(folder), "--database-url", "sqlite:///:memory:"]
    return [str(comfyui_source() / "main.py"), *fixed, *places, *options]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without keys that cost money and with model downloads off, and
    then `variables`.
    """
    paid = ("FAL_", "ONEREWARD_FAL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(paid)}
    # Torch threads that share a core with other work wait for each other, up to 20 times slower.
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | dict(variables or {})


@contextmanager
def running(
    folder: Path, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[ComfyUI]:
    """A server on a free port, in a folder laid out by `base_directory`, with `variables` in its
    environment. ComfyUIError with the end of its log if it does not start; it and its children are
    ended afterwards. The log of an earlier server in the folder is continued.
    """
    (folder / "user/default/comfy.settings.json").write_text(json.dumps(SETTINGS))
    port = _free_port()
    log = folder / "comfyui.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, *command(folder, "--port", str(port), *options)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment(variables),
            start_new_session=True,
        )
        try:
            server = ComfyUI(f"http://127.0.0.1:{port}", folder, log, process)
            server.wait(server.answers, START_LIMIT)
            yield server
        finally:
            _end(process)


def _free_port() -> int:
    """A port below those that a system gives to whoever asks for any: one of these could be taken
    by something else before ComfyUI is up.
    """
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # it is in use
                continue
            return port
    raise ComfyUIError("A hundred ports were in use.")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    except ProcessLookupError:  # it died before, and took its group along
        process.wait(timeout=10)
