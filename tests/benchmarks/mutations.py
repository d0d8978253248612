"""Single-line faults over all rooms, each of which a test has to notice.

    python tests/benchmarks/mutations.py [ID ...]

Each fault of tests/data/mutations.json is put into the checkout in turn (commit first), its tests
run with -x, and the line is put back. Prints a table: room, fault, and the test that noticed it.
Exits 1 if one was not noticed, or if its line is no longer there. About 20 minutes on two cores.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests" / "data" / "mutations.json"
LIMIT = 600  # seconds for the tests of one fault
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@contextmanager
def mutated(fault: dict[str, str]) -> Iterator[None]:
    """The checkout with this fault in it."""
    file = ROOT / fault["file"]
    text = file.read_text("utf-8")
    if text.count(fault["old"]) != 1:
        raise SystemExit(f"{fault['id']}: its line is not once in {fault['file']}. Adapt it.")
    file.write_text(text.replace(fault["old"], fault["new"]), "utf-8")
    try:
        yield
    finally:
        file.write_text(text, "utf-8")


def noticed_by(tests: list[str]) -> str:
    """The first test that fails; nothing if none does."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"nothing within {LIMIT} s"
    found = _FAILED.search(run.stdout)
    return found[1] if found else ""


def main() -> int:
    wanted = set(sys.argv[1:])
    missed = 0
    print("| room | fault | noticed by |\n|---|---|---|")
    for fault in json.loads(FAULTS.read_text("utf-8")):
        if wanted and fault["id"] not in wanted:
            continue
        with mutated(fault):
            test = noticed_by(fault["tests"])
        missed += "::" not in test
        print(f"| {fault['room']} | {fault['fault']} | {test or 'NOTHING'} |", flush=True)
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
