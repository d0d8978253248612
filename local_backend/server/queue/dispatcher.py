"""Takes jobs from the queue, has them painted, and writes down how they ended. One per head."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import time
import uuid
from asyncio import Task, to_thread
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.exc import OperationalError

from .. import errors
from ..messages import (
    Answer,
    Done,
    Failed,
    LogLine,
    PaintRequest,
    Started,
    WorkerLostError,
    WorkerPool,
)
from ..schemas import PICTURES, OneRewardInput, check_input, parse_json
from ..settings import Settings
from ..storage.files import Files
from ..storage.url_fetch import FetchError
from .job_states import CANCELLED, Job
from .leases import Leases
from .notifications import Notifier, set_or_late
from .store import JobStore

LOG = logging.getLogger("onereward")
TICK = 1.0  # seconds between two looks at the queue that nobody asked for
TIMED_OUT = errors.platform(504, "generation_timeout", "The job took too long and was stopped")
BROKEN = errors.platform(500, "internal_error", "The server failed at this job")

Fetch = Callable[[str], Awaitable[bytes]]
P = ParamSpec("P")
T = TypeVar("T")


class Dispatcher:
    """Works off the queue until it is stopped.

    Args:
        fetch: the file at an address of a job's input.
    """

    def __init__(
        self,
        store: JobStore,
        leases: Leases,
        files: Files,
        fetch: Fetch,
        pool: WorkerPool,
        notifier: Notifier,
        settings: Settings,
    ) -> None:
        self._store, self._leases, self._files, self._fetch = store, leases, files, fetch
        self._pool, self._notifier, self._settings = pool, notifier, settings
        self._jobs: dict[int, Task[Answer | None]] = {}
        self._stopped: dict[int, Answer] = {}  # the answer to a job that we stop
        self._ends: set[Task[None]] = set()
        self._wakeup = asyncio.Event()

    def wake(self) -> None:
        """There is a new job."""
        self._wakeup.set()

    def cancel(self, number: int) -> None:
        """Stop a job, if it is one of this head's."""
        self._stop(number, CANCELLED)

    async def run(self) -> None:
        """Until it is cancelled; then jobs under way go back to the queue."""
        looked = -TICK
        try:
            while True:
                self._wakeup.clear()
                await self._claim()
                if time.monotonic() - looked >= TICK:
                    await self._housekeeping()
                    looked = time.monotonic()
                await set_or_late(self._wakeup, TICK)
        finally:
            for task in self._jobs.values():
                task.cancel()
            if self._ends:
                await asyncio.wait(self._ends)

    async def _housekeeping(self) -> None:
        """Renew the lease, take over the jobs of heads that are gone, and stop cancelled jobs."""
        for number in await patiently(self._leases.reclaim):
            self._notifier.notify(number)
        mine = await patiently(self._leases.renew)
        for number in set(self._jobs) - mine:
            self._stop(number, CANCELLED)

    async def _claim(self) -> None:
        room = self._pool.capacity - len(self._jobs)
        for job in await patiently(self._leases.claim, room) if room > 0 else ():
            self._jobs[job.number] = asyncio.create_task(self._answer(job))
            end = asyncio.create_task(self._end(job))
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)

    def _stop(self, number: int, answer: Answer) -> None:
        task = self._jobs.get(number)
        if task is not None and not task.done():
            self._stopped.setdefault(number, answer)
            task.cancel()

    async def _end(self, job: Job) -> None:
        """Write down how a job ended, whatever happened to it."""
        task, number = self._jobs[job.number], job.number
        await asyncio.wait({task})
        answer: Answer | None
        if task.cancelled():
            answer = self._stopped.get(number)
            if answer is None:  # this head is being stopped
                await patiently(self._leases.give_back, number)
        elif isinstance(error := task.exception(), WorkerLostError):
            answer = None
            LOG.warning("Job %s: worker %s is gone", job.id, error.worker)
            why = f"The worker {error.worker} stopped in the middle; the job runs again on another."
            await patiently(self._leases.lost, number, why)
        elif error is not None:
            LOG.error("Job %s failed", job.id, exc_info=error)
            answer = BROKEN
        else:
            answer = task.result()
        if answer is not None:
            # False where the job has been given to another head meanwhile: what this one made of it
            # is left to expire
            await patiently(self._leases.finish, number, answer)
        self._stopped.pop(number, None)
        del self._jobs[number]
        self._notifier.notify(number)
        self.wake()

    async def _answer(self, job: Job) -> Answer | None:
        """The answer to the job's client; None if the job has another answer meanwhile."""
        body = await patiently(self._store.payload, job.number)
        if body is None:
            return None
        checked = check_input(parse_json(body) or {}, self._settings.max_images)
        if isinstance(checked, Answer):
            return checked
        found = await asyncio.gather(*(self._picture(checked, name) for name in PICTURES))
        for one in found:
            if isinstance(one, Answer):
                return one
        image, mask = (one for one in found if isinstance(one, bytes))
        seed = _seed(job, checked)
        request = PaintRequest(
            request_id=job.id,
            fields={**checked.model_dump(exclude=set(PICTURES)), "seed": seed},
            image=image,
            mask=mask,
            max_pixels=self._settings.max_megapixels * 1_000_000,
        )
        done = await self._paint(job, request)
        if isinstance(done, Done):
            return await to_thread(self._output, job, checked, done)
        return None if done is None else _with_inputs(done.answer, checked)

    async def _picture(self, checked: OneRewardInput, name: str) -> bytes | Answer:
        url: str = getattr(checked, name)
        try:
            return await self._fetch(url)
        except FetchError as error:
            entry = errors.entry(name, error.kind, error.message, url, error.ctx)
            return errors.refused([entry])

    async def _paint(self, job: Job, request: PaintRequest) -> Done | Failed | None:
        loop, number = asyncio.get_running_loop(), job.number
        timer: asyncio.TimerHandle | None = None
        try:
            async with aclosing(self._pool.paint(request)) as events:
                async for event in events:
                    if isinstance(event, Started):
                        if not await patiently(self._leases.start, number):
                            return None  # cancelled, or too late
                        limit = self._settings.job_timeout
                        timer = loop.call_later(limit, self._stop, number, TIMED_OUT)
                    elif isinstance(event, LogLine):
                        await patiently(self._leases.log, number, event.level, event.message)
                    else:
                        return event
                    self._notifier.notify(number)
        finally:
            if timer is not None:
                timer.cancel()
        raise WorkerLostError("of this job")  # its events ended without an end

    def _output(self, job: Job, checked: OneRewardInput, done: Done) -> Answer:
        """The model's output, its pictures as files or as data URIs."""

        def image(data: bytes) -> dict[str, Any]:
            about = {"width": done.width, "height": done.height, "content_type": done.content_type}
            if checked.sync_mode:
                url = f"data:{done.content_type};base64,{base64.b64encode(data).decode()}"
                return {"url": url, **about, "file_name": None, "file_size": len(data)}
            name = self._files.keep(job.key_id, data, done.content_type, job.file_seconds)
            stored = {"url": self._files.url(name), **about}
            return {**stored, "file_name": name, "file_size": len(data)}

        body = {
            "images": [image(data) for data in done.images],
            "seed": done.seed,
            "has_nsfw_concepts": [False] * len(done.images),
            "prompt": checked.prompt or "",
            "timings": dict(done.timings),
        }
        return Answer(200, body, {"x-fal-billable-units": "0"})


async def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Retries a call of the database until it answers, with a fixed backoff of TICK seconds, so
    that no job is lost with a connection. It never gives up: no other head holds the job.
    """
    while True:
        try:
            return await to_thread(call, *args, **kwargs)
        except OperationalError as error:
            LOG.error("The database does not answer: %s", str(error.orig).strip())
            await asyncio.sleep(TICK)


def new_owner() -> str:
    """A name for this head."""
    return secrets.token_hex(8)


def _with_inputs(answer: Answer, checked: OneRewardInput) -> Answer:
    """A worker's refusal names fields; what the client gave for them is known here."""
    entries = answer.body.get("detail")
    if not isinstance(entries, list):
        return answer
    given = {name: errors.shortened(value) for name, value in checked.model_dump().items()}
    detail = [{**one, "input": given.get(one["loc"][-1], given)} for one in entries]
    return replace(answer, body={**answer.body, "detail": detail})


def _seed(job: Job, checked: OneRewardInput) -> int:
    """The asked one; a random one otherwise, the same if the job has to be run again."""
    return uuid.UUID(job.id).int >> 96 if checked.seed is None else checked.seed
