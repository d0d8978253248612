"""Blocks from two buffers give what resident blocks give, whatever the order of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from onereward_pack.local_backend.offload.block_streaming import (
    BlockStreamer,
    CopyQueue,
    Pairs,
    TensorSlot,
    copy_queue_for,
    lay_out,
    pack,
)
from torch import Tensor, nn

CPU = torch.device("cpu")
WIDTH = 5


class Block(nn.Module):
    """A parameter and a buffer, of odd sizes and two dtypes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(number)
        weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("shift", torch.tensor(float(number), dtype=torch.bfloat16))

    def forward(self, states: Tensor) -> Tensor:
        return torch.tanh(states @ self.weight + self.shift)


class LateQueue:
    """A device on which everything happens as late as the waits allow: a copy is done only when
    the computation waits for it, and those that were asked for before it.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[int, Tensor, Tensor]] = []
        self.count = 0

    def copy(self, pairs: Pairs, after: Any) -> int:
        self.count += 1
        self.pending += [(self.count, target, source) for target, source in pairs]
        return self.count

    def wait(self, event: int) -> None:
        while self.pending and self.pending[0][0] <= event:
            _, target, source = self.pending.pop(0)
            target.copy_(source)

    def mark(self) -> None:
        return None


class EarlyQueue(CopyQueue):
    """A device whose copies are done at once: one into a buffer that a block still computes from,
    without waiting for that block's end, is an error.
    """

    def __init__(self) -> None:
        self.marks = 0
        self.used_until: dict[int, int] = {}

    def copy(self, pairs: Pairs, after: int | None) -> int:
        buffer = pairs[0][0].untyped_storage().data_ptr()
        assert self.used_until.get(buffer, 0) <= (after or 0), "overwritten while it was read"
        super().copy(pairs, None)
        return buffer

    def wait(self, event: int) -> None:
        self.used_until[event] = self.marks + 1  # a block begins, which ends at the next mark

    def mark(self) -> int:
        self.marks += 1
        return self.marks


def make_blocks(count: int) -> list[Block]:
    return [Block(number) for number in range(count)]


def stream(blocks: list[Block], queue: Any = None, prepare: Any = pack) -> BlockStreamer:
    contents = [
        prepare(
            [
                (TensorSlot((block, "weight")), block.weight),
                (TensorSlot((block, "shift")), block.shift),
            ]
        )
        for block in blocks
    ]
    return BlockStreamer(blocks, contents, CPU, queue)


def run(blocks: list[Block], states: Tensor) -> Tensor:
    for block in blocks:
        states = block(states)
    return states


@pytest.fixture(params=[CopyQueue, LateQueue, EarlyQueue])
def queue(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield request.param()


@pytest.mark.parametrize("prepare", [pack, lay_out])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_streamed_blocks_equal_resident_ones_over_several_sweeps(
    count: int, prepare: Any, queue: Any
) -> None:
    states = torch.randn(2, WIDTH, dtype=torch.float64)
    expected = [states]
    for _ in range(3):
        expected.append(run(make_blocks(count), expected[-1]))
    blocks = make_blocks(count)
    stream(blocks, queue, prepare)
    for before, after in zip(expected, expected[1:], strict=False):
        assert torch.equal(run(blocks, before), after)


@pytest.mark.parametrize("count", [4, 7])
def test_a_sweep_copies_each_block_once(count: int) -> None:
    blocks = make_blocks(count)
    streamer = stream(blocks)
    for sweeps in range(1, 4):
        run(blocks, torch.zeros(1, WIDTH, dtype=torch.float64))
        assert streamer.copies == sweeps * count + 1  # and the first block of the next one


@pytest.mark.parametrize("stop", range(5))
def test_a_run_after_one_that_was_broken_off_is_right(stop: int, queue: Any) -> None:
    states = torch.randn(2, WIDTH, dtype=torch.float64)
    expected = run(make_blocks(5), states)
    blocks = make_blocks(5)
    stream(blocks, queue)
    run(blocks[:stop], states)
    assert torch.equal(run(blocks, states), expected)


def test_a_block_that_fails_leaves_the_next_run_right() -> None:
    blocks = make_blocks(5)
    states = torch.randn(2, WIDTH, dtype=torch.float64)
    stream(blocks)
    with pytest.raises(RuntimeError):
        run(blocks, torch.randn(2, WIDTH + 1, dtype=torch.float64))
    assert torch.equal(run(blocks, states), run(make_blocks(5), states))


def test_resident_blocks_may_stand_between() -> None:
    blocks = make_blocks(9)
    states = torch.randn(2, WIDTH, dtype=torch.float64)
    stream([blocks[1], blocks[4], blocks[6], blocks[8]])
    assert torch.equal(run(blocks, states), run(make_blocks(9), states))


def test_both_buffers_are_as_large_as_the_largest_block() -> None:
    streamer = stream(make_blocks(4))
    assert streamer.device_bytes == 2 * 2 * 256  # weight and shift, each on a place of 256 bytes


@pytest.mark.parametrize("prepare", [pack, lay_out])
def test_a_block_of_one_tensor_keeps_its_values(prepare: Any) -> None:
    blocks = make_blocks(2)
    expected = [block.weight.clone() for block in blocks]
    contents = [prepare([(TensorSlot((block, "weight")), block.weight)]) for block in blocks]
    BlockStreamer(blocks, contents, CPU)
    for block, weight in zip(blocks, expected, strict=True):
        block(torch.zeros(1, WIDTH, dtype=torch.float64))
        assert torch.equal(block.weight, weight)


def test_closing_lets_go_of_the_blocks() -> None:
    blocks = make_blocks(4)
    streamer = stream(blocks)
    streamer.close()
    copies = streamer.copies
    run(blocks, torch.zeros(1, WIDTH, dtype=torch.float64))
    assert streamer.copies == copies


def test_the_buffers_are_not_let_go_of_while_they_are_written() -> None:
    queue = LateQueue()
    blocks = make_blocks(4)
    streamer = stream(blocks, queue)
    run(blocks[:1], torch.zeros(1, WIDTH, dtype=torch.float64))
    assert queue.pending
    streamer.close()
    assert queue.pending == []


def test_a_slot_goes_back_to_what_it_was() -> None:
    block = Block(1)
    first = block.weight
    for slot in (weight := TensorSlot((block, "weight")), shift := TensorSlot((block, "shift"))):
        slot.put(torch.zeros(2))
    assert block.weight.shape == block.shift.shape == (2,)
    weight.clear(), shift.clear()
    assert block.weight is first
    assert block.shift is None


def test_modules_that_share_a_tensor_share_a_slot() -> None:
    one, other = Block(1), Block(2)
    TensorSlot((one, "weight"), (other, "weight")).put(torch.zeros(2))
    assert one.weight is other.weight


def test_a_device_without_streams_copies_at_once() -> None:
    assert isinstance(copy_queue_for(CPU), CopyQueue)


def forget_to_wait(queue: Any) -> Callable[[Any], None]:
    return lambda event: None


def test_the_late_lane_sees_a_missing_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = LateQueue()
    monkeypatch.setattr(queue, "wait", forget_to_wait(queue))
    states = torch.randn(2, WIDTH, dtype=torch.float64)
    blocks = make_blocks(4)
    for buffer in (streamer := stream(blocks, queue))._buffers:
        buffer.zero_()
    assert not torch.equal(run(blocks, states), run(make_blocks(4), states))
    assert streamer.copies > 0


def test_the_early_lane_sees_a_buffer_that_is_overwritten() -> None:
    queue = EarlyQueue()
    buffer, source = torch.zeros(4), torch.ones(4)
    queue.wait(queue.copy([(buffer, source)], None))
    with pytest.raises(AssertionError, match="overwritten"):
        queue.copy([(buffer, source)], None)
    queue.copy([(buffer, source)], queue.mark())
