"""The memory plan: what of a FLUX pipeline lies in VRAM, what is offloaded and streamed.

A ladder of plans, from all on the card to streamed blocks; the first one within the budget counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..acceleration.kv_cache import KVCacheFormat
from .residency import PartSizes, Residency

GB = 10**9
NO_LIMIT = 10**15  # bytes: of a CPU, where weights are pages of their files
_MUCH_MORE = 1.2  # times the memory
_SPARE = 0.97  # of the budget is what streamed plans are cut to, so that they still fit next time
_LEAST_STREAMED = 4  # two buffers stand in for two blocks, so fewer would save nothing


@dataclass(frozen=True, kw_only=True)
class VramEstimate:
    """Bytes of the parts, and of the activations of their work.

    Attributes:
        transformer: by precision: whether its blocks are held in fp8.
        denoising: what a step of the transformer takes.
        decoding, tiled_decoding: what the VAE takes, whole and in tiles.
        table: the AdaLN table of all steps.
        kv_caches: the unmasked tokens' keys and values in each format, the best one first.
    """

    transformer: dict[bool, PartSizes]
    t5: PartSizes
    clip: PartSizes
    vae: PartSizes
    denoising: int
    encoding: int
    decoding: int
    tiled_decoding: int
    table: int
    kv_caches: Mapping[KVCacheFormat, int] = field(default_factory=dict)

    def kv_cache(self, kv_cache_format: KVCacheFormat | None) -> int:
        """What the KV cache takes in this format; None: there is no cache."""
        return 0 if kv_cache_format is None else self.kv_caches[kv_cache_format]


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What lies on the card, and how.

    Attributes:
        transformer: how it lies there, from its first use on.
        t5: resident, or streamed when there is a new prompt, and let go of after.
        tile: the VAE works in tiles.
        peak: bytes, by our arithmetic.
        budget: the bytes there were when it was chosen.
        kv_cache_format: see Placement.
    """

    transformer: Residency
    t5: Residency
    tile: bool
    peak: int
    budget: int
    kv_cache_format: KVCacheFormat | None = None

    def summary(self, sizes: VramEstimate, stored: str) -> str:
        """Such as "bf16 resident, T5 on demand". `stored`: the file's precision."""
        blocks = len(sizes.transformer[False].blocks)
        weights = "fp8" if self.transformer.fp8 else stored
        streamed = len(self.transformer.streamed)
        place = f"{streamed} of {blocks} blocks streamed" if streamed else "resident"
        text = "T5 on demand" if self.t5.streamed else "T5 resident"
        if self.tile:
            text += ", VAE in tiles"
        if sizes.kv_caches and self.kv_cache_format is None:
            text += ", no room to keep keys: no step of masked tokens alone"
        return f"{weights} {place}, {text}"


def choose_plan(sizes: VramEstimate, budget: int, precision: str, tile: bool) -> MemoryPlan | None:
    """The first plan of the ladder whose peak is within the budget; None if none is.

    Args:
        budget: bytes.
        precision: one of PRECISIONS; see LocalSpec.
        tile: the picture is so large that the VAE has to work in tiles.
    """
    return next((p for p in ladder(sizes, budget, precision, tile) if p.peak <= budget), None)


def with_kv_cache(plan: MemoryPlan, sizes: VramEstimate, budget: int) -> MemoryPlan:
    """The plan with a KV cache in the best format that there is room for; else without one."""
    plans = (
        _plan(sizes, plan.transformer, plan.t5, plan.budget, plan.tile, kv_cache_format)
        for kv_cache_format in sizes.kv_caches
    )
    return next((more for more in plans if more.peak <= budget), plan)


def steady_plan(
    plan: MemoryPlan, before: MemoryPlan, sizes: VramEstimate, budget: int, precision: str
) -> MemoryPlan:
    """The plan before, as long as it fits and there is not much more memory than when it was
    chosen: loading the transformer again costs more than it gains, free memory is never twice the
    same, and crops of two sizes would else throw it out in turn.
    """
    again = _plan(sizes, before.transformer, before.t5, budget, plan.tile)
    wanted = before.transformer.fp8 in _allowed(sizes, precision)
    if wanted and again.peak <= budget <= _MUCH_MORE * before.budget:
        return replace(again, budget=before.budget)
    return plan


def ladder(sizes: VramEstimate, budget: int, precision: str, tile: bool) -> Iterator[MemoryPlan]:
    """Plans from fast and large to slow and small; the streamed ones are cut to the budget."""
    first, *others = _allowed(sizes, precision)
    t5 = Residency(streamed=frozenset(range(len(sizes.t5.blocks))))
    yield _plan(sizes, Residency(fp8=first, hold_left_out=True), Residency(), budget, tile)
    for fp8 in (first, *others):
        yield _plan(sizes, Residency(fp8=fp8), Residency(), budget, tile)
        yield _plan(sizes, Residency(fp8=fp8), t5, budget, tile)
    fp8 = others[-1] if others else first
    for tiled in (tile, True):
        room = int(_SPARE * budget) - _beside(sizes, t5, tiled)
        streamed = fewest_streamed(sizes.transformer[fp8], room)
        yield _plan(sizes, Residency(fp8=fp8, streamed=streamed), t5, budget, tiled)


def _allowed(sizes: VramEstimate, precision: str) -> tuple[bool, ...]:
    """Whether the blocks may be made fp8, by preference; a quantised file stays as it is."""
    if sizes.transformer[True] == sizes.transformer[False]:
        return (False,)
    return {"auto": (False, True), "file": (False,), "fp8": (True,), "fp8 fast": (True,)}[precision]


def _plan(
    sizes: VramEstimate,
    transformer: Residency,
    t5: Residency,
    budget: int,
    tile: bool,
    kv_cache_format: KVCacheFormat | None = None,
) -> MemoryPlan:
    held = sizes.transformer[transformer.fp8].device_bytes(transformer)
    peak = held + _beside(sizes, t5, tile, sizes.kv_cache(kv_cache_format))
    return MemoryPlan(
        transformer=transformer,
        t5=t5,
        tile=tile,
        peak=peak,
        budget=budget,
        kv_cache_format=kv_cache_format,
    )


def _beside(sizes: VramEstimate, t5: Residency, tile: bool, kv_cache: int = 0) -> int:
    """What the transformer shares the card with, at most."""
    text = sizes.clip.device_bytes(Residency()) + sizes.t5.device_bytes(t5)
    decoding = sizes.tiled_decoding if tile else sizes.decoding
    painting = max(sizes.denoising + kv_cache, decoding)
    if t5.streamed:
        return (
            sizes.vae.device_bytes(Residency()) + sizes.table + max(text + sizes.encoding, painting)
        )
    return sizes.vae.device_bytes(Residency()) + sizes.table + text + max(sizes.encoding, painting)


def fewest_streamed(sizes: PartSizes, room: int) -> frozenset[int]:
    """Which blocks to stream so that the part takes no more than `room`, as few as possible and
    spread evenly: then a copy has the time of the resident blocks between, too. All of them if
    even that is too large.
    """
    count = len(sizes.blocks)
    # even numbers only: the last and the first block of a sweep then lie in different buffers
    for number in range(_LEAST_STREAMED, count + 1, 2):
        streamed = frozenset(index * count // number for index in range(number))
        if sizes.device_bytes(Residency(streamed=streamed)) <= room:
            return streamed
    return frozenset(range(count))
