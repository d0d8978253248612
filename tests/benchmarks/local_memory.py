"""What the local FLUX backend takes on cards of several sizes, beside the plain pipeline.

python tests/benchmarks/local_memory.py [--steps 28] [--size 1024] [--cards all 24 16 16:file 12 8]
    [--limit 500] [--acceleration none] [--out FILE] [--tiny]

Needs a CUDA device of 40 GB or more, 64 GB of memory, and no network. The models are FLUX.1-Fill's
at full size with normal random weights (spread 0.02, norms ones): kernels do not branch
on data, so times and bytes are those of the real ones. The weights are made on the device and kept
in the machine's memory, where a file that was just read would lie, too; writing 34 GB to a disk
would take longer than all the rest. So a cold disk is not in these seconds. Stored types are what
most people have: transformer bf16, T5 and CLIP fp16, VAE fp32.

The first row is diffusers' own pipeline with everything resident and both prompts in one call a
step. The other rows run LocalBackend three times: a first picture, the same again (its seconds are
the table's), and a new prompt up to its first step. torch is held to a card's size by
set_per_process_memory_fraction. A "24 GB" card is 24 GiB less the 2 % that cards keep, and less
what the driver took for this process. Behind a colon stands the backend's precision.

Without such a device, or with --tiny, the same runs on the CPU with tiny models and cards that
force the plans of the same kinds; the peaks are then what the parts say they hold.

Ends with 1 where a card failed, took more than was predicted, or unquantised weights gave other
latents than the plain pipeline.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import conftest  # noqa: F401  (loads the pack as onereward_pack)

import torch
from benchmarks.local_memory_models import PlainPipeline, full_flux, sizes_of, tiny_flux
from benchmarks.local_memory_report import Row, machine, table
from benchmarks.local_memory_watch import Card, Enough, OutOfTime, Sink, Watch, now, watching
from fakes.tiny import make_request
from onereward_pack.local_backend.backends import flux as backend_module
from onereward_pack.local_backend.backends.flux import LocalBackend
from onereward_pack.local_backend.bench.random_flux import RandomFlux
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths
from onereward_pack.local_backend.offload.device_memory import _RESERVE, free_memory
from onereward_pack.local_backend.offload.devices import compute_dtype
from onereward_pack.local_backend.offload.memory_plan import (
    GB,
    MemoryPlan,
    VramEstimate,
    choose_plan,
    ladder,
)
from onereward_pack.local_backend.pipeline.pipeline_cache import PIPELINE_CACHE
from onereward_pack.nodes.contracts import ACCELERATIONS, PRECISIONS, EditRequest
from onereward_pack.nodes.errors import LocalBackendError
from torch import Tensor

CPU = torch.device("cpu")
NEW_PROMPT = "two lions asleep on a red sofa"
CARDS = ("all", "24", "16", "16:file", "12", "8")
_KEPT_BY_CARDS = 0.02
_CONTEXT = 0.5 * GB  # what a driver takes for a process, where it cannot be asked
_LEFT_BEHIND = 0.2 * GB  # more than that after unloading is a leak; torch keeps its workspaces
FREE = " GB free: "  # stands before a plan in what the backend says
_NOWHERE = Path("made-in-memory")


@dataclass(frozen=True)
class Case:
    """A card, by its name in the shops ("24") or "all" of this machine's, and a precision."""

    card: str
    precision: str

    def __str__(self) -> str:
        name = "all" if self.card == "all" else f"{self.card} GB"
        return name if self.precision == "auto" else f"{name} {self.precision}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """One run of this program."""

    device: torch.device
    flux: RandomFlux
    request: EditRequest
    deadline: float

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.device)


def model_paths(precision: str) -> ModelPaths:
    return ModelPaths(
        transformer=_NOWHERE,
        text_encoder=_NOWHERE,
        text_encoder_2=_NOWHERE,
        vae=_NOWHERE,
        precision=precision,
    )


@functools.cache
def full_sizes() -> VramEstimate:
    """What the full-size models take for a picture of 1024x1024, from their shapes alone."""
    return sizes_of(
        full_flux(CPU), torch.bfloat16, make_request(1024, 1024, num_inference_steps=28)
    )


def computed_plan(case: Case) -> MemoryPlan:
    """The full-size plan for a card, by arithmetic."""
    budget = card_bytes(case.card, _CONTEXT) - _RESERVE
    plan = choose_plan(full_sizes(), budget, case.precision, False)
    if plan is None:
        raise SystemExit(f"{case} is too small for any plan. Give a larger card.")
    return plan


def card_bytes(name: str, context: float) -> int:
    """What torch can have of a card."""
    whole = 80.0 if name == "all" else float(name)
    return int(whole * 2**30 * (1 - _KEPT_BY_CARDS) - context)


def tiny_card_bytes(case: Case, bench: Bench) -> int:
    """A card on which the tiny models get a plan of the kind that the full-size ones get."""
    wanted = _kind(computed_plan(case))
    sizes = sizes_of(bench.flux, bench.dtype, bench.request)
    plans = ladder(sizes, 0, case.precision, False)
    return next(plan.peak for plan in plans if _kind(plan) == wanted) + _RESERVE


def _kind(plan: MemoryPlan) -> tuple[bool, bool, bool, bool]:
    residency = plan.transformer
    return residency.hold_left_out, residency.fp8, bool(residency.streamed), bool(plan.t5.streamed)


def measure_plainly(bench: Bench) -> tuple[Row, Tensor]:
    """The reference's row and its latents."""
    row = Row("reference", "all resident, plain layers")
    card = Card(bench.device, None)
    plain = PlainPipeline(bench.flux, bench.device, bench.dtype)
    plain.paint(replace(bench.request, num_inference_steps=2))
    card.reset()
    row.stages = plain.paint(bench.request)
    row.allocated, row.reserved = card.peaks()
    row.step = row.stages["denoise"] / bench.request.num_inference_steps
    row.ratio, row.difference, row.relative = 1.0, 0.0, 0.0
    if not torch.isfinite(plain.latents).all():
        row.problems.append("latents are not finite")
    return row, plain.latents


