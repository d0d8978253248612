"""The automatic choice of model files: which file is which part, and which of several is taken.

A file is recognised by its header, never by its name. The nodes' menus, the auto rule and the
command line all choose here. No weights are read, and no model library is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...nodes.errors import LocalBackendError, ModelNotFoundError
from .detect import FILL_CHANNELS, Family, expect, recognise
from .model_paths import ModelPaths
from .readers.open import INDEX_SUFFIX, open_tensors, read_json

PIPELINE_FILE = "model_index.json"  # what a diffusers pipeline's folder has

_PACK = Path(__file__).resolve().parents[2]
_COMFY_FOLDERS = ("diffusion_models", "unet", "text_encoders", "clip", "vae", "diffusers")
_SUFFIXES = (".safetensors", ".sft", ".gguf")
_REASONS = 3  # how many files that do not fit an error explains


@dataclass(frozen=True)
class PipelinePart:
    """One of the models that a FLUX.1-Fill pipeline is made of.

    Attributes:
        kind: the kind of its files: "transformer", "text_encoder" or "vae".
        family: what a file's header must show.
        title: what the user calls it.
        usual_name: the name its files usually have. It breaks a tie between files that fit.
        example: a file to get.
        folder: diffusers' name of the part.
    """

    kind: str
    family: Family
    title: str
    usual_name: re.Pattern[str]
    example: str
    folder: str


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


TRANSFORMER = PipelinePart(
    "transformer", Family.FLUX_FILL, "OneReward or FLUX.1-Fill transformer", _named("onereward"),
    "flux.1-fill-dev-OneReward-transformer_fp8.safetensors", "transformer",
)  # fmt: skip
T5 = PipelinePart(
    "text_encoder", Family.T5, "T5-XXL text encoder", _named(r"(^|/)t5xxl[^/]*$"),
    "t5xxl_fp16.safetensors", "text_encoder_2",
)  # fmt: skip
CLIP = PipelinePart(
    "text_encoder", Family.CLIP, "CLIP-L text encoder", _named(r"(^|/)clip_l[^/]*$"),
    "clip_l.safetensors", "text_encoder",
)  # fmt: skip
VAE = PipelinePart("vae", Family.VAE, "FLUX VAE", _named(r"(^|/)ae\.\w+$"), "ae.safetensors", "vae")
PARTS = (TRANSFORMER, T5, CLIP, VAE)


@dataclass(frozen=True)
class Candidate:
    """What may be chosen: a file, the index of shards, or a folder as diffusers keeps models.

    Attributes:
        name: the path from where the search began, with "/" on every system.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Header:
    """What a model's header tells: its family, the same for the user, the bytes of its weights."""

    family: Family
    title: str
    nbytes: int


def choose(
    part: PipelinePart, candidates: Iterable[Candidate]
) -> tuple[Candidate | None, list[str]]:
    """The candidate that "auto" takes for a part, and why the others do not fit.

    Of the candidates that fit: one with the usual name first (for the transformer, one named
    OneReward, and OneRewardDynamic after it); of those the largest, which is the least quantised;
    of equals the first by name.

    Returns:
        None if no candidate fits; and a sentence for each misfit, the likeliest file first.
    """
    fitting, misfits = [], []
    for candidate in candidates:
        readable, misfit = True, ""
        try:
            header = inspect(part_path(part, candidate.path))
            if header.family is part.family:
                fitting.append((_rank(part, candidate.name, header), candidate))
                continue
            misfit = header.title
        except LocalBackendError as error:  # damaged, or of a format that is not read
            base = candidate.name.rpartition("/")[2]
            readable, misfit = False, str(error).rstrip(".").removeprefix(f"{base} ")
        unlikely = not part.usual_name.search(candidate.name)
        misfits.append((unlikely, readable, f"{candidate.name}: {misfit}"))
    best = min(fitting, key=lambda found: found[0])[1] if fitting else None
    return best, [reason for _, _, reason in sorted(misfits)]


def _rank(part: PipelinePart, name: str, header: Header) -> tuple[bool, bool, int, str]:
    """Smaller is better."""
    unusual = not part.usual_name.search(name)
    return unusual, "dynamic" in name.lower(), -header.nbytes, name


def explain(misfits: list[str]) -> str:
    """The reasons that an error has room for, as a sentence; empty if there are none."""
    more = f"; and {len(misfits) - _REASONS} more" if len(misfits) > _REASONS else ""
    shown = "; ".join(misfits[:_REASONS])
    return f" What is there does not fit: {shown}{more}." if misfits else ""


