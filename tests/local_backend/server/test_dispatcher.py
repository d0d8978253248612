"""The server's dispatcher with workers that do as they are told: each job ends exactly once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fakes.workers import PNG, Workers
from onereward_pack.local_backend.server.database import open_database
from onereward_pack.local_backend.server.messages import LogLine, WorkerLostError
from onereward_pack.local_backend.server.queue import dispatcher
from onereward_pack.local_backend.server.queue.dispatcher import Dispatcher
from onereward_pack.local_backend.server.queue.job_states import DONE, QUEUED, RUNNING, Job
from onereward_pack.local_backend.server.queue.leases import Leases
from onereward_pack.local_backend.server.queue.notifications import Notifier
from onereward_pack.local_backend.server.queue.store import JobStore, NewJob
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.local_backend.server.storage.files import Files
from onereward_pack.local_backend.server.storage.url_fetch import FetchError
from sqlalchemy.exc import OperationalError

PICTURES = {"image_url": "https://a.example/i.png", "mask_url": "https://a.example/m.png"}


class Site:
    """One head without HTTP."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.settings = Settings(data=folder / "data", **more)
        self.engine = open_database(self.settings)
        self.store, self.notifier = JobStore(self.engine), Notifier()
        self.files = Files(self.engine, self.settings)
        self.leases = Leases(self.engine, "head")

    def send(self, **fields: Any) -> Job:
        body = json.dumps({**PICTURES, **fields}).encode()
        return self.store.add(NewJob("k", body, 3600.0, 3600.0), 100, 100)[0]

    def now(self, job: Job) -> Job:
        found = self.store.find(job.id, "k")
        assert found is not None
        return found

    def answer(self, job: Job) -> tuple[int, dict[str, Any]]:
        found = self.store.answer(job.number)
        assert found is not None
        return found[0], json.loads(found[2])

    def lines(self, job: Job) -> list[str]:
        return [line.message for line in self.store.logs(job.number)]

    @asynccontextmanager
    async def at_work(self, workers: Workers, fetch: Any = None) -> AsyncIterator[Dispatcher]:
        async def read(url: str) -> bytes:
            return url.encode()

        work = Dispatcher(
            self.store,
            self.leases,
            self.files,
            fetch or read,
            workers,
            self.notifier,
            self.settings,
        )
        task = asyncio.create_task(work.run())
        try:
            yield work
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def until(self, job: Job, state: str = DONE) -> Job:
        for _ in range(6000):  # a minute
            if self.now(job).state == state:
                return self.now(job)
            await asyncio.sleep(0.01)
        raise AssertionError(f"still {self.now(job).state}: {self.lines(job)}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.engine.dispose()


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "TICK", 0.05)


def run(coroutine: Callable[[], Any]) -> None:
    asyncio.run(coroutine())


def test_a_job_is_painted_and_its_pictures_are_kept_as_files(site: Site) -> None:
    async def work() -> None:
        workers = Workers([LogLine("step 1 of 2"), LogLine("step 2 of 2")])
        job = site.send(prompt="a dog", num_images=2, seed=7, output_format="png")
        async with site.at_work(workers):
            ended = await site.until(job)
        assert (ended.status, ended.attempts) == (200, 1)
        (given,) = workers.works
        assert (given.image, given.mask) == (b"https://a.example/i.png", b"https://a.example/m.png")
        assert given.fields["prompt"] == "a dog" and given.fields["true_cfg"] == 4.0
        assert given.max_pixels == 64_000_000 and site.lines(job) == ["step 1 of 2", "step 2 of 2"]
        status, body = site.answer(job)
        assert (body["seed"], body["has_nsfw_concepts"]) == (7, [False, False])
        assert (body["prompt"], body["timings"]) == ("a dog", {"inference": 0.5})
        for image in body["images"]:
            assert (image["width"], image["height"]) == (64, 48)
            assert image["content_type"] == "image/png" and image["file_size"] == len(PNG)
            name = site.files.own(image["url"])
            assert name is not None and site.files.read(name) == PNG

    run(work)


def test_sync_mode_puts_the_pictures_into_the_answer(site: Site) -> None:
    async def work() -> None:
        job = site.send(sync_mode=True)
        async with site.at_work(Workers()):
            await site.until(job)
        (image,) = site.answer(job)[1]["images"]
        assert image["url"].startswith("data:image/png;base64,")
        assert list(site.settings.files.iterdir()) == []

    run(work)


def test_a_random_seed_is_the_jobs_own_and_the_same_when_it_runs_again(site: Site) -> None:
    async def work() -> None:
        workers = Workers([WorkerLostError("studio 1")])
        one, other = site.send(), site.send()
        async with site.at_work(workers):
            await site.until(one)
            await site.until(other)
        seeds = [(given.request_id, given.fields["seed"]) for given in workers.works]
        assert len(seeds) == 3 and len(set(seeds)) == 2  # one of them ran twice
        for job in (one, other):
            assert site.answer(job)[1]["seed"] == dict(seeds)[job.id] < 2**32

    run(work)


