"""A fal-compatible server on 127.0.0.1, as docs and the official client say that fal behaves.

A test scripts it, talks to fal.url with fal.key, and looks at what came:

    with FalServer() as fal:
        fal.fail("status", fal_faults.ingress(503))
        fal.next_job(fal_faults.flagged())
        ...
        assert len(fal.calls("submit")) == 1 and fal.paid == 1
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import TracebackType

from fakes.fal_faults import Fault, Outcome, Reply, json_reply
from fakes.fal_jobs import NOT_FOUND, Job, JobQueue
from fakes.fal_listener import Listener, Recorded
from fakes.fal_painter import Files, paint

ENDPOINT = "fal-ai/onereward"
LOGS = {"1": True, "true": True, "0": False, "false": False}
UNAUTHORIZED = json_reply(401, {"detail": "No user found for Key ID and Secret"})
_REQUEST = r"/(?P<app>[^/]+/[^/]+)(?:/.+)?/requests/(?P<id>[^/]+)"
# method, path, phase, the method of FalServer. The first match counts.
ROUTES = (
    ("POST", r"/storage/upload/initiate", "initiate", "_initiate"),
    ("POST", r"/storage/auth/token", "token", "_token"),
    ("POST", r"/files/upload", "upload", "_upload_with_token"),
    ("PUT", r"/upload/(?P<name>[^/]+)", "upload", "_upload_presigned"),
    ("GET", r"/files/(?P<name>[^/]+)", "download", "_download"),
    ("GET", r"/v1/models/pricing", "pricing", "_pricing"),
    ("GET", _REQUEST + r"/status", "status", "_status"),
    ("PUT", _REQUEST + r"/cancel", "cancel", "_cancel"),
    ("GET", _REQUEST + r"(?:/response)?", "result", "_result"),
    ("POST", r"/(?P<app>.+)", "submit", "_submit"),
)
PHASES = tuple(dict.fromkeys(phase for _, _, phase, _ in ROUTES))
BYTES = "application/octet-stream"
KEYLESS = ("_upload_with_token", "_upload_presigned", "_download")


class FalServer:
    """Queue, storage, files and prices of one endpoint on one port."""

    def __init__(
        self,
        *,
        key: str = "id:secret",
        queue_seconds: float = 0.0,
        run_seconds: float = 0.05,
        slots: int = 64,
        unit_price: float = 0.035,
        unit: str = "megapixels",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.key = key
        self.unit_price = unit_price
        self.unit = unit
        self.requests: list[Recorded] = []
        self.stopping = threading.Event()
        self.files = Files()
        self.url = ""
        self._tls = tls
        self._queue = JobQueue(self._work)
        self._queue.slots = slots
        self._queue.queue_seconds, self._queue.run_seconds = queue_seconds, run_seconds
        self._faults: dict[str, deque[Fault]] = {phase: deque() for phase in PHASES}
        self._outcomes: deque[Outcome] = deque()
        self._scripts = threading.Lock()
        self._tokens: set[str] = set()
        self._listener: Listener | None = None
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def __enter__(self) -> FalServer:
        self._listener = Listener(self, 0, self._tls)
        scheme = "http" if self._tls is None else "https"
        self.url = self.files.base = f"{scheme}://127.0.0.1:{self._listener.server_port}"
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self._stop_listening()
        self._queue.stop()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise RuntimeError("The fake server itself failed") from self.errors[0]

    # What tests script

    def fail(self, phase: str, fault: Fault, times: int = 1) -> None:
        """The next `times` requests of that phase get the fault."""
        with self._scripts:
            self._faults[phase].extend([fault] * times)

    def next_job(self, outcome: Outcome, times: int = 1) -> None:
        """The next `times` accepted jobs end that way."""
        if not isinstance(outcome, Outcome):
            raise TypeError(f"{outcome} is for single requests: fail(phase, fault)")
        with self._scripts:
            self._outcomes.extend([outcome] * times)

    def down(self) -> None:
        """Cut all connections and refuse new ones; the port stays ours, the jobs go on."""
        port = self._stop_listening()
        self._listener = Listener(self, port, self._tls)

    def up(self) -> None:
        """Listen again after down()."""
        assert self._listener is not None
        self._listener.start()

    def hold(self, state: str = "queued") -> None:
        """Jobs stay queued, or with "running" they start but do not end, until release()."""
        assert state in ("queued", "running")
        self._set("held", state)

    def release(self) -> None:
        self._set("held", "")

    def forget(self, request_id: str) -> None:
        """The result is expired: the queue does not know the request any more."""
        self.jobs[request_id].forgotten = True

    # What tests look at

    @property
    def jobs(self) -> dict[str, Job]:
        """Every accepted job by its request id, in order of arrival."""
        return self._queue.jobs

    @property
    def paid(self) -> int:
        """How many jobs ran to a successful end."""
        return sum(job.billed for job in self.jobs.values())

    def calls(self, phase: str) -> list[Recorded]:
        """The requests of that phase so far, faulty ones too."""
        assert phase in PHASES
        return [request for request in self.requests if request.phase == phase]

    @property
    def leaks(self) -> list[Recorded]:
        """Requests to places that need no key, storage and files, which carried one."""
        open_to_all = [r for r in self.calls("upload") if r.method == "PUT"]
        open_to_all += self.calls("download")
        return [request for request in open_to_all if "authorization" in request.headers]

    @property
    def queue_seconds(self) -> float:
        """How long a job waits even if a slot is free."""
        return self._queue.queue_seconds

    @queue_seconds.setter
    def queue_seconds(self, seconds: float) -> None:
        self._set("queue_seconds", seconds)

    @property
    def run_seconds(self) -> float:
        return self._queue.run_seconds

    @run_seconds.setter
    def run_seconds(self, seconds: float) -> None:
        self._set("run_seconds", seconds)

    @property
    def cancel_stops_running(self) -> bool:
        """Whether a running job stops when it is told to; else it goes on and is billed."""
        return self._queue.cancel_stops_running

    @cancel_stops_running.setter
    def cancel_stops_running(self, stops: bool) -> None:
        self._set("cancel_stops_running", stops)

    def _set(self, name: str, value: object) -> None:
        with self._queue.changed:
            setattr(self._queue, name, value)
            self._queue.changed.notify_all()

    def _stop_listening(self) -> int:
        assert self._listener is not None
        self._threads += self._listener.stop()
        return self._listener.server_port

    def _work(self, job: Job) -> Reply:
        reply, megapixels = paint(job.arguments, job.outcome, self.files)
        if reply.status != 200:
            return reply
        units = megapixels if self.unit == "megapixels" else len(json.loads(reply.body)["images"])
        billed = {"x-fal-billable-units": str(round(units, 6))}
        return replace(reply, headers={**reply.headers, **billed})

    # The listener's side

    def phase(self, method: str, path: str) -> str:
        return next((p for m, r, p, _ in ROUTES if m == method and re.fullmatch(r, path)), "other")

    def take_fault(self, phase: str) -> Fault | None:
        with self._scripts:
            faults = self._faults.get(phase)
            return faults.popleft() if faults else None

    def record(self, request: Recorded) -> None:
        self.requests.append(request)

    def respond(self, request: Recorded) -> Reply:
        for method, pattern, _, name in ROUTES:
            match = re.fullmatch(pattern, request.path)
            if method == request.method and match:
                authorized = request.headers.get("authorization") == f"Key {self.key}"
                if name not in KEYLESS and not authorized:
                    return UNAUTHORIZED
                reply: Reply = getattr(self, name)(request, **match.groupdict())
                return reply
        return self._no_path(request)

    def _no_path(self, request: Recorded) -> Reply:
        body = {"detail": f"Path {request.path} not found"}
        return json_reply(404, body, {"x-fal-billable-units": "0"})

    def _submit(self, request: Recorded, app: str) -> Reply:
        if app != ENDPOINT:
            return self._no_path(request)
        try:
            arguments = json.loads(request.body)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            body = {"detail": "The body is not a JSON object", "error_type": "bad_request"}
            return json_reply(400, body, {"X-Fal-Error-Type": "bad_request"})
        with self._scripts:
            outcome = self._outcomes.popleft() if self._outcomes else Outcome()
        job, ahead = self._queue.accept(arguments, request.headers, outcome)
        ids = {"request_id": job.request_id, "gateway_request_id": job.request_id}
        place = {"status": "IN_QUEUE", "queue_position": ahead}
        return _of_job(job, json_reply(200, {**place, **ids, **self._urls(job)}))

    def _urls(self, job: Job) -> dict[str, str]:
        base = job.outcome.status_base or self.url
        url = f"{base}/{ENDPOINT}/requests/{job.request_id}"
        return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}

    def _find(self, app: str, request_id: str) -> Job | None:
        return self._queue.find(request_id) if app == ENDPOINT else None

    def _status(self, request: Recorded, app: str, id: str) -> Reply:
        job = self._find(app, id)
        if job is None:
            return NOT_FOUND
        with_logs = LOGS.get(request.query.get("logs", "0"))
        if with_logs is None:
            return json_reply(422, {"detail": "logs is one of " + ", ".join(LOGS)})
        return _of_job(job, self._queue.status(job, self._urls(job), with_logs))

    def _result(self, request: Recorded, app: str, id: str) -> Reply:
        job = self._find(app, id)
        return NOT_FOUND if job is None else _of_job(job, self._queue.result(job))

    def _cancel(self, request: Recorded, app: str, id: str) -> Reply:
        job = self._find(app, id)
        return NOT_FOUND if job is None else _of_job(job, self._queue.cancel(job))

    def _initiate(self, request: Recorded) -> Reply:
        if request.query.get("storage_type") != "fal-cdn-v3":
            return json_reply(400, {"detail": "Unknown storage type"})
        name = self.files.name(json.loads(request.body).get("content_type", BYTES))
        urls = {"upload_url": f"{self.url}/upload/{name}", "file_url": self.files.url(name)}
        return json_reply(200, urls)

    def _upload_presigned(self, request: Recorded, name: str) -> Reply:
        self.files.put(name, request.body, request.headers.get("content-type", BYTES))
        return Reply(200)

    def _token(self, request: Recorded) -> Reply:
        token, end = uuid.uuid4().hex, datetime.now(timezone.utc) + timedelta(hours=1)
        self._tokens.add(f"Bearer {token}")
        body = {"token": token, "token_type": "Bearer", "base_url": self.url}
        return json_reply(200, {**body, "expires_at": end.isoformat()})

    def _upload_with_token(self, request: Recorded) -> Reply:
        if request.headers.get("authorization") not in self._tokens:
            return UNAUTHORIZED
        kind = request.headers.get("content-type", BYTES)
        url = self.files.put(self.files.name(kind), request.body, kind)
        return json_reply(200, {"access_url": url})

    def _download(self, request: Recorded, name: str) -> Reply:
        held = self.files.get(name)
        if held is None:
            return json_reply(404, {"detail": "Not Found"})
        return Reply(200, held[0], {"Content-Type": held[1]})

    def _pricing(self, request: Recorded) -> Reply:
        asked = request.query.get("endpoint_id", "").split(",")
        price = {"endpoint_id": ENDPOINT, "unit_price": self.unit_price, "unit": self.unit}
        prices = [{**price, "currency": "USD"}] if ENDPOINT in asked else []
        return json_reply(200, {"prices": prices, "next_cursor": None, "has_more": False})


def _of_job(job: Job, reply: Reply) -> Reply:
    return replace(reply, headers={**reply.headers, "x-fal-request-id": job.request_id})