def named_onereward(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those with OneReward in their name: without it, a FLUX.1-Fill may be anybody's."""
    return [one for one in candidates if TRANSFORMER.usual_name.search(one.name)]


def part_path(part: PipelinePart, path: Path) -> Path:
    """A part's own folder where `path` is a diffusers pipeline that has one; else `path`."""
    return part_folder(part, path) or path


def part_folder(part: PipelinePart, path: Path) -> Path | None:
    """The part's folder in a diffusers pipeline; None if `path` is no pipeline or lacks it."""
    found = path / part.folder
    return found if (path / PIPELINE_FILE).is_file() and found.is_dir() else None


def inspect(path: Path) -> Header:
    """What a model file is, by its header, which is read once while the file stays as it is. A
    folder is taken for a diffusers transformer's and told by its config.json.

    Raises:
        CheckpointError, ModelNotFoundError, MissingDependencyError: it cannot be read.
    """
    if path.is_dir():
        return _inspect_folder(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelNotFoundError(
            f"{path.name} cannot be read ({error.strerror}). Put it there again, or choose another."
        ) from error
    return _inspect_file(path, stat.st_mtime_ns, stat.st_size)


def _inspect_folder(folder: Path) -> Header:
    channels = read_json(folder / "config.json").get("in_channels")
    family = Family.FLUX_FILL if channels == FILL_CHANNELS else Family.OTHER
    nbytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Header(family, f"a FLUX transformer whose image input is {channels} wide", nbytes)


@lru_cache(maxsize=4096)
def _inspect_file(path: Path, changed: int, size: int) -> Header:
    files = open_tensors(path)
    family, title = recognise(files)
    expect(files, family)  # what cannot be read is refused here, whatever it would be good for
    return Header(family, title, sum(tensor.nbytes for tensor in files.tensors.values()))


def find_models(folder: Path) -> ModelPaths:
    """The four models in a folder or below it, for use outside of ComfyUI; see choose. The parts
    of a diffusers pipeline stay together.

    Raises:
        ModelNotFoundError: there is no such folder, or a part is missing.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder} is no folder. Give the folder with the model's files.")
    candidates = _candidates(folder, [folder])
    found = _choose_all(candidates, candidates)
    missing = [part.family.value for part in PARTS if part not in found]
    if missing:
        strays = [reason for one in candidates if (reason := _stray(one.path))]
        seen = explain(strays[:_REASONS])
        raise ModelNotFoundError(f"{folder} has no {', no '.join(missing)}. Put it there.{seen}")
    return _model_paths(found)


def installed_models() -> ModelPaths | None:
    """The OneReward model of the ComfyUI in whose custom_nodes the pack lies; None if there is no
    ComfyUI, no such model, or a part of it is missing.
    """
    models = _PACK.parent.parent / "models"
    if _PACK.parent.name != "custom_nodes" or not models.is_dir():
        return None
    candidates = _candidates(models, [models / name for name in _COMFY_FOLDERS])
    found = _choose_all(named_onereward(candidates), candidates)
    return _model_paths(found) if len(found) == len(PARTS) else None


def _candidates(root: Path, folders: Iterable[Path]) -> list[Candidate]:
    """Files that may be models, by their names below `root`; of a sharded model its index."""
    paths = sorted({path for folder in folders for path in folder.rglob("*") if path.is_file()})
    indices = [path for path in paths if path.name.endswith(INDEX_SUFFIX)]
    stems = tuple(str(path).removesuffix(INDEX_SUFFIX) + "-" for path in indices)
    files = [path for path in paths if path.suffix.lower() in _SUFFIXES]
    whole = [path for path in files if not str(path).startswith(stems)]
    return [Candidate(path.relative_to(root).as_posix(), path) for path in (*indices, *whole)]


def _choose_all(
    transformers: Iterable[Candidate], others: list[Candidate]
) -> dict[PipelinePart, Path]:
    """The parts that are there: those of the transformer's own pipeline first, those of other
    pipelines last.
    """
    found: dict[PipelinePart, Path] = {}
    transformer, _ = choose(TRANSFORMER, transformers)
    if transformer is not None:
        found[TRANSFORMER] = transformer.path
    pipeline = None if transformer is None else _pipeline_of(transformer)
    own = [one for one in others if pipeline is not None and _pipeline_of(one) == pipeline]
    loose = [one for one in others if _pipeline_of(one) is None]
    for part in (T5, CLIP, VAE):
        chosen = choose(part, own)[0] or choose(part, loose)[0] or choose(part, others)[0]
        if chosen is not None:
            found[part] = chosen.path
    return found


def _pipeline_of(one: Candidate) -> Path | None:
    """The diffusers pipeline's folder that the file is a part of."""
    folder = one.path.parent.parent
    return folder if (folder / PIPELINE_FILE).is_file() else None


def _model_paths(found: dict[PipelinePart, Path]) -> ModelPaths:
    return ModelPaths(
        transformer=found[TRANSFORMER],
        text_encoder=found[CLIP],
        text_encoder_2=found[T5],
        vae=found[VAE],
    )


def _stray(path: Path) -> str:
    """Why a file is none of the parts; empty if it is one."""
    try:
        header = inspect(path)
    except LocalBackendError as error:
        return str(error).rstrip(".")
    known = any(header.family is part.family for part in PARTS)
    return "" if known else f"{path.name} is {header.title}"
