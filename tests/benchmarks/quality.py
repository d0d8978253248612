"""The quality gate of the acceleration levels: what each costs, and what it does to the picture.

python tests/benchmarks/quality.py [--scenes N] [--variants NAME ...] [--threads N] [--out FILE]

The preview model paints held-out scenes of all four tasks with `none`, with every level and with
every technique alone, from the same noise. The rival of each is `none` in as many steps as take no
less time, in three bands of the masked share: the median of the measured ratios of the sampling
loop, rounded up. What is only emulated here is given the ratio that was measured on a card.
Distances are PSNR to none's picture inside the mask, before it is stitched.

Ends with 1 where a level misses a target, or a technique of the table does not beat fewer steps and
is part of a level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import conftest  # noqa: F401  (loads the pack as onereward_pack)

import torch
from benchmarks.quality_judges import load_judges
from benchmarks.quality_report import none_table, summarise, table, task_table, write
from benchmarks.quality_runs import Gate, Painter, Results
from benchmarks.quality_scores import FIDELITY, Row, level_misses, technique_misses
from benchmarks.quality_variants import Variant, variants
from fakes.quality import HeldOutScene, held_out_scenes
from onereward_pack.nodes.contracts import EditTask


def choose_scenes(count: int | None) -> list[HeldOutScene]:
    """That many of the scenes, taken from the tasks in turn; all of them without a count."""
    queues = [held_out_scenes(task) for task in EditTask]
    if count is None:
        return [scene for queue in queues for scene in queue]
    turns = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
    return turns[:count]


def choose_variants(names: Sequence[str] | None) -> dict[str, Variant]:
    """Those of that name, or all; SystemExit for a name that is none of theirs."""
    every = variants()
    unknown = set(names or ()) - set(every)
    if unknown:
        raise SystemExit(f"no variant {', '.join(sorted(unknown))}. Use some of: {list(every)}")
    return {name: variant for name, variant in every.items() if not names or name in names}


def judge_rows(results: Results, chosen: Mapping[str, Variant]) -> list[Row]:
    """A row per variant, with its verdict."""
    rows = []
    for name, variant in chosen.items():
        row = summarise(results, name)
        misses = problems(row, variant)
        verdict = "; ".join(misses) or {"floor": "-", "level": "meets all targets"}.get(
            variant.kind, "beats fewer steps"
        )
        rows.append(replace(row, verdict=verdict, cost=variant.cost or row.cost))
    return rows


def problems(row: Row, variant: Variant) -> list[str]:
    """What is wrong with a row, by the kind of its variant."""
    if variant.kind == "level":
        return level_misses(row, FIDELITY[variant.name])
    return [] if variant.kind == "floor" else technique_misses(row)


def must_hold(variant: Variant) -> bool:
    """Whether a problem of this variant ends the program with 1."""
    return variant.kind in ("level", "part")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenes", type=int, help="how many, of all tasks in turn (all)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="of the table's (all)")
    parser.add_argument("--threads", type=int, help="torch's threads")
    parser.add_argument("--out", type=Path, help="JSON with every picture's figures")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    start, args = perf_counter(), parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    scenes, chosen = choose_scenes(args.scenes), choose_variants(args.variants)
    gate = Gate(scenes, Painter(chosen), load_judges())
    results = gate.run(chosen, lambda text: print(text, file=sys.stderr, flush=True))
    rows = judge_rows(results, chosen)
    print("\n\n".join((none_table(results.full), table(rows), task_table(results))))
    threads = torch.get_num_threads()
    print(
        f"\n{len(scenes)} scenes, {threads} threads, {perf_counter() - start:.0f} s in all; "
        f"none twice: equal {results.repeats}, seconds {results.clock:.1%} apart (median)"
    )
    failed = [row for row in rows if must_hold(chosen[row.variant])]
    failed = [row for row in failed if problems(row, chosen[row.variant])]
    if args.out:
        write(args.out, {"torch": torch.__version__, "threads": threads}, rows, results)
    return 1 if failed or not results.repeats else 0


if __name__ == "__main__":
    sys.exit(main())
