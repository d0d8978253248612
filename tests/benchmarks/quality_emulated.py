"""What a card's arithmetic does to the picture, emulated in float32. None of it is faster here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from onereward_pack.local_backend.acceleration.kv_cache import KVCacheFormat
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from torch import Tensor, nn

FP8 = torch.float8_e4m3fn
FP8_MOST = 448.0
NOISE = 1e-3


@contextmanager
def noisy(pipeline: OneRewardPipeline) -> Iterator[None]:
    """Every guided velocity gets noise of NOISE of its own size, root mean square: a floor, as
    large as a 16-bit format's rounding.
    """
    generator = torch.Generator().manual_seed(0)
    exact = pipeline.predict_velocity

    def rounded(*arguments: Any) -> Tensor:
        velocity = exact(*arguments)
        noise = torch.randn(velocity.shape, generator=generator)
        return velocity + NOISE * velocity.square().mean().sqrt() * noise

    with patch.object(pipeline, "predict_velocity", rounded):
        yield


@contextmanager
def fp8_linears(pipeline: OneRewardPipeline) -> Iterator[None]:
    """The blocks' linear layers but AdaLN's take weights of fp8 by rows and inputs of fp8 by
    tokens, as fp8 matrix products do; the sums are exact.
    """
    linears = list(block_linears(pipeline.transformer))
    weights = [linear.weight.data for linear in linears]
    hooks = [linear.register_forward_pre_hook(_fp8_input) for linear in linears]
    try:
        for linear in linears:
            linear.weight.data = fp8(linear.weight.data)
        yield
    finally:
        for linear, weight, hook in zip(linears, weights, hooks, strict=True):
            linear.weight.data = weight
            hook.remove()


@contextmanager
def fp8_memory(pipeline: OneRewardPipeline) -> Iterator[None]:
    """The kept tokens' keys and values are remembered in fp8, as on a card that is nearly full."""
    with patch.object(pipeline.placement, "kv_cache_format", KVCacheFormat(FP8, change=True)):
        yield


def block_linears(transformer: nn.Module) -> Iterator[nn.Linear]:
    """The linear layers that hold nearly all of a FLUX transformer's work."""
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("norm"):
                yield module


def fp8(values: Tensor) -> Tensor:
    """Rounded to fp8 with a scale per row."""
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-12) / FP8_MOST
    return (values / scale).to(FP8).to(values.dtype) * scale


def _fp8_input(linear: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (fp8(arguments[0]), *arguments[1:])
