"""AdaLN's modulation as a table: worked out before the loop, so that its weights need not stay.

A block's shift, scale and gate depend on the time, the guidance and the pooled text alone. In FLUX
the layers that make them hold 27 % of all weights, for 2 MB of numbers a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional

Layer = Callable[[Tensor], Tensor]


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

    def equals(self, other: ModulationInputs | None) -> bool:
        return (
            other is not None
            and self.timesteps == other.timesteps
            and _same(self.guidance, other.guidance)
            and _same(self.pooled_projections, other.pooled_projections)
        )


class ModulationRow(nn.Module):
    """Stands in for the linear layer of an AdaLN: gives the row of the step that is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        self.step = 0

    def forward(self, _: Tensor) -> Tensor:
        return self.rows[self.step]


class ModulationTable:
    """The modulation of all blocks and steps of a run.

    Attributes:
        names: the layers it stands in for, such as "transformer_blocks.0.norm1.linear".
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        """Takes the layers out of the transformer; `prepare` gets them back one by one."""
        self._transformer = transformer
        self._rows: dict[str, ModulationRow] = {}
        self._inputs: ModulationInputs | None = None
        for name in modulation_names(transformer):
            norm = transformer.get_submodule(name.rpartition(".")[0])
            norm.linear = self._rows[name] = ModulationRow()
        self.names = tuple(self._rows)

    def prepare(
        self, inputs: ModulationInputs, layer: Callable[[str], Layer], check: Callable[[], None]
    ) -> None:
        """Works the rows out, unless they are those of the run before.

        Args:
            layer: gives the layer of a name, on the transformer's device.
            check: called between layers; may raise to stop.
        """
        if inputs.equals(self._inputs):
            return
        self.clear()
        embeddings = [functional.silu(self._embedding(inputs, t)) for t in inputs.timesteps]
        for name, row in self._rows.items():
            check()
            compute = layer(name)
            row.rows = [compute(embedding) for embedding in embeddings]
        self._inputs = inputs

    def select(self, step: int) -> None:
        """Lets the blocks use the rows of this step."""
        for row in self._rows.values():
            row.step = step

    def clear(self) -> None:
        """Lets go of the rows."""
        self._inputs = None
        for row in self._rows.values():
            row.rows = []

    def _embedding(self, inputs: ModulationInputs, timestep: float) -> Tensor:
        """The transformer's own, computed in its own order and dtypes, so that it is the same to
        the bit.
        """
        pooled = inputs.pooled_projections
        time = scaled_time(timestep, len(pooled), pooled) * 1000
        if inputs.guidance is None:
            return self._transformer.time_text_embed(time, pooled)
        guidance = inputs.guidance.to(pooled.dtype) * 1000
        return self._transformer.time_text_embed(time, guidance, pooled)


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


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool(torch.equal(one, other))
