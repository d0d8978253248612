"""The files of a FLUX.1-Fill in a folder, told by what is in them; outside of ComfyUI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...nodes.errors import LocalBackendError, ModelNotFoundError
from .detect import Family, expect, recognise
from .model_files import ModelFiles
from .readers.open import INDEX_SUFFIX, open_tensors

_PACK = Path(__file__).resolve().parents[2]
_ROOMS = ("diffusion_models", "unet", "text_encoders", "clip", "vae", "diffusers")
_SUFFIXES = (".safetensors", ".sft", ".gguf")
_PARTS = (Family.FLUX_FILL, Family.T5, Family.CLIP, Family.VAE)
_REASONS = 3


@dataclass(frozen=True)
class _Found:
    path: Path
    nbytes: int


def find_models(folder: Path) -> ModelFiles:
    """The four models in a folder or below it. Of several that fit: one with OneReward in its name
    or its folder's first, OneRewardDynamic after it; of those the largest. Reads headers only.

    Raises:
        ModelNotFoundError: there is no such folder, or a part is missing.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder} is no folder. Give the folder with the model's files.")
    found, misfits = _sort(_candidates([folder]))
    missing = [family.value for family in _PARTS if not found[family]]
    if missing:
        seen = f" What is there does not fit: {'; '.join(misfits[:_REASONS])}." if misfits else ""
        raise ModelNotFoundError(f"{folder} has no {', no '.join(missing)}. Put it there.{seen}")
    return _best(found, folder)


def installed_models() -> ModelFiles | None:
    """The OneReward model of the ComfyUI in whose custom_nodes the pack lies; None if there is no
    ComfyUI, no such model, or a part of it is missing.
    """
    models = _PACK.parent.parent / "models"
    if _PACK.parent.name != "custom_nodes" or not models.is_dir():
        return None
    found, _ = _sort(_candidates([models / room for room in _ROOMS]))
    named = [one for one in found[Family.FLUX_FILL] if _is_onereward(one.path, models)]
    found = {**found, Family.FLUX_FILL: named}
    return _best(found, models) if all(found.values()) else None


def _candidates(folders: Iterable[Path]) -> list[Path]:
    """Files that may be models; of a sharded model its index."""
    paths = sorted({path for folder in folders for path in folder.rglob("*") if path.is_file()})
    indices = [path for path in paths if path.name.endswith(INDEX_SUFFIX)]
    stems = tuple(str(path).removesuffix(INDEX_SUFFIX) + "-" for path in indices)
    files = [path for path in paths if path.suffix.lower() in _SUFFIXES]
    return indices + [path for path in files if not str(path).startswith(stems)]


def _sort(paths: Iterable[Path]) -> tuple[dict[Family, list[_Found]], list[str]]:
    """The models by their family, and what the others are."""
    found: dict[Family, list[_Found]] = {family: [] for family in _PARTS}
    misfits = []
    for path in paths:
        try:
            files = open_tensors(path)
            family, words = recognise(files)
            if family in found:
                expect(files, family)
        except LocalBackendError as error:  # broken, or of a format that is not read
            misfits.append(str(error).rstrip("."))
            continue
        if family in found:
            size = sum(tensor.nbytes for tensor in files.tensors.values())
            found[family].append(_Found(path, size))
        else:
            misfits.append(f"{path.name} is {words}")
    return found, misfits


def _best(found: Mapping[Family, list[_Found]], root: Path) -> ModelFiles:
    def rank(one: _Found) -> tuple[bool, bool, int, str]:
        name = str(one.path.relative_to(root)).lower()
        return not _is_onereward(one.path, root), "dynamic" in name, -one.nbytes, name

    best = {family: min(models, key=rank).path for family, models in found.items()}
    return ModelFiles(
        transformer=best[Family.FLUX_FILL],
        text_encoder=best[Family.CLIP],
        text_encoder_2=best[Family.T5],
        vae=best[Family.VAE],
    )


def _is_onereward(path: Path, root: Path) -> bool:
    return "onereward" in str(path.relative_to(root)).lower()
