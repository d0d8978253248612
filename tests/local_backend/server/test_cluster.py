"""The server on Ray Serve: replicas and heads are killed, and no job is lost or done twice."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import pytest
import requests
import torch
from fakes.live_server import arguments, submit
from fakes.ray_cluster import RayCluster
from onereward_pack.local_backend.server.messages import (
    Done,
    Event,
    LogLine,
    PaintRequest,
    Started,
    WorkerLostError,
)
from onereward_pack.local_backend.server.schemas import PICTURES, OneRewardInput, check_input
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.local_backend.server.workers.cluster import plan
from onereward_pack.local_backend.server.workers.ray_pool import RayPool
from onereward_pack.local_backend.server.workers.worker import Worker
from onereward_pack.nodes.errors import InputError
from ray.exceptions import ActorDiedError, ActorUnavailableError

JOBS, SHORT, LONGER = 16, 3, 12  # steps of most jobs, and of those that a replica dies with
ENDLESS = 400
SECONDS = 240.0
WORK = PaintRequest("a", {}, b"", b"", 1)
Told = dict[str, Any]


class Answer:
    """What a Serve handle gives back: events, or an error after them."""

    def __init__(self, events: Sequence[Event], error: Exception | None) -> None:
        self.cancelled = False
        self._events, self._error = list(events), error

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> Event:
        if self._events:
            return self._events.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """As much of a Serve handle as RayPool uses."""

    def __init__(self, *events: Event, error: Exception | None = None) -> None:
        self.answer = Answer(events, error)
        self.run = self
        self.streams = False

    def options(self, stream: bool) -> Handle:
        self.streams = stream
        return self

    def remote(self, work: PaintRequest) -> Answer:
        assert work is WORK and self.streams
        return self.answer


def events_of(handle: Handle) -> list[Event]:
    async def collect() -> list[Event]:
        return [event async for event in RayPool(handle, 3).paint(WORK)]

    return asyncio.run(collect())


@pytest.mark.parametrize("error", [ActorDiedError(), ActorUnavailableError("away", b"0" * 16)])
def test_a_dead_replica_is_a_lost_worker_by_its_name(error: Exception) -> None:
    with pytest.raises(WorkerLostError) as caught:
        events_of(Handle(Started("box:7"), LogLine("step 1 of 4"), error=error))
    assert caught.value.worker == "box:7"
    with pytest.raises(WorkerLostError):
        events_of(Handle(error=error))


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(KeyError):
        events_of(Handle(Started("box:7"), error=KeyError("a fault of ours")))


def test_closing_the_events_cancels_the_job_on_its_replica() -> None:
    handle = Handle(Started("box:7"), LogLine("step 1 of 4"))

    async def close_early() -> None:
        events: AsyncIterator[Event] = RayPool(handle, 3).paint(WORK)
        assert await anext(events) == Started("box:7")
        assert not handle.answer.cancelled
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(close_early())
    assert handle.answer.cancelled


def test_the_words_of_a_command_become_a_deployment() -> None:
    words = {"gpus": "0.5", "max_replicas": "4", "allow_hosts": "nas, 10.0.0.7", "data": "jobs"}
    made = plan(words)
    assert made.settings["allow_hosts"] == ["nas", "10.0.0.7"]
    assert os.path.isabs(made.settings["data"])
    assert Settings(**made.settings).max_replicas == 4
    assert made.workers["ray_actor_options"]["num_gpus"] == 0.5
    assert made.workers["autoscaling_config"]["max_replicas"] == 4
    assert made.capacity == 5
    assert "resources" in made.heads["ray_actor_options"], "sqlite lies on one machine"
    fixed = plan({"gpus": 0, "min_replicas": 2, "max_replicas": 2})
    assert fixed.workers["num_replicas"] == 2 and "autoscaling_config" not in fixed.workers


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(InputError, match="no setting max_quue and no modles"):
        plan({"max_quue": "3", "modles": "x"})
    with pytest.raises(InputError, match="max_queue.*gpus"):
        plan({"max_queue": "many", "gpus": "-1"})
    with pytest.raises(InputError, match="sqlite"):
        plan({"heads": "2"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with RayCluster(folder, min_replicas=2, max_replicas=2, gpus=0) as cluster:
        yield cluster


def states_of(server: RayCluster, jobs: Sequence[Told]) -> list[Told]:
    return [server.call("GET", told["status_url"] + "?logs=1").json() for told in jobs]


def wait_until_painted(server: RayCluster, told: Told, steps: int = 1) -> None:
    """Until the job's log has that many steps."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        (state,) = states_of(server, [told])
        if len(state.get("logs") or ()) >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"The job did not begin: {state}")


