"""How long another process waits to begin a job while a large journal is cleared or migrated.

    python tests/benchmarks/job_store.py [--megabytes 600] [--folder /tmp] [--old 30f877f]

A journal is written by the code of `--old`, which kept pictures inside the database. It is cleared
by that code, migrated by the code of this checkout, filled again and cleared by it. Meanwhile a
second process begins a job every PAUSE seconds. One line each: the seconds of the work, and
of `begin` the median, the 99th percentile, the longest and the failures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PICTURE = 2_000_000  # bytes, about a PNG of 1 MP
PAUSE = 0.02  # seconds
NAMES = {
    "store": ("job_store", "journal"),
    "history": ("job_history", "journal_view"),
    "housekeeping": ("job_housekeeping", ""),
    "limits": ("spend_limits", "journal"),
}


def module(root: Path, name: str) -> Any:
    """A module of the pack in `root`, whichever of its two names it has there."""
    if "pack" not in sys.modules:
        place = [str(root)]
        spec = spec_from_file_location(
            "pack", root / "__init__.py", submodule_search_locations=place
        )
        assert spec is not None
        sys.modules["pack"] = module_from_spec(spec)
    new, old = NAMES[name]
    found = new if (root / "nodes" / "fal" / f"{new}.py").exists() else old
    return import_module(f"pack.nodes.fal.{found}")


def write(root: Path, folder: Path, megabytes: int) -> None:
    """Finished jobs of one picture each."""
    store = module(root, "store")
    journal = store.Journal(folder)
    for number in range(megabytes * 1_000_000 // PICTURE):
        job = begin(root, journal, f"{time.time_ns()} {number}")
        journal.sent(job, f"id-{number}")
        journal.keep(job, store.State.DONE, [os.urandom(PICTURE)], 0.0, "{}")


def begin(root: Path, journal: Any, key: str) -> Any:
    """A job in a journal of this code or of the old one."""
    limits = module(root, "limits")
    kind = getattr(limits, "SpendLimits", None) or limits.Caps
    return journal.begin(key, "fal", "run", 0.0, kind(0.0, 0.0))


def clear(root: Path, folder: Path) -> None:
    module(root, "history").clear_images(folder)


def migrate(root: Path, folder: Path) -> None:
    journal = module(root, "store").Journal(folder)
    module(root, "housekeeping").wait(journal.file)


def probe(root: Path, folder: Path) -> None:
    """Begins jobs until standard input ends; prints the seconds of each and the failures."""
    store = module(root, "store")
    journal, seconds, failures = store.Journal(folder), [], []
    print("ready", flush=True)
    running = subprocess.Popen(["cat"], stdin=sys.stdin, stdout=subprocess.DEVNULL)
    while running.poll() is None:
        start = time.perf_counter()
        try:
            job = begin(root, journal, f"probe {time.time_ns()}")
            seconds.append(time.perf_counter() - start)
            journal.drop(job)
        except Exception as error:  # whatever it is, the node would have failed with it
            failures.append(f"{time.perf_counter() - start:.1f} s: {error}"[:300])
        time.sleep(PAUSE)
    print(json.dumps({"seconds": sorted(seconds), "failures": failures}))


CHILDREN: dict[str, Callable[..., None]] = {
    "write": write,
    "clear": clear,
    "migrate": migrate,
    "probe": probe,
}


def child(work: str, root: Path, folder: Path, *more: int, **options: Any) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--child", work, str(root), str(folder), *map(str, more)]
    return subprocess.Popen(words, text=True, **options)


def watched(work: str, root: Path, folder: Path) -> None:
    """One line about `work`, done by one process while another begins jobs."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child("probe", root, folder, **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        size, start = of_folder(folder), time.perf_counter()
        if child(work, root, folder).wait():
            sys.exit(f"{work} failed")
        took = time.perf_counter() - start
        found = json.loads(other.communicate()[0])
    seconds = found["seconds"]
    p50, p99 = (seconds[int(len(seconds) * share)] for share in (0.5, 0.99))
    print(
        f"{work}: {took:.1f} s ({size / 1e6:.0f} -> {of_folder(folder) / 1e6:.0f} MB, database "
        f"{(folder / 'journal.sqlite3').stat().st_size / 1e6:.1f} MB); begin p50 "
        f"{p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, max {seconds[-1] * 1e3:.0f} ms, "
        f"n {len(seconds)}, failures {len(found['failures'])} {found['failures'][:1]}",
        flush=True,
    )


def of_folder(folder: Path) -> int:
    """Bytes of all files below it; another process may delete one meanwhile."""
    return sum(size for file in folder.rglob("*") for size in size_of(file))


def size_of(file: Path) -> Iterator[int]:
    try:
        yield file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """The nodes of another revision."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        archive = Path(place) / "nodes.tar"
        git = ["git", "archive", "-o", str(archive), revision, "nodes", "__init__.py"]
        subprocess.run(git, cwd=ROOT, check=True)
        with tarfile.open(archive) as packed:
            packed.extractall(place)
        yield Path(place)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--megabytes", type=int, default=600)
    words.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    words.add_argument("--old", default="30f877f")
    words.add_argument("--skip-old-clear", action="store_true")
    words.add_argument("--only-old", action="store_true")
    asked = words.parse_args()
    with (
        checkout(asked.old, asked.folder) as old,
        tempfile.TemporaryDirectory(dir=asked.folder) as place,
    ):
        written, journal = Path(place) / "written", Path(place) / "journal"
        child("write", old, written, asked.megabytes).wait()
        if not asked.skip_old_clear:
            shutil.copytree(written, journal)
            print("old code", flush=True)
            watched("clear", old, journal)
            shutil.rmtree(journal)
        if asked.only_old:
            return
        print("this code", flush=True)
        watched("migrate", ROOT, written)
        watched("clear", ROOT, written)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work, root, folder, *more = sys.argv[2:]
        CHILDREN[work](Path(root), Path(folder), *map(int, more))
    else:
        main()
