"""What the fal-compatible server costs and stands, on this machine's loopback and preview model.

    python tests/benchmarks/server.py [--quick] [--only throughput overhead load scaling]

throughput: 16 jobs on one Ray replica and on two, and on two of which one is killed.
overhead: from the POST until the status stream says COMPLETED, less the sampler's own seconds.
scaling: how long a backlog waits for a second replica where one is up and two are allowed.
load: 100 clients at once, each sends a job, asks every 0.5 s, and takes the result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fakes.live_server import ENDPOINT, LiveServer, arguments
from fakes.ray_cluster import RayCluster

PARTS = ("throughput", "overhead", "load", "scaling")
JOBS, STEPS = 16, 8
CLIENTS, POLL = 100, 0.5
LIMIT = 300.0  # seconds that any one step may take
MIB = 1 << 20
Server = LiveServer | RayCluster
Row = tuple[str, str]


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        codes: answers by status code.
        memory: the server's resident MiB at some seconds.
    """

    codes: Counter[int] = field(default_factory=Counter)
    done: int = 0
    position: int = 0
    memory: dict[int, float] = field(default_factory=dict)


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        server.url,
        headers={"Authorization": f"Key {server.key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(LIMIT),
    ) as session:
        yield session


def job(steps: int) -> dict[str, Any]:
    return arguments(steps=steps, true_cfg=1, seed=random.randrange(2**31))


