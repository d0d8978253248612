"""AdaLN precomputation: the modulation of all steps as a table, computed before the loop.

AdaLN (adaptive layer norm, from DiT, arXiv:2212.09748) makes a block's shift, scale and gate from
the time, the guidance and the pooled text alone. In FLUX the layers that do so hold 27 % of all
weights, for 2 MB of numbers a step. With the table they need not stay in VRAM.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from cachetools import LRUCache
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional

Layer = Callable[[Tensor], Tensor]
_CACHE_BYTES = 10**9  # of the host's; 118 MB a run of 28 steps


@dataclass(frozen=True, eq=False)
class ModulationInputs:
    """What the modulation depends on.

    Attributes:
        timesteps: one per step, as the scheduler has them.
        guidance: float32 [branches] or None.
        pooled_projections: [branches, channels], in the transformer's dtype.
    """

    timesteps: Sequence[float]
    guidance: Tensor | None
    pooled_projections: Tensor

    def key(self) -> Hashable:
        """Equal for equal inputs."""
        guidance = None if self.guidance is None else tuple(self.guidance.tolist())
        pooled = self.pooled_projections.float().cpu()
        return tuple(self.timesteps), guidance, tuple(pooled.shape), pooled.numpy().tobytes()


class ModulationRow(nn.Module):
    """Stands in for the linear layer of an AdaLN: gives the row of the step that is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Tensor | None = None  # [steps, branches, channels]
        # The row itself, not its number: a compiled block would be compiled for that one step.
        self.current: Tensor | None = None

    def forward(self, _: Tensor) -> Tensor:
        assert self.current is not None, "no row of the table was chosen"
        return self.current


class ModulationTable:
    """The modulation of all blocks and steps of a run. Those of the last runs are cached on the
    host: an edit with several crops needs one for each of their sizes, and again for the next seed.

    Attributes:
        names: the layers it stands in for, such as "transformer_blocks.0.norm1.linear".
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        """Takes the layers out of the transformer; `prepare` gets them back one by one."""
        self._transformer = transformer
        self._rows: dict[str, ModulationRow] = {}
        self._ready: Hashable = None
        self._cache: LRUCache[Hashable, list[Tensor]] = LRUCache(_CACHE_BYTES, _cached_bytes)
        for name in modulation_names(transformer):
            norm = transformer.get_submodule(name.rpartition(".")[0])
            norm.linear = self._rows[name] = ModulationRow()
        self.names = tuple(self._rows)

    def prepare(
        self, inputs: ModulationInputs, layer: Callable[[str], Layer], check: Callable[[], None]
    ) -> None:
        """Puts the rows on the device; computes them unless they are cached.

        Args:
            layer: gives the layer of a name, on the transformer's device.
            check: called between layers; may raise to stop.
        """
        key = inputs.key()
        if key == self._ready:
            return
        self.clear()
        if key not in self._cache:
            self._cache[key] = self._compute(inputs, layer, check)
        for row, values in zip(self._rows.values(), self._cache[key], strict=True):
            row.rows = values.to(inputs.pooled_projections.device)
        self._ready = key

    def _compute(
        self, inputs: ModulationInputs, layer: Callable[[str], Layer], check: Callable[[], None]
    ) -> list[Tensor]:
        embeddings = [functional.silu(self._embedding(inputs, t)) for t in inputs.timesteps]
        made = []
        for name in self.names:
            check()
            compute = layer(name)
            made.append(torch.stack([compute(embedding) for embedding in embeddings]).cpu())
        return made

    def select(self, step: int) -> None:
        """Lets the blocks use the rows of this step."""
        for row in self._rows.values():
            assert row.rows is not None, "the table was not prepared"
            row.current = row.rows[step]

    def clear(self) -> None:
        """Frees the rows on the device; the host's cache stays."""
        self._ready = None
        for row in self._rows.values():
            row.rows = row.current = None

    def depends_on(self, layers: Iterable[str]) -> bool:
        """Whether a change of one of these layers changes the rows."""
        return any(layer in self._rows or layer.startswith("time_text_embed") for layer in layers)

    def forget(self) -> None:
        """Frees all rows, cached ones too: the layers have changed."""
        self.clear()
        self._cache.clear()

    def _embedding(self, inputs: ModulationInputs, timestep: float) -> Tensor:
        """The transformer's own, computed in its own order and dtypes, so that it is the same to
        the bit.
        """
        pooled = inputs.pooled_projections
        time = scaled_time(timestep, len(pooled), pooled) * 1000
        embed: Callable[..., Tensor] = self._transformer.time_text_embed
        if inputs.guidance is None:
            return embed(time, pooled)
        guidance = inputs.guidance.to(pooled.dtype) * 1000
        return embed(time, guidance, pooled)


def _cached_bytes(rows: list[Tensor]) -> int:
    """A run that alone passes the bound is cached alone."""
    return min(_CACHE_BYTES, sum(row.nbytes for row in rows))


def scaled_time(timestep: float | Tensor, branches: int, like: Tensor) -> Tensor:
    """A scheduler's timestep as the transformer wants it: [branches], in the dtype of `like`."""
    time = torch.as_tensor(timestep, dtype=torch.float32, device=like.device)
    return time.expand(branches).to(like.dtype) / 1000


def modulation_names(transformer: FluxTransformer2DModel) -> list[str]:
    """The layers whose output depends on no picture: three in a double block's and single block's
    norms together.
    """
    double = [
        f"transformer_blocks.{index}.{norm}.linear"
        for index in range(len(transformer.transformer_blocks))
        for norm in ("norm1", "norm1_context")
    ]
    single = [
        f"single_transformer_blocks.{index}.norm.linear"
        for index in range(len(transformer.single_transformer_blocks))
    ]
    return double + single
