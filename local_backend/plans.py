"""How a FLUX pipeline fits a card: a ladder of plans, from all on the card to streamed blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .parts import Fit, PartSizes

GB = 10**9
_LEAST_STREAMED = 4  # two buffers stand in for two blocks, so fewer would save nothing


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of the parts, and of what their work takes besides.

    Attributes:
        transformer: by precision: whether its blocks are held in fp8.
        denoising: what a step of the transformer takes.
        decoding, tiled_decoding: what the VAE takes, whole and in tiles.
        table: the modulation of all steps.
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What lies on the card, and when.

    Attributes:
        transformer, t5: how they lie there.
        keep_text: T5 stays after it has encoded.
        tile: the VAE works in tiles.
        peak: bytes, by our arithmetic.
    """

    transformer: Fit
    t5: Fit
    keep_text: bool
    tile: bool
    peak: int

    def words(self, sizes: Sizes, stored: str) -> str:
        """Such as "bf16 resident, T5 on demand". `stored`: the file's precision in words."""
        blocks = sizes.transformer[False].blocks
        weights = "fp8" if self.transformer.fp8 else stored
        streamed = len(self.transformer.streamed)
        place = f"{streamed} of {len(blocks)} blocks streamed" if streamed else "resident"
        text = "T5 resident" if self.keep_text else "T5 on demand"
        if self.t5.streamed:
            text = "T5 streamed"
        return f"{weights} {place}, {text}" + (", VAE in tiles" if self.tile else "")


def choose_plan(sizes: Sizes, budget: int, precision: str, tile: bool) -> Plan | None:
    """The first plan of the ladder whose peak is within the budget; None if none is.

    Args:
        budget: bytes.
        precision: "auto", "file" or "fp8"; see LocalSpec.
        tile: the picture is so large that the VAE has to work in tiles.
    """
    return next((p for p in ladder(sizes, budget, precision, tile) if p.peak <= budget), None)


def ladder(sizes: Sizes, budget: int, precision: str, tile: bool) -> Iterator[Plan]:
    """Plans from fast and large to slow and small; the streamed ones are cut to the budget."""
    first = precision == "fp8"
    yield _plan(sizes, Fit(fp8=first, keep=True), budget, tile, keep_text=True)
    for fp8 in (False, True):
        if fp8 in _allowed(precision):
            yield _plan(sizes, Fit(fp8=fp8), budget, tile, keep_text=True)
            yield _plan(sizes, Fit(fp8=fp8), budget, tile)
            yield _plan(sizes, Fit(fp8=fp8), budget, True)
    fp8 = _allowed(precision)[-1]
    for tiled in (tile, True):
        fit = Fit(fp8=fp8, streamed=_streamed(sizes, fp8, budget, tiled))
        yield _plan(sizes, fit, budget, tiled)


def _allowed(precision: str) -> tuple[bool, ...]:
    return {"auto": (False, True), "file": (False,), "fp8": (True,)}[precision]


def _plan(sizes: Sizes, transformer: Fit, budget: int, tile: bool, keep_text: bool = False) -> Plan:
    t5 = Fit(streamed=_t5_streamed(sizes, budget))
    text = sizes.clip.held(Fit()) + sizes.t5.held(t5)
    held = sizes.transformer[transformer.fp8].held(transformer) + sizes.table
    held += text if keep_text else 0
    vae = sizes.vae.held(Fit()) + (sizes.tiled_decoding if tile else sizes.decoding)
    peak = max(text + sizes.encoding, held + sizes.denoising, held + vae)
    return Plan(transformer=transformer, t5=t5, keep_text=keep_text, tile=tile, peak=peak)


def _streamed(sizes: Sizes, fp8: bool, budget: int, tile: bool) -> frozenset[int]:
    """The fewest blocks to stream, so that the rest fits."""
    vae = sizes.vae.held(Fit()) + (sizes.tiled_decoding if tile else sizes.decoding)
    room = budget - sizes.table - max(sizes.denoising, vae)
    return fewest_streamed(sizes.transformer[fp8], room)


def _t5_streamed(sizes: Sizes, budget: int) -> frozenset[int]:
    room = budget - sizes.clip.held(Fit()) - sizes.encoding
    if sizes.t5.held(Fit()) <= room:
        return frozenset()
    return fewest_streamed(sizes.t5, room)


def fewest_streamed(sizes: PartSizes, room: int) -> frozenset[int]:
    """Which blocks to stream so that the part takes no more than `room`, as few as possible and
    spread evenly: then a copy has the time of the resident blocks between, too. All of them if
    even that is too large.
    """
    count = len(sizes.blocks)
    # even numbers only: the last and the first block of a sweep then lie in different buffers
    for number in range(_LEAST_STREAMED, count + 1, 2):
        streamed = frozenset(index * count // number for index in range(number))
        if sizes.held(Fit(streamed=streamed)) <= room:
            return streamed
    return frozenset(range(count))