async def submit(session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(f"/{ENDPOINT}", json=body) as answer:
        answer.raise_for_status()
        told: dict[str, Any] = await answer.json()
        return told


async def completed(session: aiohttp.ClientSession, told: dict[str, Any]) -> dict[str, Any]:
    """The last status, by the stream."""
    async with session.get(told["status_url"] + "/stream?logs=1") as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                state: dict[str, Any] = json.loads(line[6:])
                if state["status"] == "COMPLETED":
                    return state
    raise RuntimeError("The stream ended before the job.")


async def timed(session: aiohttp.ClientSession) -> tuple[float, float]:
    """Seconds until a job of its own was completed, and those of its sampler."""
    body, start = job(STEPS), time.perf_counter()
    told = await submit(session, body)
    await completed(session, told)
    seconds = time.perf_counter() - start
    async with session.get(told["response_url"]) as answer:
        return seconds, (await answer.json())["timings"]["inference"]


async def overhead(server: Server, label: str, count: int) -> list[Row]:
    async with client_of(server) as session:
        for _ in range(2):
            await timed(session)  # the model loads
        pairs = [await timed(session) for _ in range(count)]
        control = []
        for _ in range(count):
            start = time.perf_counter()
            async with session.get("/health") as answer:
                await answer.read()
            control.append(time.perf_counter() - start)
    added = [whole - sampler for whole, sampler in pairs]
    sampler = statistics.median(sampler for _, sampler in pairs)
    return [
        (f"overhead of {count} jobs, {label}", f"{spread(added)}; sampler {sampler * 1000:.0f} ms"),
        (f"GET /health, {label}", spread(control)),
    ]


def spread(seconds: Sequence[float]) -> str:
    """p50 and p95 in ms."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return f"p50 {cuts[9] * 1000:.1f} ms, p95 {cuts[18] * 1000:.1f} ms"


async def batch(server: RayCluster, kill: bool = False) -> tuple[float, str]:
    """Seconds of the jobs, and what became of them."""
    async with client_of(server) as session:
        await asyncio.gather(*(timed(session) for _ in range(4)))  # the models load
        start = time.perf_counter()
        told = [await submit(session, job(STEPS)) for _ in range(JOBS)]
        ends = asyncio.gather(*(completed(session, one) for one in told))
        if kill:
            await completed(session, told[3])
            await asyncio.sleep(0.2)  # by then each is in the middle of its next
            os.kill(server.replicas("Worker")[0], signal.SIGKILL)
        await asyncio.wait_for(ends, LIMIT)
        seconds = time.perf_counter() - start
        results, again = [], 0
        for one in told:
            async with session.get(one["status_url"] + "?logs=1") as answer:
                again += "runs again" in await answer.text()  # a stream tells new lines only
            async with session.get(one["response_url"]) as answer:
                if answer.status == 200:
                    results.append((await answer.json())["images"][0]["url"])
    lost, doubled = JOBS - len(results), len(results) - len(set(results))
    return seconds, f"{lost} lost, {doubled} doubled, {again} run again"


async def backlog(server: RayCluster) -> str:
    """Seconds until a second worker is there, and until it paints."""
    async with client_of(server) as session:
        await timed(session)
        start = time.perf_counter()
        told = [await submit(session, arguments(steps=900, acceleration="none")) for _ in range(3)]
        words = []
        for reached in (lambda: len(server.replicas("Worker")) == 2, None):
            while True:
                await asyncio.sleep(0.2)
                states = []
                for one in told:
                    async with session.get(one["status_url"]) as answer:
                        states.append((await answer.json())["status"])
                if states.count("COMPLETED"):
                    return "not before the first job was done"
                if reached() if reached else states.count("IN_PROGRESS") == 2:
                    break
            words.append(f"{time.perf_counter() - start:.1f} s")
        for one in told:
            async with session.put(one["cancel_url"]) as answer:
                await answer.read()
    return f"there after {words[0]}, worker after {words[1]}"


def on_cluster(replicas: int, run: Callable[[RayCluster], Any], least: int | None = None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"min_replicas": least or replicas, "max_replicas": replicas, "gpus": 0}
        with RayCluster(Path(folder), **settings) as server:
            return run(server)


def on_one_box(run: Callable[[LiveServer], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder, LiveServer(Path(folder)) as server:
        return run(server)


def clusters(parts: Sequence[str], count: int) -> list[Row]:
    """All that needs Ray."""
    rows: list[Row] = []
    alone = 0.0
    if "throughput" in parts:
        alone, fate = on_cluster(1, lambda server: asyncio.run(batch(server)))
        rows.append((f"{JOBS} jobs, 1 replica", f"{alone:.2f} s; {fate}"))

    def two(server: RayCluster) -> None:
        if "overhead" in parts:
            rows.extend(asyncio.run(overhead(server, "cluster", count)))
        if "throughput" in parts:
            seconds, fate = asyncio.run(batch(server))
            words = f"{seconds:.2f} s; {fate}; {alone / seconds:.2f} times the throughput"
            rows.append((f"{JOBS} jobs, 2 replicas", words))
            seconds, fate = asyncio.run(batch(server, kill=True))
            rows.append((f"{JOBS} jobs, 2 replicas, one killed", f"{seconds:.2f} s; {fate}"))

    if {"throughput", "overhead"} & set(parts):
        on_cluster(2, two)
    if "scaling" in parts:
        words = on_cluster(2, lambda server: asyncio.run(backlog(server)), least=1)
        rows.append(("a backlog's second replica", words))
    return rows


async def one_client(session: aiohttp.ClientSession, load: Load, end: float) -> None:
    while time.monotonic() < end:
        async with session.post(f"/{ENDPOINT}", json=job(4)) as answer:
            load.codes[answer.status] += 1
            told = await answer.json()
        if answer.status != 200:
            await asyncio.sleep(POLL)
            continue
        status = ""
        while status != "COMPLETED" and time.monotonic() < end:
            await asyncio.sleep(POLL)
            async with session.get(told["status_url"]) as answer:
                load.codes[answer.status] += 1
                state = await answer.json()
            status = state["status"]
            load.position = max(load.position, state.get("queue_position") or 0)
        if status == "COMPLETED":
            async with session.get(told["response_url"]) as answer:
                load.codes[answer.status] += 1
                load.done += answer.status == 200


async def crowd(server: LiveServer, seconds: int) -> Load:
    """CLIENTS at once for that long."""
    assert server.process is not None
    process, load, start = psutil.Process(server.process.pid), Load(), time.monotonic()
    async with client_of(server) as session:
        await timed(session)
        clients = [
            asyncio.create_task(one_client(session, load, start + seconds)) for _ in range(CLIENTS)
        ]
        for mark in (seconds // 6, seconds // 2, seconds):
            await asyncio.sleep(max(0.0, start + mark - time.monotonic()))
            load.memory[mark] = process.memory_info().rss / MIB
        await asyncio.wait_for(asyncio.gather(*clients), LIMIT)
    return load


def load_rows(load: Load, seconds: int) -> list[Row]:
    failed = sum(count for code, count in load.codes.items() if code >= 500)
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(load.codes.items()))
    memory = ", ".join(f"{size:.0f} MiB at {mark} s" for mark, size in load.memory.items())
    return [
        (f"{CLIENTS} clients for {seconds} s", f"{codes}; 5xx: {failed}"),
        ("jobs done; highest queue position", f"{load.done}; {load.position}"),
        ("memory of the server", memory),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the load and the jobs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    options = parser.parse_args()
    count, seconds = (10, 15) if options.quick else (40, 60)
    rows: list[Row] = []
    if "overhead" in options.only:
        rows += on_one_box(lambda server: asyncio.run(overhead(server, "serve", count)))
    if "load" in options.only:
        load = on_one_box(lambda server: asyncio.run(crowd(server, seconds)))
        rows += load_rows(load, seconds)
    if {"throughput", "overhead", "scaling"} & set(options.only):
        rows += clusters(options.only, count)
    for name, words in rows:
        print(f"{name:36} {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
