"""Which plan a card gets: the real model's sizes, and the rules of the ladder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from onereward_pack.local_backend.acceleration.kv_cache import kv_cache_formats
from onereward_pack.local_backend.offload.memory_plan import (
    GB,
    VramEstimate,
    choose_plan,
    fewest_streamed,
    ladder,
    steady_plan,
    with_kv_cache,
)
from onereward_pack.local_backend.offload.residency import PartSizes, Residency
from onereward_pack.nodes.contracts import PRECISIONS

# FLUX.1-Fill as it is published: 19 double and 38 single blocks, in bf16 and in fp8
BF16 = PartSizes(
    rest=130_216_064, blocks=(453_096_448,) * 19 + (226_542_080,) * 38, left_out=6_457_135_104
)
FP8 = replace(BF16, blocks=(226_825_216,) * 19 + (113_394_176,) * 38)
SIZES = VramEstimate(
    transformer={False: BF16, True: FP8},
    t5=PartSizes(rest=263_200_768, blocks=(385_892_352,) * 24),
    clip=PartSizes(rest=246_120_960),
    vae=PartSizes(rest=167_639_366),
    denoising=1_094_713_344,
    encoding=364_904_448,
    decoding=2_579_496_960,
    tiled_decoding=661_651_456,
    table=117_669_888,
)


def card(gib: int) -> int:
    """What such a card has left beside a desktop and ComfyUI's reserve."""
    return int(gib * 2**30 * 0.97 - 1.2 * GB)


@pytest.mark.parametrize(
    ("gib", "precision", "words"),
    [
        (80, "auto", "bf16 resident, T5 resident"),
        (32, "auto", "bf16 resident, T5 resident"),
        (24, "auto", "bf16 resident, T5 on demand"),
        (24, "file", "bf16 resident, T5 on demand"),
        (24, "fp8", "fp8 resident, T5 resident"),
        (24, "fp8 fast", "fp8 resident, T5 resident"),
        (16, "auto", "fp8 resident, T5 on demand"),
        (16, "file", "bf16 22 of 57 blocks streamed, T5 on demand"),
        (12, "auto", "fp8 8 of 57 blocks streamed, T5 on demand"),
        (8, "auto", "fp8 34 of 57 blocks streamed, T5 on demand"),
        (6, "auto", "fp8 48 of 57 blocks streamed, T5 on demand"),
    ],
)
def test_each_card_gets_its_plan(gib: int, precision: str, words: str) -> None:
    plan = choose_plan(SIZES, card(gib), precision, tile=False)
    assert plan is not None
    assert plan.summary(SIZES, "bf16") == words
    assert plan.peak <= card(gib)


def test_the_largest_cards_keep_what_the_table_is_made_from() -> None:
    plans = [choose_plan(SIZES, card(gib), "auto", tile=False) for gib in (48, 24)]
    assert [plan is not None and plan.transformer.hold_left_out for plan in plans] == [True, False]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tile", [False, True])
