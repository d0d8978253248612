"""From a LocalSpec's names to model files: each one looked up and inspected, none loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...nodes.contracts import ATTENTIONS, AUTO, NONE, PRECISIONS, LocalSpec
from ...nodes.errors import InputError, LocalBackendError, ModelNotFoundError
from .detect import Family, wrong_family
from .model_paths import ModelPaths
from .select import (
    CLIP,
    T5,
    TRANSFORMER,
    VAE,
    Candidate,
    PipelinePart,
    choose,
    explain,
    inspect,
    named_onereward,
    part_folder,
    part_path,
)


class ModelMenus(Protocol):
    """The model files that a LocalSpec may name: those of ComfyUI's menus. A kind is
    "transformer", "text_encoder", "vae" or "lora".
    """

    def candidates(self, kind: str) -> Mapping[str, Path]:
        """What there is of a kind, by its name in the menu, in the menu's order."""

    def locate(self, kind: str, name: str) -> Path:
        """Where a name leads; ModelNotFoundError if it is not on the menu."""

    def describe(self, kind: str) -> tuple[str, str]:
        """The folder of a kind, for an error; and a link to where its files come from."""


@dataclass(frozen=True)
class FoundFiles:
    """What a LocalSpec names on this machine.

    Attributes:
        files: where it lies.
        transformer: the menu's name of the transformer.
        summary: all of it for the user, by the names of the menus.
    """

    files: ModelPaths
    transformer: str
    summary: str


def find_files(spec: LocalSpec, menus: ModelMenus) -> FoundFiles:
    """The files a spec names, each checked by its header. Reads no weights.

    "auto" is select.choose; a pipeline folder's own parts go before all others.

    Raises:
        InputError: the precision or the attention is none.
        ModelNotFoundError: a file is not there, or there is none that fits.
        CheckpointError: a chosen file is broken or something else.
        MissingDependencyError: a package that reads the file's format is not installed.
    """
    if spec.precision not in PRECISIONS:
        raise InputError(f'precision is "{spec.precision}". Use one of: {", ".join(PRECISIONS)}.')
    if spec.attention not in ATTENTIONS:
        raise InputError(f'attention is "{spec.attention}". Use one of: {", ".join(ATTENTIONS)}.')
    whole = _named_or_best(TRANSFORMER, spec.transformer, menus)
    transformer = part_path(TRANSFORMER, whole.path)
    _require(Family.FLUX_FILL, transformer)
    unsure = spec.transformer == AUTO and not TRANSFORMER.usual_name.search(whole.name)
    summary = [f"{whole.name} (no file says whether it is OneReward's)" if unsure else whole.name]
    t5 = _find(T5, spec.t5xxl, whole, menus)
    clip = _find(CLIP, spec.clip_l, whole, menus)
    vae = _find(VAE, spec.vae, whole, menus)
    summary += [t5.name, clip.name, vae.name]
    lora = None if spec.lora == NONE else menus.locate("lora", spec.lora)
    if lora is not None:
        _require(Family.LORA, lora)
        summary.append(f"{spec.lora} x {spec.lora_strength:g}")
    files = ModelPaths(
        transformer=transformer, text_encoder=clip.path, text_encoder_2=t5.path, vae=vae.path,
        lora=lora, lora_strength=spec.lora_strength, precision=spec.precision,
        compile=spec.compile, attention=spec.attention,
    )  # fmt: skip
    return FoundFiles(files, whole.name.rstrip("/"), ", ".join(summary))


def auto_spec(menus: ModelMenus) -> tuple[LocalSpec | None, str]:
    """The auto rule's model: a OneReward transformer, if all parts are there. Else None, and why a
    OneReward file that is there is not used.

    Reads headers only where a file is named OneReward.
    """
    named = named_onereward(_candidates(TRANSFORMER, menus))
    if not named:
        return None, ""
    # where none fits, what is wrong with the first says more than that none does
    chosen = choose(TRANSFORMER, named)[0] or named[0]
    spec = LocalSpec(transformer=chosen.name)
    try:
        find_files(spec, menus)
    except LocalBackendError as error:
        return None, f"{spec.transformer} is there, but it is not used. {error}"
    return spec, ""


def lacks(part: PipelinePart, title: str, menus: ModelMenus) -> str:
    """What is missing, its folder, and a file to put there, without a stop at the end."""
    folder, source = menus.describe(part.kind)
    return f"There is no {title} in {folder}. Put one there, such as {part.example} from {source}"


def _find(part: PipelinePart, name: str, whole: Candidate, menus: ModelMenus) -> Candidate:
    """A part, by its name for the user. `whole` is what was chosen as the transformer, which may
    be a pipeline with parts of its own.
    """
    own = part_folder(part, whole.path) if name == AUTO else None
    if own is not None:
        return Candidate(f"{whole.name}{part.folder}", own)
    found = _named_or_best(part, name, menus)
    _require(part.family, found.path)
    return found


def _named_or_best(part: PipelinePart, name: str, menus: ModelMenus) -> Candidate:
    if name != AUTO:
        return Candidate(name, menus.locate(part.kind, name))
    chosen, misfits = choose(part, _candidates(part, menus))
    if chosen is None:
        missing = lacks(part, part.title, menus)
        raise ModelNotFoundError(f"{missing}, and press R.{explain(misfits)}")
    return chosen


def _candidates(part: PipelinePart, menus: ModelMenus) -> list[Candidate]:
    return [Candidate(name, path) for name, path in menus.candidates(part.kind).items()]


def _require(family: Family, path: Path) -> None:
    """Raises CheckpointError unless a file, or a transformer's folder, is of the family."""
    header = inspect(path)
    if header.family is not family:
        raise wrong_family(path.name, header.title, family)
