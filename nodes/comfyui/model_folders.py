"""What ComfyUI's model folders offer, and where a chosen name lies. Menus' names only: no paths."""

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
class Kind:
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
    "transformer": Kind("diffusion_models", (*TENSORS, ".gguf", INDEX), _ONE_REWARD),
    "text_encoder": Kind("text_encoders", (*TENSORS, ".gguf", INDEX), _TEXT_ENCODERS),
    "vae": Kind("vae", TENSORS, _AUTO_ENCODER),
    "lora": Kind("loras", TENSORS, _ONE_REWARD),
}


def choices(kind: str) -> list[str]:
    """What there is of a kind (one of KINDS), in the order of a menu, with "/" between folders on
    every system. A sharded model is one choice, its index. A transformer may also be a folder
    below `diffusers` with a FLUX pipeline or a FLUX transformer in it; it ends in "/".
    """
    names = {name for _, offered in _offers(kind) for name in offered}
    return sorted(names, key=str.casefold)


def locate(kind: str, name: str) -> Path:
    """Where a choice lies. Looked up among the choices there are now, so no other name, however it
    is written, leads anywhere.

    Raises:
        ModelNotFoundError: it is not a choice, or a link that leads nowhere.
    """
    for root, offered in _offers(kind):
        if name in offered and (Path(root) / name).exists():
            return Path(root) / name
    folder = PIPELINES if name.endswith("/") else KINDS[kind].folder
    raise ModelNotFoundError(
        f'There is no "{name[:200]}" among the {kind} files of ComfyUI\'s models/{folder} folder. '
        f"Choose one that is there, or put it there and press R ({KINDS[kind].source})."
    )


def pipeline_part(folder: Path, part: str) -> Path | None:
    """The folder of a diffusers pipeline's part, such as "vae"; None if it has none, or is none."""
    found = folder / part
    return found if (folder / PIPELINE_FILE).is_file() and found.is_dir() else None


def read_config(file: Path) -> dict[str, Any]:
    """A small JSON file's object; empty if it is not there or not one."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):  # as for a folder that is none of ours
        return {}
    return config if isinstance(config, dict) else {}


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
            part = read_config(Path(root) / name).get("transformer")
            if isinstance(part, list) and FLUX_CLASS in part:
                pipelines.add(folder)
        if folder and file == CONFIG_FILE:
            if read_config(Path(root) / name).get("_class_name") == FLUX_CLASS:
                transformers.add(folder)
    return pipelines | {t for t in transformers if t.rpartition("/")[0] not in pipelines}


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
