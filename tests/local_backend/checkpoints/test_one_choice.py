"""The nodes' menus, the auto rule and the command line take the same files of the same folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes.model_folders import comfy_folders
from fakes.sparse import Shape, write_sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from onereward_pack.local_backend.checkpoints import select
from onereward_pack.local_backend.checkpoints.local_spec import auto_spec, find_files
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths
from onereward_pack.nodes.contracts import LocalSpec
from onereward_pack.nodes.errors import ModelNotFoundError

PARTS = ("transformer", "text_encoder_2", "text_encoder", "vae")
ROW = 1000  # values; more than a header's bytes, so that sizes of files compare as those of weights
FOLDERS = {
    "transformer": "diffusion_models",
    "text_encoder_2": "text_encoders",
    "text_encoder": "text_encoders",
    "vae": "vae",
}
SHAPES: Mapping[str, dict[str, Shape]] = {
    "transformer": {
        "double_blocks.0.img_attn.qkv.weight": (3, 1),
        "img_in.weight": (1, 384),
        "final_layer.linear.weight": (64, 1),
    },
    "text_encoder_2": {
        "encoder.block.0.layer.0.SelfAttention.q.weight": (1, 1),
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": (1, 1),
        "shared.weight": (1, 64),
    },
    "text_encoder": {
        "encoder.layers.0.self_attn.q_proj.weight": (1, 1),
        "embeddings.token_embedding.weight": (1, 64),
    },
    "vae": {
        "encoder.down.0.block.0.conv1.weight": (1, 1, 1, 1),
        "decoder.conv_in.weight": (1, 16, 1, 1),
    },
    "other": {"distilled_guidance_layer.in_proj.weight": (1, 1)},
}
NAMES = {
    "transformer": ("OneReward", "OneRewardDynamic", "onereward_fp8", "fill", "Fill", "my/a", "a"),
    "text_encoder_2": ("t5xxl_fp16", "T5XXL_fp8", "encoder", "x/t5xxl", "t5xxl/y", "my_t5xxl"),
    "text_encoder": ("clip_l", "CLIP_L-detail", "long", "x/clip_l", "clip_l/y"),
    "vae": ("ae", "AE", "flux/ae", "ae-2", "vae"),
}
FILES = {
    part: st.dictionaries(st.sampled_from(names), st.integers(1, 3), min_size=1, max_size=3)
    for part, names in NAMES.items()
}


@dataclass(frozen=True)
class Pipeline:
    """A diffusers pipeline's folder: its name, its size in rows, and the parts it has."""

    name: str
    rows: int
    parts: tuple[str, ...]


PIPELINES = st.none() | st.builds(
    Pipeline,
    name=st.sampled_from(("FLUX.1-Fill-dev", "OneReward-pipeline", "OneRewardDynamic")),
    rows=st.sampled_from((4, 5)),
    parts=st.lists(st.sampled_from(PARTS[1:]), unique=True).map(tuple),
)


def write(path: Path, what: str, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sparse(path, {**SHAPES[what], "more": (rows, ROW)})


def write_pipeline(folder: Path, pipeline: Pipeline) -> None:
    flux = "FluxTransformer2DModel"
    for part in ("transformer", *pipeline.parts):
        write(folder / part / "model.safetensors", part, pipeline.rows)
    index = {"transformer": ["diffusers", flux]}
    (folder / "model_index.json").write_text(json.dumps(index))
    config = {"_class_name": flux, "in_channels": 384}
    (folder / "transformer/config.json").write_text(json.dumps(config))


def places(files: ModelPaths, models: Path) -> list[str]:
    """Where each part lies below the folder; a file of a pipeline by its folder."""
    found = []
    for part in PARTS:
        path = getattr(files, part)
        inside = path.is_file() and path.name == "model.safetensors"
        found.append((path.parent if inside else path).relative_to(models).as_posix())
    return found


@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(
    st.fixed_dictionaries(FILES), st.sampled_from((*PARTS, *3 * [None])), PIPELINES, st.booleans()
)
def test_all_callers_take_the_same_files(
    files: dict[str, dict[str, int]], missing: str | None, pipeline: Pipeline | None, stranger: bool
) -> None:
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        comfy_folders(Path(folder), patch) as (_, menus),
    ):
        models = Path(folder) / "models"
        for part, named in files.items():
            for name, rows in named.items() if part != missing else ():
                write(models / FOLDERS[part] / f"{name}.safetensors", part, rows)
        if pipeline is not None:
            write_pipeline(models / "diffusers" / pipeline.name, pipeline)
        if stranger:
            write(models / "diffusion_models/OneReward-not.safetensors", "other", 9)
        patch.setattr(select, "_PACK", Path(folder) / "custom_nodes" / "pack")

        try:
            node = places(find_files(LocalSpec(), menus).files, models)
        except ModelNotFoundError:
            assert auto_spec(menus)[0] is None
            if pipeline is None:  # outside of ComfyUI any pipeline's parts will do
                assert select.installed_models() is None
                with pytest.raises(ModelNotFoundError):
                    select.find_models(models)
            return
        assert places(select.find_models(models), models) == node
        installed, (spec, _) = select.installed_models(), auto_spec(menus)
        if "onereward" not in node[0].lower():
            assert installed is None and spec is None
            return
        assert installed is not None and places(installed, models) == node
        assert spec is not None and places(find_files(spec, menus).files, models) == node
