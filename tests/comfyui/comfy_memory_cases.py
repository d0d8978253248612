"""Runs beside a ComfyUI's own modules: our parts among the models that it counts and moves.

    python comfy_memory_cases.py COMFYUI FOLDER --cpu --reserve-vram GB

Prints what every case found out, as JSON, for test_comfy_memory.py to judge.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from comfy_card import (
    ASKED,
    CARD,
    EVERYTHING,
    FILES,
    MB,
    ON_DEMAND,
    PARTS,
    PICTURE,
    RESERVED,
    RESIDENT,
    STREAMED,
    Sink,
    fresh,
    listed,
    loads,
    management,
    other,
    paint,
    part,
    placement,
    plan_words,
    really_held,
    right,
    transformer,
    wrong_books,
)
from onereward_pack.local_backend.offload.memory_plan import ladder
from torch import Tensor


def case_books() -> dict[str, Any]:
    """What ComfyUI knows of the parts while there is room for all."""
    fresh()
    image = paint()
    first = {"listed": listed(), "wrong": wrong_books(), "loads": loads()}
    first["sizes"] = {name: really_held(part(name)) for name in PARTS}
    weights = [image, *part("transformer").module.parameters()]
    first["of_inference_mode"] = sum(tensor.is_inference() for tensor in weights)
    first["right"] = [right(), right(num_images=2)]
    return first | {"loads_after": loads()}


def case_plans() -> dict[str, Any]:
    """Cards that hold all, T5 only while it encodes, or not even the transformer."""
    found = {}
    for budget in (RESIDENT, ON_DEMAND, STREAMED):
        fresh(budget + RESERVED)
        pictures = [right(), right(prompt="a dog")]
        found[plan_words()] = {
            "right": pictures, "wrong": wrong_books(), "listed": listed(), "loads": loads(),
            "over": CARD.most - CARD.size,
        }  # fmt: skip
    return found


class Neighbour(Sink):
    """Takes half of what ComfyUI reserves as soon as there is a plan."""

    def status(self, text: str) -> None:
        if not self.texts:
            CARD.size -= RESERVED // 2
        super().status(text)


def case_neighbour() -> dict[str, Any]:
    """A card that holds all of ours exactly, and another program that takes a little of it."""
    plans = ladder(placement()._sizes, EVERYTHING, "file", False)
    fresh([plan.peak for plan in plans][1] + RESERVED)
    paint(sink=Neighbour())
    return {"plan": plan_words(), "listed": listed(), "loads": loads()}


def case_others() -> dict[str, Any]:
    """Models of other nodes, loaded after ours and before."""
    fresh()
    paint()
    small, large = other(40 * MB), other(180 * MB)
    management.load_models_gpu([small])
    found = {"beside": {"listed": listed(), "small": small.loaded_size() // MB}}
    management.load_models_gpu([large])
    left = sum(really_held(part) for part in CARD.parts)
    found["after"] = {"listed": listed(), "held": left, "large": large.loaded_size() // MB}
    found["wrong"] = wrong_books()
    found["again"] = {"right": right(), "large": large.loaded_size() // MB, "listed": listed()}
    found["over"] = CARD.most - CARD.size
    return found


def all_tensors() -> list[Tensor]:
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]


def living(known: list[Tensor]) -> list[list[int]]:
    """The shapes of all large tensors with data that are not among the known."""
    ids = {id(tensor) for tensor in known}
    new = [t for t in all_tensors() if id(t) not in ids and not t.is_meta and t.numel() > 4096]
    return list({t.data_ptr(): list(t.shape) for t in new}.values())


def case_unload_all() -> dict[str, Any]:
    """ComfyUI's own button, on all and on streamed blocks."""
    found = {}
    for budget in (EVERYTHING, STREAMED + RESERVED):
        fresh(budget)
        known = all_tensors()
        paint()
        words, before = plan_words(), len(living(known))
        management.unload_all_models()
        parameters = [p for name in PARTS for p in part(name).module.parameters()]
        found[words] = {
            "before": before, "left": living(known), "listed": listed(),
            "bytes": [part(name).device_bytes for name in PARTS],
            "with_data": sum(not p.is_meta for p in parameters),
            "rows": sum(r.rows is not None for r in placement()._parts.table._rows.values()),
            "right": right(), "loads": loads(), "wrong": wrong_books(),
        }  # fmt: skip
    return found


