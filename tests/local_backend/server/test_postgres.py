"""Two heads share one Postgres: they divide the jobs, and one takes over if the other dies."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.live_server import LiveServer, arguments, follow, submit, wait_until_runs
from sqlalchemy import Engine, create_engine, text

pytest.importorskip("pgserver", reason="pip install pgserver, which holds a Postgres")

JOBS, SHORT, LONG = 12, 6, 40  # steps
ANSWERS = "(select count(*) from answers a where a.number = j.number)"
Told = dict[str, Any]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="pg")  # short: it becomes the name of a socket
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)  # where it keeps its locks
        import pgserver

        server = pgserver.get_server(Path(folder, "data"))
    uri: str = server.get_uri()
    yield uri.replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def heads(
    database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveServer, LiveServer]]:
    """Two servers on the same jobs, keys and files."""
    shared = str(tmp_path_factory.mktemp("shared"))
    one, two = (
        LiveServer(tmp_path_factory.mktemp("head"), "--database", database, "--data", shared)
        for _ in range(2)
    )
    with one, two:
        two.key = one.key
        yield one, two


@pytest.fixture
def store(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    yield engine
    engine.dispose()


def column(store: Engine, name: str, jobs: Sequence[Told]) -> list[Any]:
    query = text(f"select {name} from jobs j where id = :id")
    with store.connect() as db:
        return [db.execute(query, {"id": told["request_id"]}).scalar_one() for told in jobs]


def test_two_heads_divide_the_jobs_that_one_of_them_was_sent(
    heads: tuple[LiveServer, LiveServer], store: Engine
) -> None:
    one, two = heads
    jobs = [submit(one, arguments(steps=SHORT, seed=seed)) for seed in range(JOBS)]
    for told in jobs:
        _, result = follow(one, told)
        assert result.status_code == 200
        path = told["response_url"].removeprefix(one.url)
        assert two.call("GET", path).json() == result.json(), "the other head knows it, too"
    owners = column(store, "owner", jobs)
    assert len(set(owners)) == 2, owners
    assert column(store, ANSWERS, jobs) == [1] * JOBS
    assert column(store, "attempts", jobs) == [1] * JOBS


def test_a_head_takes_over_the_jobs_of_one_that_was_killed(
    heads: tuple[LiveServer, LiveServer], store: Engine
) -> None:
    one, two = heads
    jobs = [submit(one, arguments(steps=LONG, true_cfg=1, seed=seed)) for seed in range(4)]
    wait_until_runs(one, jobs[0])
    assert set(column(store, "state", jobs)) <= {"queued", "running"}
    killed, one.process = one.process, None
    assert killed is not None
    killed.kill()
    killed.wait()
    for told in jobs:
        there = {name: str(url).replace(one.url, two.url) for name, url in told.items()}
        states, result = follow(two, there)
        assert result.status_code == 200, states[-1]
    assert len(set(column(store, "owner", jobs))) == 1, "the other head has them all"
    assert sorted(column(store, "attempts", jobs)) == [1, 1, 1, 2], "one was under way"
    assert column(store, ANSWERS, jobs) == [1] * len(jobs)
