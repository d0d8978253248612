"""What an estimate remembers of the last runs, and how much of it."""

from __future__ import annotations

import pytest
import torch
from onereward_pack.nodes.edit.plan import BatchSize
from onereward_pack.nodes.estimate import inputs
from onereward_pack.nodes.estimate.inputs import (
    NODES,
    BoundedCache,
    last_run,
    remember_run,
    to_uint8,
)
from torch import Tensor


def picture(height: int = 4, width: int = 6, count: int = 1) -> Tensor:
    return torch.zeros(count, height, width, 3)


def test_a_node_remembers_its_last_run_only() -> None:
    remember_run("memory 1", picture(), torch.ones(1, 4, 6))
    mask = torch.tensor([[[0.0, 0.5, 1.0]]])
    remember_run("memory 1", picture(8, 9, 2), mask)
    last = last_run("memory 1")
    assert last is not None
    assert last.source == BatchSize(2, 8, 9)
    assert last.mask is not None and last.mask.tolist() == [[[0, 128, 255]]]


def test_an_extension_has_no_mask_to_remember() -> None:
    remember_run("memory 2", picture(), None)
    last = last_run("memory 2")
    assert last is not None and last.mask is None


def test_a_node_that_never_ran_is_not_known() -> None:
    assert last_run("memory of nothing") is None


def test_the_nodes_that_ran_longest_ago_are_forgotten() -> None:
    for number in range(NODES + 1):
        remember_run(f"many {number}", picture(), None)
    assert last_run("many 0") is None and last_run("many 1") is not None


def test_a_mask_that_is_too_large_is_left_out_and_the_size_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "BYTES", 23)
    remember_run("memory 3", picture(), torch.ones(1, 4, 6))
    last = last_run("memory 3")
    assert last is not None and last.mask is None and last.source.width == 6


def test_remembering_keeps_no_hold_on_the_runs_own_mask() -> None:
    mask = torch.zeros(1, 4, 6)
    remember_run("memory 4", picture(), mask)
    mask += 1
    last = last_run("memory 4")
    assert last is not None and last.mask is not None and not last.mask.any()


def test_values_become_bytes() -> None:
    mask = torch.tensor([-1.0, 0.0, 0.1, 0.4999, 1.0, 2.0, float("nan")])
    assert to_uint8(mask).tolist() == [0, 0, 26, 127, 255, 255, 0]


def test_a_cache_keeps_what_was_used_last_by_bytes() -> None:
    cache: BoundedCache[bytes] = BoundedCache(10, 8, len)
    cache.put("a", b"1234")
    cache.put("b", b"5678")
    assert cache.get("a") == b"1234"
    cache.put("c", b"90")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1234", None, b"90")


def test_a_cache_keeps_nothing_that_alone_is_too_large() -> None:
    cache: BoundedCache[bytes] = BoundedCache(10, 8, len)
    cache.put("a", b"123456789")
    assert cache.get("a") is None


def test_a_cache_counts_what_is_put_in_place_of_another_once() -> None:
    cache: BoundedCache[bytes] = BoundedCache(2, 8, len)
    cache.put("a", b"12345678")
    cache.put("a", b"12345678")
    cache.put("b", b"")
    assert cache.get("a") == b"12345678" and cache.get("b") == b""