@contextmanager
def failing_once(error: BaseException) -> Iterator[None]:
    """The third double block of the transformer that runs raises, and no other."""
    calls = count(1)

    def hook(*_: object) -> None:
        if next(calls) == 3:
            raise error

    blocks = part("transformer").module.transformer_blocks
    handles = [block.register_forward_pre_hook(hook) for block in blocks]
    yield
    for handle in handles:
        handle.remove()


def rung() -> int:
    """How far down the ladder the plan is."""
    sizes = placement()._sizes
    rungs = [(plan.transformer, plan.t5) for plan in ladder(sizes, CARD.size, "file", False)]
    return rungs.index((placement().plan.transformer, placement().plan.t5))


def case_out_of_memory() -> dict[str, Any]:
    """A card that has less than it says, in the words that drivers have for it."""
    kinds = {"torch": management.OOM_EXCEPTION("the card is full")}
    if hasattr(management, "is_oom"):
        kinds["driver"] = torch.AcceleratorError("CUDA error: out of memory")
    found = {}
    for kind, error in kinds.items():
        fresh()
        paint(replace(ASKED, num_inference_steps=1))
        before = rung()
        sink = Sink()
        with failing_once(error):
            image = paint(sink=sink)
        found[kind] = {
            "rungs": [before, rung()], "said": sink.texts[1],
            "right": [torch.equal(image, PICTURE), right()], "wrong": wrong_books(),
        }  # fmt: skip
    return found


def half_loaded(name: str) -> bool:
    return part(name).device_bytes > 0 and not whole(name)


def whole(name: str) -> bool:
    return name in listed()


def case_interrupted() -> dict[str, Any]:
    """Stopped while a part loads and between blocks, on a card for everything and for little."""
    third_block = len(placement()._parts.table.names) + 3
    everywhere = [
        (EVERYTHING, half_loaded, "t5", 1),
        (EVERYTHING, half_loaded, "transformer", 1),
        (EVERYTHING, whole, "transformer", third_block),
        (STREAMED + RESERVED, whole, "t5", 2),
        (STREAMED + RESERVED, half_loaded, "transformer", 1),
        (STREAMED + RESERVED, whole, "transformer", third_block),
    ]
    found: dict[str, Any] = {}
    for budget, state, name, times in everywhere:
        fresh(budget)
        case = found[f"{budget // MB} MB, {name} {state.__name__}"] = {"stopped": False}
        try:
            paint(sink=Sink(partial(state, name), times))
        except management.InterruptProcessingException:
            case["stopped"] = True
        case |= {"listed": listed(), "wrong": wrong_books(), "right": right()}
    return found


def case_interrupted_reload() -> dict[str, Any]:
    """T5 comes back beside a CLIP that is still there, and is stopped half-way."""
    fresh()
    paint()
    placement()._memory.unload(part("t5"))
    found: dict[str, Any] = {"stopped": False}
    try:
        paint(replace(ASKED, prompt="a dog"), Sink(partial(half_loaded, "t5")))
    except management.InterruptProcessingException:
        found["stopped"] = True
    return found | {"listed": listed(), "wrong": wrong_books(), "right": right(prompt="a dog")}


def case_reserve() -> dict[str, Any]:
    """Half of --reserve-vram is missing for the largest plan; and what would be without it."""
    largest = next(ladder(placement()._sizes, EVERYTHING, "file", False))
    size = largest.peak + RESERVED // 2
    found = {"reserved": RESERVED / 1024**3}
    for name, reserved in (("with", RESERVED), ("without", 0)):
        management.EXTRA_RESERVED_VRAM = reserved
        fresh(size)
        found[name] = {"right": right(), "rung": rung(), "left": CARD.size - CARD.most}
    management.EXTRA_RESERVED_VRAM = RESERVED
    return found


def case_in_turn() -> dict[str, Any]:
    """Two transformers, and what is left of the first when the second is at work."""
    fresh()
    second = replace(FILES, transformer=transformer(seed=3))
    right_before, other_picture, right_after = right(), paint(of=second), right()
    gc.collect()
    return {
        "right": [right_before, torch.equal(other_picture, PICTURE), right_after],
        "listed": len(management.current_loaded_models), "wrong": wrong_books(),
        "loaded": sum(p.residency is not None for p in CARD.parts), "there": len(CARD.parts),
    }  # fmt: skip


def found_out(case: Any) -> Any:
    try:
        return case()
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    cases = {name: case for name, case in globals().items() if name.startswith("case_")}
    facts = {name.removeprefix("case_"): found_out(case) for name, case in cases.items()}
    sys.stdout.write("\n" + json.dumps(facts))