def measure_card(case: Case, bench: Bench, reference: Row, expected: Tensor) -> Row:
    """Three runs of LocalBackend on a card."""
    row = Row(str(case))
    PIPELINE_CACHE.unload()
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        size = free_memory(bench.device)
        if case.card != "all":
            size = min(size, card_bytes(case.card, Card(bench.device, None).outside()))
    else:
        size = tiny_card_bytes(case, bench)
    card = Card(bench.device, size)
    started = perf_counter()
    with card, watching(bench.device) as watch:
        try:
            _three_runs(case, bench, card, watch, row)
        except (LocalBackendError, OutOfTime, RuntimeError) as error:
            row.problems.append(f"{type(error).__name__}: {error}")  # the other cards come next
        finally:
            if watch.plan is not None:
                row.predicted = watch.plan.peak
                row.plan = [text for text in row.said if FREE in text][-1].partition(FREE)[2]
            row.allocated, row.reserved = card.peaks()
            row.retries = card.retries()
            PIPELINE_CACHE.unload()
            gc.collect()
            row.left_behind = card.held()
    _judge(row, reference, expected, watch, bench.request)
    print(f"{row.card}: {row.plan}; {perf_counter() - started:.0f} s", flush=True)
    return row


def _three_runs(case: Case, bench: Bench, card: Card, watch: Watch, row: Row) -> None:
    backend = LocalBackend(model_paths(case.precision), "random weights", bench.flux.open)
    sink = Sink(row.said, bench.deadline)
    with (
        patch.object(backend_module, "shared_memory", lambda _: card),
        patch.object(backend_module, "pick_device", lambda: bench.device),
    ):
        start = now(bench.device)
        backend.run(bench.request, sink)
        row.first = now(bench.device) - start
        row.stages = dict(backend.run(bench.request, sink).timings)
        row.step = row.stages["denoise"] / bench.request.num_inference_steps
        row.page_locked = watch.page_locked()
        try:
            other = replace(bench.request, prompt=NEW_PROMPT)
            backend.run(other, Sink(row.said, bench.deadline, stop_at=1))
        except Enough:
            row.new_prompt, row.table = watch.seconds["prompt"], watch.seconds["table"]


