"""The rows of the benchmark: what runs, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...nodes.contracts import ACCELERATIONS
from ...nodes.errors import InputError
from ..offload.runtime_options import FAST

REFERENCE = "reference"
BASE = "none"  # the row whose picture the others' are compared with


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A row.

    Attributes:
        title: for the table and the plot.
        level: of acceleration; None for the plain pipeline.
        files: what it changes in ModelPaths.
    """

    name: str
    title: str
    level: str | None
    files: Mapping[str, Any] = field(default_factory=dict)


def _configurations() -> list[Configuration]:
    plain = Configuration(name=REFERENCE, title="reference", level=None)
    levels = [Configuration(name=level, title=level, level=level) for level in ACCELERATIONS]
    compiled = [
        Configuration(
            name=f"{level}-compiled",
            title=f"{level}, compiled",
            level=level,
            files={"compile": True},
        )
        for level in ACCELERATIONS
    ]
    fp8 = [
        Configuration(
            name=f"{level}-compiled-fp8",
            title=f"{level}, compiled, {FAST}",
            level=level,
            files={"compile": True, "precision": FAST},
        )
        for level in ACCELERATIONS
        if level != BASE
    ]
    return [plain, *levels, *compiled, *fp8]


CONFIGURATIONS = {config.name: config for config in _configurations()}


def choose(names: Sequence[str], *, compiled: bool, has_files: bool) -> list[Configuration]:
    """The rows of these names, in the table's order; all that apply where there are no names.

    Args:
        compiled: the compiled rows are among those that apply.
        has_files: the model is one whose precision and compilation can be chosen.

    Raises:
        InputError: there is no such row, or it cannot be run on this model.
    """
    unknown = [name for name in names if name not in CONFIGURATIONS]
    if unknown:
        raise InputError(f'There is no row "{unknown[0]}". Use: {", ".join(CONFIGURATIONS)}.')
    misfits = [name for name in names if CONFIGURATIONS[name].files and not has_files]
    if misfits or (compiled and not has_files):
        raise InputError(
            f"The preview model is neither compiled nor run in fp8 "
            f"({', '.join(misfits) or '--compile'}). Give --models or --weights."
        )
    if names:
        return [config for config in CONFIGURATIONS.values() if config.name in names]
    return [config for config in CONFIGURATIONS.values() if compiled or not config.files]
