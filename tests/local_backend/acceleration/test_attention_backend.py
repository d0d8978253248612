"""Which attention runs is measured, chosen inside, and put back."""

from __future__ import annotations

import pytest
import torch
from onereward_pack.local_backend.acceleration import attention_backend
from onereward_pack.local_backend.acceleration.attention_backend import (
    describe,
    fastest,
    timings,
    use_backend,
)
from torch.backends import cuda
from torch.nn.functional import scaled_dot_product_attention

CPU = torch.device("cpu")
SHAPE = (torch.device("cuda"), torch.bfloat16, 24, 128)
TIMES = {"default": 1.0, "cuDNN": 1.01, "flash": 1.8, "efficient": 3.5}


def switches() -> tuple[bool, ...]:
    """What torch may take, in this process."""
    return (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
        cuda.math_sdp_enabled(),
    )


def test_a_processor_has_nothing_to_choose_from() -> None:
    assert timings(CPU, torch.float32, 2, 32, 64) == {}
    assert fastest(CPU, torch.float32, 2, 32, 64) is None
    assert describe({}, None) == "attention: this device has one kind only"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, None),
        ({"cuDNN": 0.99}, None),  # no more than noise
        ({"cuDNN": 0.9}, "cuDNN"),
        ({"flash": 0.8, "cuDNN": 0.9}, "flash"),
    ],
)
def test_the_fastest_is_taken_if_it_is_worth_it(
    changes: dict[str, float], name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = TIMES | changes
    monkeypatch.setattr(attention_backend, "_measure", lambda *_: times)
    assert fastest(*SHAPE, 4608) == name
    words = describe(times, name)
    assert words.startswith(f"attention: {name or 'torch'}")
    assert f"default {times['default']:.2f}" in words


def test_sizes_of_a_class_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        attention_backend, "_measure", lambda *shape: asked.append(shape[-1]) or TIMES
    )
    for tokens in (4500, 4608, 4609):
        fastest(*SHAPE, tokens)
    assert asked == [4608, 4608, 4864]  # equal ones come from the cache


def test_each_kind_is_measured_that_the_card_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []
    monkeypatch.setattr(
        attention_backend, "_milliseconds", lambda *_: allowed.append(switches()) or 1.0
    )
    monkeypatch.setattr(attention_backend, "_runs", lambda *_: not cuda.mem_efficient_sdp_enabled())
    times = attention_backend._measure.__wrapped__(CPU, torch.float32, 2, 32, 64)
    assert set(times) == {"default", *attention_backend.BACKENDS} - {"efficient"}
    assert allowed[0] == switches()  # torch's own choice is measured as it is
    assert all(sum(kinds) == 1 for kinds in allowed[1:])


@pytest.mark.parametrize("name", [*attention_backend.BACKENDS, None])
def test_the_choice_holds_inside_and_the_process_is_as_before(name: str | None) -> None:
    before = switches()
    with pytest.raises(KeyboardInterrupt), use_backend(name):
        inside = switches()
        values = torch.randn(1, 2, 8, 16)
        scaled_dot_product_attention(values, values, values)  # still runs
        raise KeyboardInterrupt
    assert switches() == before
    assert inside == before if name is None else sum(inside) == 2
