"""What our fal client adds to a job in time, bytes and questions, beside the official client.

    python tests/benchmarks/fal.py [--runs 5] [--skip-large]

The service is the tests' fake one, over TLS on this machine, in a process of its own; so is the
official client (fal-client 1.0.3). What a timed job answers is painted beforehand: the processors
are the clients' alone while the service "runs". No network is in the times.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TESTS = Path(__file__).resolve().parent.parent
SCENE = TESTS.parent / "local_backend" / "cli" / "demo_scenes" / "fill.jpg"
ENDPOINT, KEY = "fal-ai/onereward", "id:secret"
SIDE, LARGE = 1024, (5504, 8192)
JOB_SECONDS, LONG_SECONDS, PARALLEL = 2.0, 8.0, 8
ADDED, SLOWDOWN = 0.3, 1.5  # the targets
# Until the request is in; until the job runs; from its end to the question for the result; the rest
STAGES = ("encode", "send", "notice", "fetch")
Row = dict[str, Any]


def scene(height: int, width: int) -> NDArray[np.uint8]:
    """A photo of that size, with a camera's noise, so that it compresses as one does."""
    with Image.open(SCENE) as picture:
        size = (width, height)
        pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
    noisy: NDArray[np.uint8] = np.clip(pixels + 2 * noise, 0, 255).round().astype(np.uint8)
    return noisy