def _judge(row: Row, reference: Row, expected: Tensor, watch: Watch, request: EditRequest) -> None:
    """Compares a row with the reference's; the latents are the second run's, of the same prompt."""
    if row.step is None or watch.plan is None:
        return
    row.ratio = sum(row.stages.values()) / sum(reference.stages.values())
    error = watch.latents - expected
    row.difference = error.abs().max().item()
    row.relative = (error.norm() / expected.norm()).item()
    exact = not watch.plan.transformer.fp8 and not watch.plan.tile  # the VAE's encoder tiles, too
    if exact and request.acceleration == "none" and row.difference != 0:
        row.problems.append("other latents than the reference's")
    # the reserve is for what the arithmetic forgets; the CPU's bookkeeping forgets nothing
    most = watch.plan.peak + (_RESERVE if row.reserved else 0)
    if (row.allocated or 0) > most:
        row.problems.append("took more than was predicted")
    if row.left_behind > _LEFT_BEHIND:
        row.problems.append(f"{row.left_behind / GB:.1f} GB were not let go of")
    row.problems += [text for text in row.said if "ran out" in text]


def copy_rates(device: torch.device) -> dict[str, float]:
    """Bytes a second from the machine's memory to the device: ordinary and page-locked."""
    if device.type != "cuda":
        return {}
    target = torch.empty(2**30, dtype=torch.uint8, device=device)
    rates = {}
    for name, pin in (("ordinary", False), ("page-locked", True)):
        source = torch.ones(2**30, dtype=torch.uint8, pin_memory=pin)
        seconds = []
        for _ in range(4):
            start = now(device)
            target.copy_(source)
            seconds.append(now(device) - start)
        rates[name] = 2**30 / min(seconds)
    return rates


def parse_case(text: str) -> Case:
    """Such as "16:file"; ValueError for anything else."""
    card, _, precision = text.partition(":")
    case = Case(card, precision or "auto")
    if case.precision not in PRECISIONS or (card != "all" and not 0 < float(card) < 1000):
        raise ValueError(text)
    return case


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--cards", nargs="+", type=parse_case, default=[*map(parse_case, CARDS)])
    parser.add_argument("--limit", type=float, default=500, help="seconds; what is left is named")
    parser.add_argument("--acceleration", choices=ACCELERATIONS, default="none")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    args.tiny = args.tiny or not torch.cuda.is_available()
    args.steps = args.steps or (4 if args.tiny else 28)
    args.size = args.size or (64 if args.tiny else 1024)
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    start, args = perf_counter(), parse(arguments)
    device = CPU if args.tiny else torch.device("cuda", torch.cuda.current_device())
    facts = machine(device) | {"steps": args.steps, "size": args.size}
    print(facts)
    if args.tiny:
        print("THESE ARE NO GPU FIGURES: tiny models on the CPU, only to show that it runs.")
    else:
        print(f"about {60 + len(args.cards) * (25 + 0.8 * args.steps):.0f} s on an H100")
    computed = [_computed(case) for case in args.cards]
    bench = Bench(
        device=device,
        flux=tiny_flux() if args.tiny else full_flux(device),
        request=make_request(
            args.size,
            args.size,
            num_inference_steps=args.steps,
            acceleration=args.acceleration,
        ),
        deadline=start + args.limit,
    )
    facts["bytes a second to the device"] = rates = copy_rates(device)
    rows = measure_all(args.cards, bench)
    print(table(rows))
    print(f"to the device, bytes a second: {rates}; {perf_counter() - start:.0f} s in all")
    problems = [f"{row.card}: {problem}" for row in rows for problem in row.problems]
    print("\n".join(problems) or "no problems")
    if args.out:
        found = {"tiny": args.tiny, "machine": facts, "full size by arithmetic": computed}
        found["rows"] = [asdict(row) for row in rows]
        args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 1 if problems else 0


def measure_all(cases: Sequence[Case], bench: Bench) -> list[Row]:
    """The reference's row, then one per card; those there was no time for say so."""
    reference, expected = measure_plainly(bench)
    print(f"{reference.card}: {sum(reference.stages.values()):.1f} s", flush=True)
    rows = [reference]
    for case in cases:
        if perf_counter() > bench.deadline:
            rows.append(Row(str(case), problems=["left out: the time is up"]))
        else:
            rows.append(measure_card(case, bench, reference, expected))
    return rows


def _computed(case: Case) -> dict[str, str | int]:
    """Prints the full-size plan of a card, and returns it."""
    plan = computed_plan(case)
    words = plan.summary(full_sizes(), "bf16")
    print(f"full size at 1024x1024, computed: {case}: {words}, peak {plan.peak / GB:.1f} GB")
    return {"card": str(case), "plan": words, "peak": plan.peak}


if __name__ == "__main__":
    sys.exit(main())