def test_less_memory_never_gets_a_larger_plan(precision: str, tile: bool) -> None:
    peaks = []
    for budget in range(GB, 40 * GB, GB // 4):
        plan = choose_plan(SIZES, budget, precision, tile)
        assert plan is None or plan.peak <= budget
        peaks.append(0 if plan is None else plan.peak)
    assert peaks == sorted(peaks)
    assert peaks[0] == 0 < peaks[20] < peaks[-1]


def test_a_file_s_own_precision_is_kept_when_that_was_asked_for() -> None:
    for budget in range(4 * GB, 40 * GB, GB):
        assert not any(plan.transformer.fp8 for plan in ladder(SIZES, budget, "file", False))
        assert all(plan.transformer.fp8 for plan in ladder(SIZES, budget, "fp8", False))


def test_a_large_picture_is_always_tiled() -> None:
    for budget in (80 * GB, 12 * GB):
        assert all(plan.tile for plan in ladder(SIZES, budget, "auto", True))


def test_where_nothing_fits_there_is_no_plan() -> None:
    assert choose_plan(SIZES, GB, "auto", tile=True) is None


def test_streamed_blocks_are_few_even_in_number_and_spread() -> None:
    streamed = fewest_streamed(BF16, 14 * GB)
    assert BF16.device_bytes(Residency(streamed=streamed)) <= 14 * GB
    assert len(streamed) % 2 == 0
    fewer = frozenset(sorted(streamed)[: len(streamed) - 2])
    assert BF16.device_bytes(Residency(streamed=fewer)) > 14 * GB
    ordered = sorted(streamed)
    gaps = {after - before for before, after in zip(ordered, ordered[1:], strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_a_part_without_room_streams_every_block() -> None:
    assert fewest_streamed(BF16, 0) == frozenset(range(57))


def test_a_streamed_part_holds_two_buffers_of_its_largest_block() -> None:
    sizes = PartSizes(rest=10, blocks=(4, 6, 3, 8), left_out=100)
    assert sizes.device_bytes(Residency()) == 31
    assert sizes.device_bytes(Residency(hold_left_out=True)) == 131
    assert sizes.device_bytes(Residency(streamed=frozenset({0, 1, 2}))) == 10 + 8 + 2 * 6
    assert sizes.device_bytes(Residency(streamed=frozenset({0, 1, 2, 3}))) == 10 + 2 * 8


def settled(
    before: int, now: int, precision: str = "auto", **work: int
) -> tuple[Residency, Residency]:
    """How the transformer lay, and how it lies when there are `now` bytes and this work to do."""
    old = choose_plan(SIZES, before, precision, tile=False)
    sizes = replace(SIZES, **work)
    new = choose_plan(sizes, now, precision, tile=False)
    assert old is not None and new is not None
    steady = steady_plan(new, old, sizes, now, precision)
    assert steady.peak <= now
    return old.transformer, steady.transformer


@pytest.mark.parametrize("change", [-150_000_000, -50_000_000, 50_000_000, 900_000_000])
@pytest.mark.parametrize("gib", [6, 8, 16, 24, 48])
def test_a_little_more_or_less_memory_moves_nothing(gib: int, change: int) -> None:
    before, now = settled(card(gib), card(gib) + change, "file")
    assert before == now


def test_much_more_memory_is_used_and_much_less_is_kept_to() -> None:
    assert settled(card(8), card(24))[1] == Residency()
    before, now = settled(card(16), card(8))
    assert not before.streamed and now.streamed
    before, now = settled(card(8), card(6))
    assert len(now.streamed) > len(before.streamed)


@pytest.mark.parametrize("gib", [8, 12, 16, 20, 24])
def test_a_smaller_picture_moves_nothing(gib: int) -> None:
    before, now = settled(card(gib), card(gib), denoising=300_000_000, decoding=650_000_000)
    assert before == now


def test_another_precision_is_never_put_off() -> None:
    fp8 = choose_plan(SIZES, card(16), "auto", tile=False)
    file = choose_plan(SIZES, card(16), "file", tile=False)
    assert fp8 is not None and file is not None and fp8.transformer.fp8
    assert steady_plan(file, fp8, SIZES, card(16), "file") == file


def test_a_quantised_file_is_not_made_fp8() -> None:
    sizes = replace(SIZES, transformer={False: FP8, True: FP8})
    for gib in (6, 8, 12, 16, 24):
        for precision in PRECISIONS:
            plan = choose_plan(sizes, card(gib), precision, tile=False)
            assert plan is not None and not plan.transformer.fp8
            assert plan.summary(sizes, "GGUF").startswith("GGUF")


def keys_on(gib: int) -> tuple[str, str, bool]:
    """How a card holds the weights, and the keys of a 20 % mask at 1024x1024."""
    ways = kv_cache_formats(torch.device("cuda"), torch.bfloat16)
    sizes = replace(
        SIZES, kv_caches=dict(zip(ways, (8_778_000_000, 4_526_000_000, 2_263_000_000), strict=True))
    )
    plain = choose_plan(sizes, card(gib), "auto", tile=False)
    assert plain is not None
    plan = with_kv_cache(plain, sizes, card(gib))
    assert plan.peak <= card(gib)
    assert (plan.transformer, plan.t5) == (plain.transformer, plain.t5)
    kept = (
        ""
        if plan.kv_cache_format is None
        else f"{plan.kv_cache_format.dtype}".removeprefix("torch.")
    )
    words = plan.summary(sizes, "bf16")
    assert ("no room to keep keys" in words) is (plan.kv_cache_format is None)
    return (
        words.partition(",")[0],
        kept,
        plan.kv_cache_format is not None and plan.kv_cache_format.change,
    )


def test_keys_are_kept_in_the_best_way_there_is_room_for() -> None:
    assert keys_on(80) == ("bf16 resident", "bfloat16", True)
    assert keys_on(24) == ("bf16 resident", "float8_e4m3fn", True)
    assert keys_on(16) == ("fp8 resident", "float8_e4m3fn", True)
    assert keys_on(14) == ("fp8 resident", "float8_e4m3fn", False)
    assert keys_on(8) == ("fp8 34 of 57 blocks streamed", "", False)


def test_a_level_that_keeps_no_keys_has_the_plan_of_before() -> None:
    plan = choose_plan(SIZES, card(24), "auto", tile=False)
    assert plan is not None
    assert with_kv_cache(plan, SIZES, card(24)) is plan
    assert "keys" not in plan.summary(SIZES, "bf16")
