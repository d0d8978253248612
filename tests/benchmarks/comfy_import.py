"""How long ComfyUI needs to import the pack, beside an empty pack, over several starts.

    python tests/benchmarks/comfy_import.py [starts]

ComfyUI's own table "Import times for custom nodes" is rounded to 0.1 s, so the same call is
measured here, in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "comfyui"))

from comfy_server import PACK_FOLDER, base_directory, command, environment

STARTS = 5
EMPTY = "empty"
# Runs ComfyUI's main.py with a stopwatch round the call that its own table measures.
STOPWATCH = """
import os, runpy, sys, time
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config  # before the name utils means comfy.utils, as main.py does it
import nodes
load = nodes.load_custom_node
async def timed(path, *args, **kwargs):
    start = time.perf_counter()
    loaded = await load(path, *args, **kwargs)
    name = os.path.basename(path)
    print("stopwatch", name, time.perf_counter() - start, bool(loaded), flush=True)
    return loaded
nodes.load_custom_node = timed
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def one_start(folder: Path) -> dict[str, float]:
    """Seconds per custom node in one start of ComfyUI. RuntimeError if one does not import."""
    start = [sys.executable, "-c", STOPWATCH, *command(folder, "--quick-test-for-ci")]
    done = subprocess.run(start, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    seconds = {}
    for line in done.stdout.splitlines():
        if line.startswith("stopwatch "):
            _, name, taken, loaded = line.split()
            if name in (PACK_FOLDER, EMPTY):
                if loaded != "True":
                    raise RuntimeError(f"{name} did not import:\n{done.stderr[-4000:]}")
                seconds[name] = float(taken)
    return seconds


def main(starts: int) -> None:
    """Print milliseconds per start, and the medians."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = base_directory(Path(scratch) / "base")
        empty = folder / "custom_nodes" / EMPTY
        empty.mkdir()
        (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
        rows = [one_start(folder) for _ in range(starts)]
    names = (PACK_FOLDER, EMPTY)
    print("start   " + "".join(f"{name:>14}" for name in names) + "   [ms]")
    for number, row in enumerate(rows, 1):
        print(f"{number:<8}" + "".join(f"{1000 * row[name]:14.1f}" for name in names))
    medians = [1000 * statistics.median(row[name] for row in rows) for name in names]
    print("median  " + "".join(f"{median:14.1f}" for median in medians))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="seconds that ComfyUI needs to import the pack")
    parser.add_argument(
        "starts", type=int, nargs="?", default=STARTS, help=f"of ComfyUI; default {STARTS}"
    )
    main(parser.parse_args().starts)
