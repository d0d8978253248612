"""What ComfyUI's model folders offer, by the names of its menus, and where each name leads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths

from ..errors import ModelNotFoundError

SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
INDEX = ".safetensors.index.json"
TENSORS = (".safetensors", ".sft")
PIPELINES = "diffusers"
PIPELINE_FILE, CONFIG_FILE = "model_index.json", "config.json"
FLUX_CLASS = "FluxTransformer2DModel"


@dataclass(frozen=True)
class ModelKind:
    """A kind of model file.

    Attributes:
        folder: ComfyUI's name of the folder that holds it.
        suffixes: what its files end in. Pickles are not offered: they are not read.
        source: where to get one.
    """

    folder: str
    suffixes: tuple[str, ...]
    source: str


_TEXT_ENCODERS = "https://huggingface.co/comfyanonymous/flux_text_encoders"
_ONE_REWARD = "https://huggingface.co/Comfy-Org/OneReward_repackaged"
# FLUX.1's own ae.safetensors, which Lumina uses too; this copy asks for no account.
_AUTO_ENCODER = "https://huggingface.co/Comfy-Org/Lumina_Image_2.0_Repackaged"
KINDS = {
    "transformer": ModelKind("diffusion_models", (*TENSORS, ".gguf", INDEX), _ONE_REWARD),
    "text_encoder": ModelKind("text_encoders", (*TENSORS, ".gguf", INDEX), _TEXT_ENCODERS),
    "vae": ModelKind("vae", TENSORS, _AUTO_ENCODER),
    "lora": ModelKind("loras", TENSORS, _ONE_REWARD),
}


def choices(kind: str) -> list[str]:
    """The names of a menu; see candidates."""
    return list(candidates(kind))


def candidates(kind: str) -> dict[str, Path]:
    """What there is of a kind (one of KINDS) by its name, in the order of a menu, with "/" between
    folders on every system. A sharded model is one choice, its index. A transformer may also be a
    folder below `diffusers` with a FLUX pipeline or a FLUX transformer in it; it ends in "/".
    """
    found: dict[str, Path] = {}
    for root, offered in _offers(kind):
        for name in offered:
            if name not in found or not found[name].exists():  # a link that leads nowhere
                found[name] = Path(root) / name
    return {name: found[name] for name in sorted(found, key=lambda name: (name.casefold(), name))}


def locate(kind: str, name: str) -> Path:
    """Where a choice lies. Looked up among the choices there are now, so no other name, however it
    is written, leads anywhere.

    Raises:
        ModelNotFoundError: it is not a choice, or a link that leads nowhere.
    """
    path = candidates(kind).get(name)
    if path is not None and path.exists():
        return path
    folder = PIPELINES if name.endswith("/") else KINDS[kind].folder
    raise ModelNotFoundError(
        f'There is no "{name[:200]}" among the {kind} files of ComfyUI\'s models/{folder} folder. '
        f"Choose one that is there, or put it there and press R ({KINDS[kind].source})."
    )


def describe(kind: str) -> tuple[str, str]:
    """A kind's folder, for an error; and a link to where its files come from."""
    return f"ComfyUI's models/{KINDS[kind].folder} folder", KINDS[kind].source


def _offers(kind: str) -> Iterator[tuple[str, set[str]]]:
    """Each folder that may hold the kind, in ComfyUI's order, and what it holds of it."""
    for root in folder_paths.get_folder_paths(KINDS[kind].folder):
        found = (name for name in _files(root) if not SHARD.search(name))
        yield root, {name for name in found if name.lower().endswith(KINDS[kind].suffixes)}
    if kind == "transformer":
        for root in folder_paths.get_folder_paths(PIPELINES):
            yield root, {f"{folder}/" for folder in _flux_folders(root)}


def _flux_folders(root: str) -> set[str]:
    """The folders below `root` with a FLUX pipeline or, outside of those, a FLUX transformer."""
    pipelines, transformers = set(), set()
    for name in _files(root):
        folder, _, file = name.rpartition("/")
        if folder and file == PIPELINE_FILE:
            part = _read_config(Path(root) / name).get("transformer")
            if isinstance(part, list) and FLUX_CLASS in part:
                pipelines.add(folder)
        if folder and file == CONFIG_FILE:
            if _read_config(Path(root) / name).get("_class_name") == FLUX_CLASS:
                transformers.add(folder)
    return pipelines | {t for t in transformers if t.rpartition("/")[0] not in pipelines}


def _read_config(file: Path) -> dict[str, Any]:
    """A small JSON file's object; empty if it is not there or not one."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):  # as for a folder that is none of ours
        return {}
    return config if isinstance(config, dict) else {}


# Menus are asked for again and again, and a folder on a network drive is slow to walk. As ComfyUI
# does with its own menus, it is walked again only when a folder in it has changed.
_walked: dict[str, tuple[list[str], dict[str, float]]] = {}


def _files(root: str) -> list[str]:
    """Every file below a folder, by its path from there, with "/" on every system."""
    known = _walked.get(root)
    if known is None or not _unchanged(known[1]):
        names, folders = folder_paths.recursive_search(root, [".git"])
        _walked[root] = known = ([name.replace(os.sep, "/") for name in names], folders)
    return known[0]


def _unchanged(folders: dict[str, float]) -> bool:
    try:
        return bool(folders) and all(os.path.getmtime(f) == then for f, then in folders.items())
    except OSError:  # one is gone
        return False
