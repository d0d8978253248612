"""The attention backend: which of torch's SDPA kernels is the fastest on this card, measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

# torch before 2.5 has no cuDNN; what a card cannot run is left out as it is measured.
BACKENDS: Mapping[str, SDPBackend] = {
    short: getattr(SDPBackend, name)
    for short, name in (
        ("cuDNN", "CUDNN_ATTENTION"),
        ("flash", "FLASH_ATTENTION"),
        ("efficient", "EFFICIENT_ATTENTION"),
    )
    if hasattr(SDPBackend, name)
}
DEFAULT = "default"
_TOKENS = 256  # a token count is rounded up to a multiple of this before it is measured
_RUNS = 5
_WORTH = 0.97  # of the default's time: less of a gain is noise
_BRANCHES = 2


def fastest(
    device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, tokens: int
) -> str | None:
    """The one of BACKENDS that beats what torch takes by itself, or None. Measured once for each
    device and class of sizes, in some milliseconds.

    Raises:
        torch.OutOfMemoryError: there is no memory for four tensors of that shape.
    """
    times = timings(device, dtype, heads, head_dim, tokens)
    if not times:
        return None
    best = min(times, key=lambda name: times[name])
    return best if best in BACKENDS and times[best] < _WORTH * times[DEFAULT] else None


def timings(
    device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, tokens: int
) -> Mapping[str, float]:
    """Milliseconds of each backend that the device can run, and of torch's own choice, "default".
    Empty off CUDA, where there is no choice.
    """
    if device.type != "cuda":
        return {}
    return _measure(device, dtype, heads, head_dim, -(-tokens // _TOKENS) * _TOKENS)


def use_backend(name: str | None) -> AbstractContextManager[None]:
    """Attention runs on this one of BACKENDS inside, where it can; None: as torch chooses."""
    if name is None:
        return nullcontext()
    # the plain one is for shapes that the chosen one refuses; torch takes it last
    return sdpa_kernel([BACKENDS[name], SDPBackend.MATH])


def describe(times: Mapping[str, float], name: str | None) -> str:
    """What was chosen, and by how much, for the user."""
    if not times:
        return "attention: this device has one kind only"
    rest = ", ".join(f"{n} {t:.2f}" for n, t in sorted(times.items(), key=lambda pair: pair[1]))
    if name is None:
        return f"attention: torch's own choice is the fastest ({rest} ms)"
    return f"attention: {name} ({rest} ms)"


@functools.cache
def _measure(
    device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, tokens: int
) -> Mapping[str, float]:
    shape = (_BRANCHES, heads, tokens, head_dim)
    query, key, value = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))

    def attend() -> Tensor:
        return scaled_dot_product_attention(query, key, value)

    times = {DEFAULT: _milliseconds(attend, device)}
    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            if _runs(attend):
                times[name] = _milliseconds(attend, device)
    return times


def _runs(attend: Callable[[], Tensor]) -> bool:
    try:
        attend()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # torch: no available kernel
        return False
    return True


def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of some runs."""
    best = float("inf")
    for _ in range(_RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(torch.cuda.current_stream(device))
        work()
        end.record(torch.cuda.current_stream(device))
        end.synchronize()
        best = min(best, start.elapsed_time(end))
    return best
