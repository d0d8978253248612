"""From a LocalSpec's names to model files: each looked up, and looked into, but not loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..contracts import ATTENTIONS, PRECISIONS, LocalSpec
from ..errors import CheckpointError, InputError, LocalBackendError, ModelNotFoundError
from .model_folders import CONFIG_FILE, KINDS, choices, locate, pipeline_part, read_config

if TYPE_CHECKING:
    from ...local_backend.checkpoints.detect import Family
    from ...local_backend.checkpoints.model_files import ModelFiles

AUTO, NONE = "auto", "none"
FILL_CHANNELS = 384  # how wide the image input of FLUX.1-Fill is
REASONS = 3  # how many files that do not fit an error explains


@dataclass(frozen=True)
class Part:
    """A part of the model.

    Attributes:
        kind: where its files are, one of model_folders.KINDS.
        family: the name of the Family its header must show.
        what: the part in words.
        usual: the name its files usually have. It breaks a tie between files that fit, no more.
        example: a file to get.
        folder: what a diffusers pipeline calls the part.
    """

    kind: str
    family: str
    what: str
    usual: re.Pattern[str]
    example: str
    folder: str


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


TRANSFORMER = Part(
    "transformer", "FLUX_FILL", "OneReward or FLUX.1-Fill transformer", _named("onereward"),
    "flux.1-fill-dev-OneReward-transformer_fp8.safetensors", "transformer",
)  # fmt: skip
T5 = Part(
    "text_encoder", "T5", "T5-XXL text encoder", _named(r"(^|/)t5xxl[^/]*$"),
    "t5xxl_fp16.safetensors", "text_encoder_2",
)  # fmt: skip
CLIP = Part(
    "text_encoder", "CLIP", "CLIP-L text encoder", _named(r"(^|/)clip_l[^/]*$"),
    "clip_l.safetensors", "text_encoder",
)  # fmt: skip
VAE = Part("vae", "VAE", "FLUX VAE", _named(r"(^|/)ae\.\w+$"), "ae.safetensors", "vae")


@dataclass(frozen=True)
class Found:
    """What a LocalSpec names on this machine.

    Attributes:
        files: where it lies.
        transformer: what the menu calls the transformer.
        words: all of it for the user, by the names of the menus.
    """

    files: ModelFiles
    transformer: str
    words: str


@dataclass(frozen=True)
class Look:
    """What a file's header tells: its family, the same in words, and the bytes of its weights."""

    family: Family
    words: str
    nbytes: int


def find_files(spec: LocalSpec) -> Found:
    """The files a spec names, each told by its header to be what it should be. Reads no weights.

    "auto" takes, of the files that fit: one with the usual name first (for the transformer, one
    named OneReward, and OneRewardDynamic after it); of those the largest, which is the least
    rounded; of equals the first by name. A pipeline folder's own parts go before all others.

    Raises:
        InputError: the precision or the attention is none.
        ModelNotFoundError: a file is not there, or there is none that fits.
        CheckpointError: a chosen file is broken or something else.
        MissingDependencyError: a package that reads the file's format is not installed.
    """
    from ...local_backend.checkpoints.model_files import ModelFiles

    if spec.precision not in PRECISIONS:
        raise InputError(f'precision is "{spec.precision}". Use one of: {", ".join(PRECISIONS)}.')
    if spec.attention not in ATTENTIONS:
        raise InputError(f'attention is "{spec.attention}". Use one of: {", ".join(ATTENTIONS)}.')
    chosen = _best(TRANSFORMER) if spec.transformer == AUTO else spec.transformer
    whole = locate(TRANSFORMER.kind, chosen)
    transformer = pipeline_part(whole, TRANSFORMER.folder) or whole
    _expect(TRANSFORMER.family, transformer)
    unsure = spec.transformer == AUTO and not TRANSFORMER.usual.search(chosen)
    words = [f"{chosen} (no file says whether it is OneReward's)" if unsure else chosen]
    paths = {}
    for part, name in ((T5, spec.t5xxl), (CLIP, spec.clip_l), (VAE, spec.vae)):
        paths[part.folder], word = _find(part, name, whole, chosen)
        words.append(word)
    lora = None if spec.lora == NONE else locate("lora", spec.lora)
    if lora is not None:
        _expect("LORA", lora)
        words.append(f"{spec.lora} x {spec.lora_strength:g}")
    files = ModelFiles(
        transformer=transformer, **paths, lora=lora, lora_strength=spec.lora_strength,
        precision=spec.precision, compile=spec.compile, attention=spec.attention,
    )  # fmt: skip
    return Found(files, chosen.rstrip("/"), ", ".join(words))


