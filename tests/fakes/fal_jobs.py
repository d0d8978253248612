"""The fake queue: jobs wait for a slot, run for a while and end, each in a thread of its own."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from fakes.fal_faults import Outcome, Reply, json_reply

QUEUED, RUNNING, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
CANCELLED = json_reply(
    499,
    {"detail": "Request was cancelled", "error_type": "client_cancelled"},
    {"X-Fal-Error-Type": "client_cancelled"},
)
NOT_FOUND = json_reply(404, {"status": "NOT_FOUND"})


@dataclass(eq=False)
class Job:
    """cancelled: a cancel was accepted. finished: the job is COMPLETED, however it ended.

    billed: the model made its result, whether or not anybody wanted it any more.
    """

    arguments: dict[str, Any]
    headers: dict[str, str]
    outcome: Outcome
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = QUEUED
    cancelled: bool = False
    finished: bool = False
    billed: bool = False
    forgotten: bool = False
    reply: Reply = NOT_FOUND
    shown: list[str] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class JobQueue:
    """Runs jobs in order of arrival; `work(job)` gives the result's answer. 200 is billed.

    Attributes may be set at any time, within `with queue.changed:`, and take effect at once.
    """

    def __init__(self, work: Callable[[Job], Reply]) -> None:
        self.queue_seconds = 0.0
        self.run_seconds = 0.05
        self.slots = 64
        self.held = ""
        self.cancel_stops_running = False
        self.changed = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self._work = work
        self._waiting: list[Job] = []
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def accept(
        self, arguments: dict[str, Any], headers: dict[str, str], outcome: Outcome
    ) -> tuple[Job, int]:
        """The new job, and how many stand before it."""
        job = Job(arguments, headers, outcome)
        thread = threading.Thread(target=self._life, args=(job,), daemon=True)
        with self.changed:
            ahead = len(self._waiting)
            self.jobs[job.request_id] = job
            self._waiting.append(job)
            self._threads.append(thread)
        thread.start()
        return job, ahead

    def stop(self) -> None:
        """Let go of every job where it is."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def find(self, request_id: str) -> Job | None:
        job = self.jobs.get(request_id)
        return None if job is None or job.forgotten else job

    def status(self, job: Job, urls: Mapping[str, str], with_logs: bool) -> Reply:
        """202 until the job is COMPLETED."""
        with self.changed:
            job.shown.append(job.state)
            self.changed.notify_all()
            body: dict[str, Any] = {"status": job.state, "request_id": job.request_id, **urls}
            body |= {"logs": _log(job) if with_logs else None, "metrics": {}}
            if job.state == QUEUED:
                body["queue_position"] = self._waiting.index(job)
            elif job.state == COMPLETED:
                body["metrics"] = {"inference_time": job.seconds}
                if job.reply.status != 200:
                    body["error"] = f"Invalid status code: {job.reply.status}"
                    body["error_type"] = job.reply.headers.get("X-Fal-Error-Type")
            return json_reply(200 if job.state == COMPLETED else 202, body)

    def result(self, job: Job) -> Reply:
        if job.state != COMPLETED:
            return json_reply(400, {"detail": "Request is still in progress"})
        return job.reply

    def cancel(self, job: Job) -> Reply:
        with self.changed:
            if job.state == COMPLETED:
                return json_reply(400, {"status": "ALREADY_COMPLETED"})
            job.cancelled = True
            was_queued = job.state == QUEUED
            if was_queued or self.cancel_stops_running:
                self._end(job, CANCELLED)
            if was_queued:
                return json_reply(200, {"status": "OK"})
            return json_reply(202, {"status": "CANCELLATION_REQUESTED"})

    def _life(self, job: Job) -> None:
        with self.changed:
            self._wait_for_slot(job)
            if job.outcome.requeued:
                self._wait(lambda: self._when_shown(job, RUNNING))
                self._back_to_queue(job)
                self._wait(lambda: self._when_shown(job, QUEUED))
                self._wait_for_slot(job)
            if self._over(job):
                return
        reply = self._work(job)
        with self.changed:
            self._wait(lambda: self._until_end(job))
            if not self._over(job):
                self._end(job, reply)

    def _wait(self, seconds_left: Callable[[], float | None]) -> None:
        """Until that many seconds are none; None is until something changes."""
        while (left := seconds_left()) is None or left > 0:
            self.changed.wait(left)

    def _over(self, job: Job) -> bool:
        return self._stopped or job.state == COMPLETED

    def _wait_for_slot(self, job: Job) -> None:
        self._wait(lambda: self._until_start(job))
        if not self._over(job):
            self._waiting.remove(job)
            job.state, job.since = RUNNING, time.monotonic()
            self.changed.notify_all()

    def _until_start(self, job: Job) -> float | None:
        if self._over(job):
            return 0
        running = sum(other.state == RUNNING for other in self.jobs.values())
        if self.held == "queued" or self._waiting[0] is not job or running >= self.slots:
            return None
        return job.since + self.queue_seconds - time.monotonic()

    def _until_end(self, job: Job) -> float | None:
        if self._over(job):
            return 0
        return None if self.held == "running" else job.since + self.run_seconds - time.monotonic()

    def _when_shown(self, job: Job, state: str) -> float | None:
        return 0 if self._over(job) or state in job.shown else None

    def _back_to_queue(self, job: Job) -> None:
        if not self._over(job):
            self._waiting.insert(0, job)
            job.state, job.since = QUEUED, time.monotonic()
            job.shown.clear()
            self.changed.notify_all()

    def _end(self, job: Job, reply: Reply) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        elif job.state == RUNNING:
            job.seconds = time.monotonic() - job.since
        job.reply, job.billed = reply, reply.status == 200
        job.state, job.finished = COMPLETED, True
        self.changed.notify_all()


def _log(job: Job) -> list[dict[str, str]]:
    """One line more with every status answer while the job runs, at last all of them."""
    seen = job.shown.count(RUNNING) if job.state != COMPLETED else len(job.outcome.logs)
    stamp = datetime.now(timezone.utc).isoformat()
    entry = {"timestamp": stamp, "level": "INFO", "source": "USER"}
    return [{**entry, "message": line} for line in job.outcome.logs[:seen]]
