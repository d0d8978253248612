"""What we put on the wire, held against the official client with the same jobs on the same server.

Both talk TLS: the official client knows no other way, and is not changed but for its upload hosts.
"""

from __future__ import annotations

import base64
import io
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
import trustme
from fakes import fal_edits, fal_faults
from fakes.fal_edits import server_of
from fakes.fal_listener import Recorded
from fakes.fal_server import ENDPOINT, LOGS, PHASES, FalServer
from onereward_pack.nodes.contracts import EditRecipe, EditTask, FalSpec
from onereward_pack.nodes.fal import transfers
from onereward_pack.nodes.fal.backend import FalBackend
from onereward_pack.nodes.fal.cancellation import Cancellation
from onereward_pack.nodes.fal.client import FalClient
from onereward_pack.nodes.fal.progress import NoProgress
from onereward_pack.nodes.fal.schemas import Submission, submission_at
from onereward_pack.nodes.image_io import data_uri, encode_png
from PIL import Image

IMAGE = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(7))
MASK = torch.zeros(1, 48, 64).index_fill(1, torch.arange(8, 24), 1)
PICTURES = ("image_url", "mask_url")
# The endpoint's input fields, and what each is if a body leaves it out.
DEFAULTS: dict[str, Any] = dict(
    image_url=None, mask_url=None, prompt=None, negative_prompt="nsfw", guidance_scale=1.0,
    true_cfg=4.0, num_inference_steps=28, acceleration="regular", num_images=1,
    output_format="jpeg", seed=None, sync_mode=False, enable_safety_checker=True,
)  # fmt: skip
PROMPT = 'a sign "caf\u00e9"\nsecond line \U0001f415'


@dataclass(frozen=True)
class Case:
    """One job in our words, and in fal's: `body` without its two pictures, and what the official
    submit() takes besides.
    """

    spec: FalSpec
    recipe: EditRecipe
    body: dict[str, Any]
    options: dict[str, Any]


USUAL = Case(
    FalSpec(),
    EditRecipe(task=EditTask.FILL, prompt="a dog", seed=5),
    {**DEFAULTS, "prompt": "a dog", "output_format": "png", "seed": 5},
    {"priority": "normal", "headers": {"x-app-fal-disable-fallback": "true"}},
)
UNUSUAL = Case(
    FalSpec(
        output_format="jpeg", private=True, enable_safety_checker=False, start_deadline=30,
        priority="low",
    ),
    EditRecipe(
        task=EditTask.TEXT, prompt=PROMPT, negative_prompt="", seed=2**53 + 1,
        num_inference_steps=50, guidance_scale=2.5, true_cfg=1.0, acceleration="high", num_images=3,
    ),
    dict(
        prompt=PROMPT, negative_prompt="", guidance_scale=2.5, true_cfg=1.0,
        num_inference_steps=50, acceleration="high", num_images=3, output_format="jpeg",
        seed=2**53 + 1, sync_mode=True, enable_safety_checker=False,
    ),
    dict(
        priority="low", start_timeout=30,
        headers={
            **USUAL.options["headers"], "X-Fal-Store-IO": "0",
            "X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 60}',
        },
    ),
)  # fmt: skip


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For a server on 127.0.0.1 that both clients trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):  # theirs, ours
        monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("no_proxy", raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def fal(context: ssl.SSLContext) -> Iterator[FalServer]:
    with FalServer(tls=context) as server:
        yield server


# Both clients


def run(fal: FalServer, folder: Path, case: Case = USUAL) -> None:
    """Our whole job, as an edit starts it."""
    recipe = case.recipe
    request = recipe.on(IMAGE, MASK, seed=recipe.seed, num_images=recipe.num_images)
    backend = FalBackend(case.spec, server_of(fal), lambda: fal.key, folder)
    assert len(fal_edits.run(backend, request).images) == recipe.num_images


def patience() -> Cancellation:
    return Cancellation(NoProgress(), 30)


PRELUDE = """
import base64, json, sys, fal_client
APP, URL, GIVEN = json.load(sys.stdin)
fal_client.client.REST_URL = fal_client.client.CDN_URL = URL
"""


def official(fal: FalServer, script: str, given: object = None) -> Any:
    """What the script, which runs beside the official client, leaves in `said`."""
    host = fal.url.partition("//")[2]
    env = {**os.environ, "FAL_KEY": fal.key, "FAL_RUN_HOST": host, "FAL_QUEUE_RUN_HOST": host}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script + "\nprint(json.dumps(said))"],
        input=json.dumps([ENDPOINT, fal.url, given]),
        env=env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wire(request: Recorded) -> dict[str, Any]:
    """All of a request that a server may act upon."""
    told = ("authorization", "content-type", "transfer-encoding")
    heads = {n: v for n, v in request.headers.items() if n in told or n.startswith("x-")}
    query = {n: LOGS[v] if n == "logs" else v for n, v in request.query.items()}
    body: object = request.body
    if request.headers.get("content-type") == "application/json":
        # As text again, which tells 1 from 1.0 and from true.
        body = json.dumps(json.loads(request.body), sort_keys=True, indent=1)
    at = (request.method, request.path, query)
    return {"at": at, "headers": heads, "body": body}