def square(height: int, width: int) -> NDArray[np.uint8]:
    """A mask with a white square in the middle, whose crop of a small picture is all of it."""
    side = 640 if height == SIDE else 300
    mask = np.zeros((height, width), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = 255
    return mask


def timed(call: Callable[[], object]) -> list[float]:
    """When the call began and ended, on the clock of all processes, and its processor seconds."""
    start, busy = time.monotonic(), time.process_time()
    call()
    return [start, time.monotonic(), time.process_time() - busy]


# The two other processes


class Worker:
    """This script in a process of its own: answers each line of JSON with another."""

    def __init__(self, role: str) -> None:
        command, pipe = [sys.executable, __file__, "--role", role], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def service() -> None:
    """The fake service. Every answer tells what came in since the one before it."""
    sys.path.insert(0, str(TESTS))
    faults, fake = (import_module(f"fakes.fal_{name}") for name in ("faults", "server"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(json.loads(sys.stdin.readline())["certificate"])
    buffer = BytesIO()
    Image.fromarray(scene(SIDE, SIDE)).save(buffer, "PNG")
    with fake.FalServer(tls=context, key=KEY) as fal:
        url = fal.files.put("answer.png", buffer.getvalue(), "image/png")
        entry = {"url": url, "width": SIDE, "height": SIDE, "content_type": "image/png"}

        def painted(arguments: dict[str, Any]) -> Any:
            body = {"images": [entry], "seed": arguments["seed"], "has_nsfw_concepts": [False]}
            return faults.json_reply(200, body)

        say(fal.url)
        for question in map(json.loads, sys.stdin):
            fal.run_seconds = question.get("run_seconds", fal.run_seconds)
            fal.next_job(faults.Outcome(error=painted), question.get("painted", 0))
            say(seen(fal))
            fal.requests.clear()
            fal.jobs.clear()


def seen(fal: Any) -> Row:
    """Counts, bytes and the moments of the newest job."""
    at = {request.phase: request.at for request in fal.requests}
    at["start"] = max((job.since for job in fal.jobs.values()), default=0.0)
    return {
        "calls": Counter(request.phase for request in fal.requests),
        "bytes": sum(len(request.body) for request in fal.requests),
        "at": at,
        "seconds": [job.seconds for job in fal.jobs.values()],
    }


def official() -> None:
    """fal-client as its users call it; its four addresses are the only change."""
    url = json.loads(sys.stdin.readline())["url"]
    client, httpx = import_module("fal_client"), import_module("httpx")
    inner = client.client
    inner.RUN_URL_FORMAT = inner.QUEUE_URL_FORMAT = url + "/"
    inner.REST_URL = inner.CDN_URL = url
    small = pictures_of(SIDE, SIDE)
    say("ready")
    for question in map(json.loads, sys.stdin):
        if "large" in question:
            large = pictures_of(*question["large"])
            say(timed(partial(upload_and_run, client, large)))
        else:
            say(timed(partial(send_and_fetch, client, httpx, small, question["format"])))


def pictures_of(height: int, width: int) -> list[Image.Image]:
    return [Image.fromarray(scene(height, width)), Image.fromarray(square(height, width))]


def send_and_fetch(client: Any, httpx: Any, pictures: list[Image.Image], form: str) -> None:
    """From two pictures to the result's pixels, everything within the requests."""
    result = run(client, [client.encode_image(picture, form) for picture in pictures])
    with httpx.Client() as session:
        data = session.get(result["images"][0]["url"]).content
    with Image.open(BytesIO(data)) as answer:
        np.asarray(answer.convert("RGB"), np.float32) / 255


def upload_and_run(client: Any, pictures: list[Image.Image]) -> None:
    """The whole picture and its mask as PNG files, and the job that names them."""
    run(client, [client.upload_image(picture, "png") for picture in pictures])


def run(client: Any, urls: list[str]) -> Any:
    arguments = {"image_url": urls[0], "mask_url": urls[1], "prompt": "a dog"}
    return client.subscribe(ENDPOINT, {**arguments, "seed": 1, "output_format": "png"})


# Ours


class Ours:
    """Our client as the nodes use it. No two jobs have the same picture and seed, so that nothing
    is served from the journal or from any other memory.
    """

    def __init__(self, url: str, folder: Path) -> None:
        sys.path.insert(0, str(TESTS))
        import_module("conftest")
        nodes = "onereward_pack.nodes"
        self._contracts = import_module(f"{nodes}.contracts")
        self._jobs = import_module(f"{nodes}.edit.job_runner")
        self._edit = import_module(f"{nodes}.edit.run").edit
        self._backend = import_module(f"{nodes}.fal.backend").FalBackend
        self._server = import_module(f"{nodes}.fal.endpoints").Server("fal", url, url, url + "/v1")
        self._torch = import_module("torch")
        self._progress = import_module("fakes.backend").RecordingProgress
        self._folder, self._seed = folder, 0
        self._image, self._mask = self.tensors(SIDE, SIDE)

    def tensors(self, height: int, width: int) -> list[Any]:
        pictures = scene(height, width), square(height, width)
        return [self._torch.from_numpy(p).float().div_(255)[None] for p in pictures]

    def _picture(self) -> Any:
        """The small picture, with another first pixel every time."""
        self._seed += 100
        image = self._image.clone()
        image[0, 0, 0] = self._torch.tensor(divmod(self._seed // 100, 256) + (0,)) / 255
        return image

    def _recipe(self, **more: Any) -> Any:
        task = self._contracts.EditTask.FILL
        return self._contracts.EditRecipe(task=task, prompt="a dog", seed=self._seed, **more)

    def _request(self) -> Any:
        image = self._picture()
        return self._recipe().on(image, self._mask, seed=self._seed, num_images=1)

    def _fresh(self) -> Any:
        spec = self._contracts.FalSpec(parallel_jobs=PARALLEL, run_cap=0, session_cap=0)
        return self._backend(spec, self._server, lambda: KEY, self._folder)

    def job(self) -> list[float]:
        """One call of the backend."""
        return timed(partial(self._fresh().run, self._request(), self._progress()))

    def jobs(self, count: int) -> list[float]:
        """Several pictures at once, without the canvas around them."""
        progress, requests = self._progress(), [self._request() for _ in range(count)]
        jobs = [self._jobs.BackendCall("", lambda r=r: r, progress) for r in requests]

        def work() -> None:
            for result in self._jobs.run_calls(self._fresh(), jobs, progress):
                if isinstance(result, Exception):
                    raise result

        return timed(work)

    def edit(self, count: int) -> list[float]:
        """A whole edit in several variations: plan and price before, stitching after."""
        return self.edit_of(self._picture(), self._mask, num_images=count)

    def edit_of(self, image: Any, mask: Any, **recipe: Any) -> list[float]:
        given = (self._recipe(**recipe), None, self._fresh(), self._progress())
        return timed(partial(self._edit, image, mask, *given))


# The measurements


def measured(fal: Worker, call: Callable[[], list[float]], seconds: float, painted: int) -> Row:
    """What the service saw of one call, with the call's own `wall`, `added`, `busy` and stages."""
    fal.ask(run_seconds=seconds, painted=painted)
    start, end, busy = call()
    report: Row = fal.ask()
    at, took = report["at"], max(report["seconds"])
    moments = (start, at["submit"], at["start"], at["result"], end)
    stages = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    stages[2] -= took
    added = end - start - took
    return {**report, "wall": end - start, "added": added, "busy": busy, "stages": stages}


def median(runs: list[Row], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


def one_job(fal: Worker, clients: dict[str, Callable[[], list[float]]], runs: int) -> None:
    for call in clients.values():  # the first calls import and connect
        measured(fal, call, 0.1, 1)
    found: dict[str, list[Row]] = {name: [] for name in clients}
    for number in range(runs):
        # Jobs end at other moments between two questions.
        seconds = JOB_SECONDS + 0.2 * number / runs
        for name, call in clients.items():
            found[name].append(measured(fal, call, seconds, 1))
    print(f"One job of 1 MP that runs {JOB_SECONDS:g} s: seconds on top of that, median of {runs}")
    print(f"{'':22}{'added':>8}{'ratio':>7}{'CPU':>8}" + "".join(f"{s:>8}" for s in STAGES))
    ours = median(found["ours"], "added")
    for name, rows in found.items():
        added, stages = median(rows, "added"), zip(*(row["stages"] for row in rows), strict=True)
        print(f"{name:22}{added:8.3f}{added / ours:7.1f}{median(rows, 'busy'):8.3f}", end="")
        print("".join(f"{statistics.median(stage):8.3f}" for stage in stages))
    print(f"target < {ADDED} s: {'met' if ours < ADDED else 'missed'}\n")
    slow = {name: measured(fal, call, LONG_SECONDS, 1) for name, call in clients.items()}
    print("Status calls per job" + "".join(f"{s:8g} s" for s in (JOB_SECONDS, LONG_SECONDS)))
    for name, rows in found.items():
        calls = statistics.median(row["calls"]["status"] for row in rows)
        print(f"{name:20}{calls:10.0f}{slow[name]['calls']['status']:10}")


def side_by_side(fal: Worker, ours: Ours, runs: int) -> None:
    print(f"\n{PARALLEL} jobs at once, each of 1 MP and {JOB_SECONDS:g} s: median of {runs}")
    print(f"{'':22}{'one':>8}{PARALLEL:8}{'ratio':>7}{'CPU':>8}{'service':>9}")
    for name, call in (("pictures, jobs alone", ours.jobs), ("variations, edit", ours.edit)):
        one, many = (
            [measured(fal, partial(call, count), JOB_SECONDS, count) for _ in range(runs)]
            for count in (1, PARALLEL)
        )
        ratio = median(many, "wall") / median(one, "wall")
        print(f"{name:22}{median(one, 'wall'):8.3f}{median(many, 'wall'):8.3f}{ratio:7.2f}", end="")
        print(f"{median(many, 'busy'):8.3f}{max(max(row['seconds']) for row in many):9.3f}", end="")
        print(f"  target <= {SLOWDOWN}: {'met' if ratio <= SLOWDOWN else 'missed'}")


def large_picture(fal: Worker, ours: Ours, theirs: Worker) -> None:
    pictures = ours.tensors(*LARGE)
    rows = {
        "ours": measured(fal, partial(ours.edit_of, *pictures), 0.0, 0),
        "official, whole": measured(fal, lambda: theirs.ask(large=LARGE), 0.0, 1),
    }
    print(f"\nA square of 300 px in a picture of {LARGE[1]}x{LARGE[0]}: sent, and seconds on top")
    for name, row in rows.items():
        ratio = row["bytes"] / rows["ours"]["bytes"]
        print(f"{name:22}{row['bytes'] / 1e6:8.2f} MB{ratio:7.1f}{row['added']:9.2f} s")


def certificate_in(folder: Path) -> Path:
    """One for 127.0.0.1; it and the usual ones are what all our processes trust from here on."""
    authority = import_module("trustme").CA()
    usual = Path(import_module("certifi").where()).read_bytes()
    (folder / "ca.pem").write_bytes(usual + authority.cert_pem.bytes())
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        os.environ[name] = str(folder / "ca.pem")
    os.environ |= {"FAL_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    issued = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    issued.write_to_path(str(folder / "server.pem"))
    return folder / "server.pem"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip-large", action="store_true", help="leave out the 45 MP picture")
    parser.add_argument("--role", choices=("service", "official"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        {"service": service, "official": official}[options.role]()
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = certificate_in(folder)
        fal = stack.enter_context(closing(Worker("service")))
        theirs = stack.enter_context(closing(Worker("official")))
        url = fal.ask(certificate=str(certificate))
        theirs.ask(url=url)
        ours = Ours(url, folder / "journal")
        print(f"{os.cpu_count()} processors; load before this run: {os.getloadavg()[0]:.1f}\n")
        official_calls = {f"official, {f}": partial(theirs.ask, format=f) for f in ("png", "jpeg")}
        one_job(fal, {"ours": ours.job, **official_calls}, options.runs)
        side_by_side(fal, ours, min(options.runs, 3))
        if not options.skip_large:
            large_picture(fal, ours, theirs)


if __name__ == "__main__":
    main()