def test_a_picture_that_cannot_be_fetched_is_fals_422_and_no_worker_sees_it(site: Site) -> None:
    async def fetch(url: str) -> bytes:
        if url.endswith("m.png"):
            raise FetchError("file_too_large", "The file is too large", {"max_size": 5})
        return b""

    async def work() -> None:
        workers = Workers()
        job = site.send()
        async with site.at_work(workers, fetch):
            await site.until(job)
        status, body = site.answer(job)
        (entry,) = body["detail"]
        assert (status, entry["loc"], entry["type"]) == (
            422,
            ["body", "mask_url"],
            "file_too_large",
        )
        assert entry["input"] == PICTURES["mask_url"] and entry["ctx"] == {"max_size": 5}
        assert workers.works == []

    run(work)


def test_a_dead_workers_job_runs_once_more_and_says_so(site: Site) -> None:
    async def work() -> None:
        workers = Workers([LogLine("step 1 of 2"), WorkerLostError("studio 1")])
        job = site.send()
        async with site.at_work(workers):
            ended = await site.until(job)
        assert (ended.status, ended.attempts, len(workers.works)) == (200, 2, 2)
        assert site.lines(job) == [
            "step 1 of 2",
            "The worker studio 1 stopped in the middle; the job runs again on another.",
        ]

    run(work)


def test_a_job_that_loses_two_workers_is_over(site: Site) -> None:
    async def work() -> None:
        workers = Workers(*([WorkerLostError("studio 1")] for _ in range(2)))
        job = site.send()
        async with site.at_work(workers):
            ended = await site.until(job)
            assert (await site.until(site.send())).status == 200
        assert (ended.status, ended.error_type) == (503, "runner_disconnected")
        assert len(workers.works) == 3

    run(work)


def test_a_workers_own_fault_fails_the_job_and_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        job, next_one = site.send(), site.send()
        async with site.at_work(Workers([ZeroDivisionError("secret path")])):
            ended = await site.until(job)
            assert (await site.until(next_one)).status == 200
        assert (ended.status, ended.error_type) == (500, "internal_error")
        assert "secret" not in str(site.answer(job))

    run(work)
    assert "secret path" in caplog.text  # for the operator


def test_a_job_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    site = Site(tmp_path, job_timeout=0.1)

    async def work() -> None:
        workers = Workers([asyncio.Event()])
        job, next_one = site.send(), site.send()
        async with site.at_work(workers):
            ended = await site.until(job)
            assert (await site.until(next_one)).status == 200
        assert (ended.status, ended.error_type) == (504, "generation_timeout")
        assert workers.closed == 2

    run(work)
    site.engine.dispose()


@pytest.mark.parametrize("here", [True, False], ids=["on this head", "on another head"])
def test_a_cancelled_job_stops_its_worker(site: Site, here: bool) -> None:
    async def work() -> None:
        workers = Workers([asyncio.Event()])
        job, next_one = site.send(), site.send()
        async with site.at_work(workers) as head:
            await site.until(job, RUNNING)
            assert site.store.cancel(job) == "CANCELLATION_REQUESTED"
            if here:
                head.cancel(job.number)
            ended = await site.until(job)
            assert (await site.until(next_one)).status == 200
        assert (ended.status, ended.error_type, workers.closed) == (499, "client_cancelled", 2)

    run(work)


def test_a_job_cancelled_while_it_waits_for_a_worker_is_not_painted(site: Site) -> None:
    async def work() -> None:
        gate = asyncio.Event()
        workers = Workers([gate], ahead=1)
        first = site.send()
        async with site.at_work(workers) as head:
            await site.until(first, RUNNING)
            second = site.send(seed=9)
            head.wake()
            await asyncio.sleep(0.1)  # the second is claimed and waits
            assert site.store.cancel(second) == "OK"
            head.cancel(second.number)
            gate.set()
            await site.until(first)
            await asyncio.sleep(0.1)
        assert site.now(second).status == 499
        assert [given.request_id for given in workers.works] == [first.id]

    run(work)


def test_a_head_that_is_stopped_gives_its_jobs_back(site: Site) -> None:
    async def work() -> None:
        first, second = site.send(), site.send()
        workers = Workers([asyncio.Event()])
        async with site.at_work(workers):
            await site.until(first, RUNNING)
        assert [site.now(job).state for job in (first, second)] == [QUEUED, QUEUED]
        assert site.now(first).attempts == 0 and workers.closed == 1
        async with site.at_work(Workers()):
            assert [(await site.until(job)).status for job in (first, second)] == [200, 200]

    run(work)


def test_an_outage_of_the_database_costs_no_job(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = iter([True] * 3)
    finish = site.leases.finish

    def sometimes(*args: Any) -> bool:
        if next(refused, False):
            raise OperationalError("update", {}, Exception("connection lost"))
        return finish(*args)

    monkeypatch.setattr(site.leases, "finish", sometimes)

    async def work() -> None:
        job = site.send()
        async with site.at_work(Workers()):
            assert (await site.until(job)).status == 200

    run(work)


def test_more_jobs_than_workers_run_side_by_side_and_each_once(site: Site) -> None:
    async def work() -> None:
        workers = Workers(free=3)
        jobs = [site.send(seed=number) for number in range(12)]
        async with site.at_work(workers):
            for job in jobs:
                assert (await site.until(job)).status == 200
        assert sorted(given.fields["seed"] for given in workers.works) == list(range(12))

    run(work)