# Submit


@pytest.mark.parametrize("case", [USUAL, UNUSUAL], ids=["usual", "unusual"])
def test_a_submit_is_what_the_official_client_submits(
    fal: FalServer, tmp_path: Path, case: Case
) -> None:
    run(fal, tmp_path, case)
    sent = json.loads(fal.calls("submit")[0].body)
    arguments = {**case.body, **{picture: sent[picture] for picture in PICTURES}}
    script = "said = fal_client.submit(APP, GIVEN[0], **GIVEN[1]).request_id"
    assert official(fal, script, [arguments, case.options]) in fal.jobs
    ours, theirs = fal.calls("submit")
    assert theirs.headers["user-agent"].startswith("fal-client/1.0.3")
    assert wire(ours) == wire(theirs)


def test_every_field_arrives_as_asked_for_and_the_pictures_bit_for_bit(
    fal: FalServer, tmp_path: Path
) -> None:
    for case in (USUAL, UNUSUAL):
        run(fal, tmp_path, case)
        body = json.loads(fal.calls("submit")[-1].body)
        heads, texts = zip(*(body.pop(name).split(",") for name in PICTURES), strict=True)
        assert body == {n: case.body[n] for n in DEFAULTS if n not in PICTURES}
        assert heads == ("data:image/png;base64",) * 2
        image, mask = (Image.open(io.BytesIO(base64.b64decode(text))) for text in texts)
        assert (image.mode, image.size, mask.mode, mask.size) == ("RGB", (64, 48), "L", (64, 48))
        assert image.tobytes() == (IMAGE * 255).round().byte().numpy().tobytes()
        # White is what may change.
        assert mask.tobytes() == (MASK * 255).byte().numpy().tobytes()
    for name in set(DEFAULTS) - set(PICTURES):
        values = {repr(case.body[name]) for case in (USUAL, UNUSUAL)}
        assert values != {repr(DEFAULTS[name])}, f"{name} could as well be missing"


# Status, result, cancel


def test_status_result_and_cancel_ask_what_the_official_client_asks(fal: FalServer) -> None:
    with closing(FalClient(server_of(fal), fal.key)) as client:
        fal.hold()
        job, other = (submit(client) for _ in range(2))
        # The addresses that we make up from an id are those that the service names.
        assert submission_at(client.server, job.request_id) == job
        assert client.cancel(other) == 200
        fal.release()
        wait_for(client, job, "COMPLETED")
        client.result(job, patience(), failed=False)
        assert client.cancel(job) == 400
    ours = [wire(fal.calls(phase)[-1]) for phase in ("status", "result", "cancel")]
    script = """
fal_client.status(APP, GIVEN, with_logs=True)
fal_client.result(APP, GIVEN)
try:
    fal_client.cancel(APP, GIVEN)
except fal_client.FalClientHTTPError as error:
    said = error.status_code
"""
    before = len(fal.requests)
    assert official(fal, script, job.request_id) == 400
    # result() asks for the status once more before it fetches.
    status, _, result, cancel = fal.requests[before:]
    assert ours == [wire(status), wire(result), wire(cancel)]


def submit(client: FalClient, image_url: str | None = None) -> Submission:
    pictures = zip(PICTURES, (IMAGE[0], MASK[0]), strict=True)
    body = {**USUAL.body, **{n: data_uri(encode_png(p), "image/png") for n, p in pictures}}
    body |= {"image_url": image_url} if image_url else {}
    return client.submit(body, {"Content-Type": "application/json"}, patience())


def wait_for(client: FalClient, job: Submission, state: str) -> None:
    waiting = patience()
    while client.status(job, waiting).state != state:
        waiting.sleep(0.01)