def auto_spec() -> tuple[LocalSpec | None, str]:
    """What the auto rule may run on this machine: a OneReward transformer, if all parts are there
    and there is a GPU for it. Else None, and why a OneReward file that is there is not used.

    Reads headers only where a file is named OneReward, for without the name a FLUX.1-Fill may be
    anybody's.
    """
    named = [name for name in choices(TRANSFORMER.kind) if TRANSFORMER.usual.search(name)]
    if not named:
        return None, ""
    from ...local_backend.offload.devices import can_run_flux

    try:
        spec = LocalSpec(transformer=_best(TRANSFORMER, named))
    except ModelNotFoundError:  # what is wrong with the first says more than that none fits
        spec = LocalSpec(transformer=named[0])
    try:
        find_files(spec)
    except LocalBackendError as error:
        return None, f"{spec.transformer} is there, but it is not used. {error}"
    if not can_run_flux():
        return None, f"{spec.transformer} is there, but no GPU that can hold it."
    return spec, ""


def _find(part: Part, name: str, whole: Path, chosen: str) -> tuple[Path, str]:
    """A part's file or folder, and its name for the user. `whole` is what was chosen as the
    transformer, which may be a pipeline with parts of its own.
    """
    own = pipeline_part(whole, part.folder) if name == AUTO else None
    if own is not None:
        return own, f"{chosen}{part.folder}"
    name = _best(part) if name == AUTO else name
    path = locate(part.kind, name)
    _expect(part.family, path)
    return path, name


def _best(part: Part, among: list[str] | None = None) -> str:
    """The file that "auto" takes; see find_files. ModelNotFoundError if none fits."""
    fitting, others = [], []
    for name in choices(part.kind) if among is None else among:
        readable = True
        try:
            path = locate(part.kind, name)
            path = pipeline_part(path, part.folder) or path
            misfit = _misfit(part.family, path)
        except LocalBackendError as error:  # it cannot be told, so it is not taken
            misfit = str(error).rstrip(".").removeprefix(f"{name.rpartition('/')[2]} ")
            readable = False
        if misfit:
            others.append((not part.usual.search(name), readable, f"{name}: {misfit}"))
        else:
            fitting.append((_rank(part, name, path), name))
    if fitting:
        return min(fitting)[1]
    folder = KINDS[part.kind].folder
    others.sort()  # what was most likely meant comes first
    seen = "; ".join(words for _, _, words in others[:REASONS])
    more = f"; and {len(others) - REASONS} more" if len(others) > REASONS else ""
    seen = f" What is there does not fit: {seen}{more}." if others else ""
    raise ModelNotFoundError(
        f"There is no {part.what} in ComfyUI's models/{folder} folder. Put one there, such as "
        f"{part.example} from {KINDS[part.kind].source}, and press R.{seen}"
    )


def _rank(part: Part, name: str, path: Path) -> tuple[bool, bool, int, str]:
    """Smaller is better."""
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    else:
        size = look_into(path).nbytes
    return not part.usual.search(name), "dynamic" in name.lower(), -size, name


def _expect(family: str, path: Path) -> None:
    """Raise CheckpointError unless a file, or a transformer's folder, is of the family."""
    from ...local_backend.checkpoints.detect import Family, expect
    from ...local_backend.checkpoints.readers.open import open_tensors

    misfit = _misfit(family, path)
    if misfit and path.is_dir():
        raise CheckpointError(
            f"{path.name} is {misfit}; OneReward needs FLUX.1-Fill, {FILL_CHANNELS} wide. Choose a "
            "OneReward or FLUX.1-Fill transformer."
        )
    if misfit:
        expect(open_tensors(path), Family[family])


def _misfit(family: str, path: Path) -> str:
    """What a file or folder is, if it is of another family; else nothing."""
    if path.is_dir():
        width = read_config(path / CONFIG_FILE).get("in_channels")
        right = width == FILL_CHANNELS
        return "" if right else f"a FLUX transformer whose image input is {width} wide"
    look = look_into(path)
    return "" if look.family.name == family else look.words


def look_into(path: Path) -> Look:
    """What a model file is, by its header alone, which is read once while the file stays as it is.

    Raises:
        CheckpointError, ModelNotFoundError, MissingDependencyError: it cannot be read.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelNotFoundError(
            f"{path.name} cannot be read ({error.strerror}). Put it there again, or choose another."
        ) from error
    return _look(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=512)
def _look(path: Path, changed: int, size: int) -> Look:
    from ...local_backend.checkpoints.detect import expect, recognise
    from ...local_backend.checkpoints.readers.open import open_tensors

    files = open_tensors(path)
    family, words = recognise(files)
    expect(files, family)  # what cannot be read is refused here, whatever it would be good for
    return Look(family, words, sum(tensor.nbytes for tensor in files.tensors.values()))