def finish(server: RayCluster, jobs: Sequence[Told]) -> list[Told]:
    """The last status of all jobs, while heads may come and go."""
    end, states = time.monotonic() + SECONDS, [{}] * len(jobs)
    while time.monotonic() < end:
        with suppress(requests.RequestException):
            states = states_of(server, jobs)
            if all(state.get("status") == "COMPLETED" for state in states):
                return states
        time.sleep(0.1)
    raise AssertionError(f"Not done: {states}\n{server.log[-3000:]}")


def pictures_of(server: RayCluster, jobs: Sequence[Told]) -> list[bytes]:
    found = []
    for told in jobs:
        answer = server.call("GET", told["response_url"])
        assert answer.status_code == 200, answer.text
        (image,) = answer.json()["images"]
        found.append(server.call("GET", image["url"]).content)
    return found


def job(steps: int, **more: Any) -> dict[str, Any]:
    return arguments(steps=steps, true_cfg=1, **more)


def rows_of(server: RayCluster, jobs: Sequence[Told]) -> list[tuple[str, int, int]]:
    """State, attempts and the number of answers of each job in the store."""
    query = (
        "select state, attempts, (select count(*) from answers a where a.number = j.number) "
        "from jobs j where id = ?"
    )
    with closing(sqlite3.connect(server.data / "server.sqlite3")) as store:
        return [store.execute(query, (told["request_id"],)).fetchone() for told in jobs]


def warnings_of(state: Told) -> list[str]:
    return [line["message"] for line in state["logs"] if line["level"] == "WARN"]


def painted_here(worker: Worker, body: dict[str, Any]) -> bytes:
    """The same job on a worker of this process."""
    checked = check_input(body, 8)
    assert isinstance(checked, OneRewardInput)
    image, mask = (base64.b64decode(body[name].partition(",")[2]) for name in PICTURES)
    work = PaintRequest("here", checked.model_dump(exclude=set(PICTURES)), image, mask, 10**6)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray has it for a worker of one CPU; more round otherwise

    async def run() -> bytes:
        *_, done = [event async for event in worker.events(work)]
        assert isinstance(done, Done)
        return done.images[0]

    try:
        return asyncio.run(run())
    finally:
        torch.set_num_threads(threads)


def test_a_cancelled_job_frees_its_replica(server: RayCluster) -> None:
    first, second = (submit(server, job(steps=ENDLESS, seed=seed)) for seed in (1, 2))
    for told in (first, second):
        wait_until_painted(server, told)
    third = submit(server, job(steps=2))
    assert server.call("PUT", first["cancel_url"]).status_code == 202
    finish(server, [first, third])
    assert states_of(server, [second])[0]["status"] == "IN_PROGRESS", "it was not its replica"
    assert server.call("GET", first["response_url"]).status_code == 499
    assert server.call("PUT", second["cancel_url"]).status_code == 202
    finish(server, [second])


def test_a_replica_is_killed_and_each_of_16_jobs_is_done_once(server: RayCluster) -> None:
    steps = [LONGER if number in (2, 3) else SHORT for number in range(JOBS)]
    bodies = [job(steps=count, seed=seed) for seed, count in enumerate(steps)]
    jobs = [submit(server, body) for body in bodies]
    for told in jobs[2:4]:  # one on each replica
        wait_until_painted(server, told, steps=2)
    os.kill(server.replicas("Worker")[0], signal.SIGKILL)
    states = finish(server, jobs)
    assert len({told["request_id"] for told in jobs}) == JOBS
    pictures = pictures_of(server, jobs)
    worker = Worker(Settings())
    assert pictures == [painted_here(worker, body) for body in bodies]
    assert len(set(pictures)) == JOBS
    struck = [number for number, state in enumerate(states) if warnings_of(state)]
    assert struck in ([2], [3]), "one replica had one job"
    (warning,) = warnings_of(states[struck[0]])
    assert warning.startswith("The worker ") and warning.endswith("runs again on another.")
    attempts = [2 if number in struck else 1 for number in range(JOBS)]
    assert rows_of(server, jobs) == [("done", tries, 1) for tries in attempts]


def test_a_new_head_goes_on_with_the_jobs_of_the_store(server: RayCluster) -> None:
    jobs = [submit(server, job(steps=SHORT, seed=seed)) for seed in range(6)]
    wait_until_painted(server, jobs[0])
    (head,) = server.replicas("Head")
    os.kill(head, signal.SIGKILL)
    finish(server, jobs)
    assert head not in server.replicas("Head")
    assert len(set(pictures_of(server, jobs))) == len(jobs)
    rows = rows_of(server, jobs)
    assert [(state, answers) for state, _, answers in rows] == [("done", 1)] * len(jobs)
    assert max(attempts for _, attempts, _ in rows) == 2, "nothing was under way"