def test_a_status_is_read_as_the_official_client_reads_it(context: ssl.SSLContext) -> None:
    with FalServer(tls=context, slots=1) as fal:
        with closing(FalClient(server_of(fal), fal.key)) as client:
            fal.next_job(fal_faults.logs(["loading", "painting"]))
            fal.next_job(fal_faults.content_policy())
            jobs = [submit(client) for _ in range(2)]
            for job in jobs:
                wait_for(client, job, "COMPLETED")
            fal.next_job(fal_faults.logs(["loading"]))
            fal.hold("running")
            jobs += [submit(client) for _ in range(3)]
            wait_for(client, jobs[2], "IN_PROGRESS")
            seen = [client.status(job, patience()) for job in jobs]
        script = """
words = {"Queued": "IN_QUEUE", "InProgress": "IN_PROGRESS", "Completed": "COMPLETED"}
said = []
for id in GIVEN:
    status = fal_client.status(APP, id, with_logs=True)
    lines = [line["message"] for line in getattr(status, "logs", None) or ()]
    state, failed = words[type(status).__name__], bool(getattr(status, "error", None))
    said.append([state, getattr(status, "position", None), lines, failed])
"""
        theirs = official(fal, script, [job.request_id for job in jobs])
    ours = [[s.state, s.queue_position, list(s.logs), s.failed] for s in seen]
    assert (
        ours
        == theirs
        == [
            ["COMPLETED", None, ["loading", "painting"], False],
            ["COMPLETED", None, [], True],
            ["IN_PROGRESS", None, ["loading"], False],
            ["IN_QUEUE", 0, [], False],
            ["IN_QUEUE", 1, [], False],
        ]
    )


# Uploads

UPLOADS = """
file = base64.b64decode(GIVEN), "image/png", "crop.png"
lifecycle = fal_client.StorageSettings(expires_in="1h")
stores = ("fal", "fal_v3")
said = [fal_client.upload(*file, repository=s, lifecycle=lifecycle) for s in stores]
"""


def test_an_upload_is_the_official_clients_without_the_key_it_gives_away(
    fal: FalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 0)
    with closing(FalClient(server_of(fal), fal.key)) as client:
        url = transfers.picture_url(client, IMAGE[0], True, patience())
        (ours, put), png = fal.requests, fal.requests[1].body
        # The official client initiates the older store only, which the fake has not.
        place = {"upload_url": f"{fal.url}/upload/a.png", "file_url": f"{fal.url}/files/a.png"}
        fal.fail("initiate", fal_faults.answer(200, place))
        urls = official(fal, UPLOADS, base64.b64encode(png).decode())
        theirs, their_put = fal.requests[2:4]
        assert without_store(ours) == without_store(theirs)
        assert fal.leaks == [their_put] and their_put.headers.pop("authorization")
        assert wire(put) == {**wire(their_put), "at": wire(put)["at"]}
        # A job takes each of the three, and they are the same picture.
        for address in (url, *urls):
            assert requests.get(address, timeout=5).content == png
            job = submit(client, address)
            wait_for(client, job, "COMPLETED")
            assert client.result(job, patience(), failed=False).images[0].width == 64


def without_store(initiate: Recorded) -> dict[str, Any]:
    """The wire but for the store; the preference header is for results, which none has here."""
    seen = wire(replace(initiate, query={}))
    seen["headers"].pop("x-fal-object-lifecycle-preference", None)
    return seen


# The user's machine


def test_a_netrc_replaces_no_key_and_sends_nothing_to_files(
    fal: FalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n", "utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    # What plain requests does with a header, which shows that the entry counts.
    requests.get(f"{fal.url}/files/x", headers={"Authorization": "Key id:secret"}, timeout=5)
    assert fal.requests.pop().headers["authorization"].startswith("Basic ")
    monkeypatch.setattr(transfers, "LARGEST_URI_IMAGE", 0)
    run(fal, tmp_path)
    with closing(FalClient(server_of(fal), fal.key)) as client:
        client.cancel(submission_at(client.server, next(iter(fal.jobs))))
    assert {call.phase for call in fal.requests} == set(PHASES) - {"token"}
    for call in fal.requests:
        wanted = None if call.phase in ("upload", "download") else f"Key {fal.key}"
        assert call.headers.get("authorization") == wanted, call.phase


def test_a_proxy_of_the_environment_is_used_for_all_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with FalServer() as fal:
        monkeypatch.setenv("HTTP_PROXY", fal.url)
        # A host that nothing but the proxy can reach.
        fal.url = fal.files.base = "http://queue.invalid"
        run(fal, tmp_path)
        assert {call.headers["host"] for call in fal.requests} == {"queue.invalid"}
        assert fal.paid == 1
