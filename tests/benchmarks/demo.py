"""Seconds of the whole demo command, interpreter start and imports included.

python tests/benchmarks/demo.py [--runs 3]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "local_backend", "demo", "--output", f"{folder}/demo.png"]
        for run in range(1, options.runs + 1):
            start = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            print(f"run {run}: {time.perf_counter() - start:.1f} s for four edits")


if __name__ == "__main__":
    main()
