"""Regional compilation: torch.compile on the transformer's repeated blocks, not on the whole.

diffusers has it as compile_repeated_blocks. There are two kinds of block, so two graphs for all.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...nodes.errors import LocalBackendError

_REMEDY = "Turn compile off on OneReward Local Backend, or install"
_OLDEST = (7, 0)  # CUDA capability that Triton makes code for
_OLDEST_TORCH = (2, 8)  # before, each block was a kind of its own: 57 graphs a size
# torch gives up at 8, which a session with some sizes, LoRAs and levels of acceleration passes.
_MOST_GRAPHS = 64


class CompiledBlocks:
    """Compiles blocks, and puts their own code back. What hooks do stays outside the graphs: they
    stream weights, and ask whether the user wants to stop.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self._blocks = blocks
        self.on = False

    def turn(self, on: bool, device: torch.device) -> None:
        """Compiled from the next run on, or not any more.

        Raises:
            LocalBackendError: there is nothing to compile with.
        """
        if on == self.on:
            return
        if on:
            check_compiler(device)
        for block in self._blocks:
            if on:
                block.forward = _compiled(block.forward)
            else:
                del block.forward  # the class has the block's own
        self.on = on

    @contextmanager
    def run(self, started: Callable[[], None]) -> Iterator[None]:
        """Blocks run inside; `started` is called the first time that one has to be compiled: for a
        first size, for a second one and with it all that follow, and for another kind of work.
        """
        if not self.on:
            yield
            return
        with _room_for_graphs(), _notified(started):
            yield


def check_compiler(device: torch.device) -> None:
    """LocalBackendError unless there is what torch compiles with for this device."""
    missing = _missing(device)
    if missing:
        raise LocalBackendError(
            f"compile is on, and this {device.type} device lacks {missing}. {_REMEDY} it."
        )


def explain(error: RuntimeError) -> None:
    """LocalBackendError if this is the compiler's own error; nothing if not."""
    module = sys.modules.get("torch._dynamo.exc")  # there is none where nothing was compiled
    if module is not None and isinstance(error, module.TorchDynamoException):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]).rstrip(".")  # the rest is for torch's own developers
        raise LocalBackendError(
            f"torch could not compile the blocks: {reason}. {_REMEDY} what it misses."
        ) from error


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(forward, fullgraph=True)

    def run(hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        # The first block is given a view, the others are not; detached, one graph does for all.
        return compiled(hidden_states.detach(), *others, **named)

    return run


def _missing(device: torch.device) -> str:
    """What the compiler lacks, as text for the user; empty if nothing is missing."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST_TORCH:
        oldest = ".".join(map(str, _OLDEST_TORCH))
        return f"torch {oldest} or later (this is {torch.__version__})"
    if device.type == "cpu":
        usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX", usual)
        return "" if shutil.which(compiler) else f"the C++ compiler {compiler}"
    if device.type not in ("cuda", "xpu"):
        return "a compiler of torch's"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _OLDEST:
        return "the capability 7.0 that Triton needs"
    if importlib.util.find_spec("triton") is None:
        return "the package triton (triton-windows on Windows)"
    # on Windows the package brings its own
    compilers = [os.environ.get("CC", "cc"), "gcc", "clang"]
    if sys.platform != "win32" and not any(shutil.which(name) for name in compilers):
        return "a C compiler, such as gcc"
    return ""


@contextmanager
def _room_for_graphs() -> Iterator[None]:
    """More graphs of one block's code than torch allows by itself, in this thread."""
    import torch._dynamo.config as config  # it takes a second, so only where it is wanted

    with config.patch(recompile_limit=max(_MOST_GRAPHS, config.recompile_limit)):
        yield


@contextmanager
def _notified(started: Callable[[], None]) -> Iterator[None]:
    """Calls `started` at the first graph that torch compiles inside."""
    from torch._dynamo.callback import callback_handler

    notified = False

    def notify(*_: object) -> None:
        nonlocal notified
        if not notified:
            notified = True
            started()

    callback_handler.register_start_callback(notify)
    try:
        yield
    finally:
        callback_handler.remove_start_callback(notify)
