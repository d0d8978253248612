"""What the user chose for speed beside a level: arithmetic in 8 bits, compiled blocks, and the
attention that is measured to be the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ...nodes.contracts import ProgressSink
from ..acceleration.attention_backend import describe, fastest, timings, use_backend
from ..acceleration.block_compile import CompiledBlocks
from ..checkpoints.model_paths import ModelPaths
from ..quantization.fp8 import can_multiply
from .devices import holds_fp8
from .model_part import ModelPart

FAST = "fp8 fast"
_COMPILING = "compiling the blocks; once, about half a minute"


class RuntimeOptions:
    """The choices for one transformer. Blocks that are compiled already keep the attention that was
    chosen then: the compiler writes it into its code.

    Attributes:
        notes: what became of them, for the user.
    """

    def __init__(self, transformer: ModelPart, device: torch.device) -> None:
        self._part, self._device = transformer, device
        self._compiled = CompiledBlocks(transformer.blocks)
        self._measures = False
        self._fp8_notes: tuple[str, ...] = ()
        self._attention_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        compiled = ("compiled blocks",) if self._compiled.on else ()
        return (*self._fp8_notes, *compiled, *self._attention_notes)

    def adapt(self, files: ModelPaths, unload: Callable[[ModelPart], None]) -> None:
        """Takes these files' choices over; `unload` empties the transformer if its arithmetic is
        another one now.

        Raises:
            LocalBackendError: there is nothing to compile with.
        """
        self._compiled.turn(files.compile, self._device)
        multiply = files.precision == FAST and can_multiply(self._device, self._part.dtype)
        if multiply != self._part.weights.fp8_products:
            unload(self._part)
            self._part.weights.fp8_products = multiply
        self._fp8_notes = self._describe_fp8(files.precision, multiply)
        self._measures = files.attention == "fastest"
        if not self._measures:
            self._attention_notes = ()

    @contextmanager
    def running(self, tokens: int, progress: ProgressSink) -> Iterator[None]:
        """The transformer, loaded, runs inside; `tokens`: of the picture and of the text."""
        attention, compiling = self._attention(tokens), partial(progress.status, _COMPILING)
        with use_backend(attention), self._compiled.run(compiling):
            yield

    def _attention(self, tokens: int) -> str | None:
        if not self._measures:
            return None
        config: Any = self._part.module.config
        heads, width = config.num_attention_heads, config.attention_head_dim
        shape = (self._device, self._part.dtype, heads, width, tokens)
        name = fastest(*shape)
        self._attention_notes = (describe(timings(*shape), name),)
        return name

    def _describe_fp8(self, precision: str, multiply: bool) -> tuple[str, ...]:
        if precision in ("fp8", FAST) and not holds_fp8(self._device):
            kind = self._device.type
            return (f"{precision}: {kind} devices cannot hold fp8; weights as the file has them",)
        if precision != FAST:
            return ()
        plain = str(self._part.dtype).removeprefix("torch.").replace("bfloat16", "bf16")
        able, layers = self._part.weights.count_fp8_products()
        if not multiply:
            summary = f"this card cannot multiply fp8; weights in fp8, arithmetic in {plain}"
        elif not able:
            summary = f"the file's weights cannot be multiplied as they are; arithmetic in {plain}"
        elif able < layers:
            summary = f"arithmetic in fp8 in {able} of {layers} layers"
        else:
            summary = "arithmetic in fp8"
        return (f"{FAST}: {summary}",)
