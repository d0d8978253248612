"""The four models of a FLUX.1-Fill pipeline from files, as parts that are loaded and offloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from ...nodes.errors import CheckpointError
from ..acceleration.adaln_table import ModulationTable, modulation_names
from ..checkpoints.load import ModelFile, open_clip, open_t5, open_transformer, open_vae
from ..checkpoints.lora import linear_layers
from ..checkpoints.model_paths import ModelPaths
from .model_part import ModelPart

_TRANSFORMER_BLOCKS = ("transformer_blocks", "single_transformer_blocks")
_T5_BLOCKS = ("encoder.block",)
_SHORT_NAMES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class FluxParts:
    """The four models of a FLUX pipeline, and the AdaLN table, which replaces the modulation layers
    (a quarter of the transformer's weights).

    Attributes:
        layers: the transformer's own, which a LoRA has to fit.
        stored: the precision of the transformer's file, such as "bf16" or "GGUF".
    """

    transformer: ModelPart[FluxTransformer2DModel]
    t5: ModelPart[T5EncoderModel]
    clip: ModelPart[CLIPTextModel]
    vae: ModelPart[AutoencoderKL]
    table: ModulationTable
    layers: Mapping[str, nn.Linear]
    stored: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FluxFiles:
    """The four models' files, opened: modules without weights, and where these lie."""

    transformer: ModelFile[FluxTransformer2DModel]
    t5: ModelFile[T5EncoderModel]
    clip: ModelFile[CLIPTextModel]
    vae: ModelFile[AutoencoderKL]


def open_files(files: ModelPaths) -> FluxFiles:
    """Looks at the files' headers; the weights stay where they are. The LoRA is not looked at.

    Raises:
        CheckpointError: a file is not what it should be, or they do not belong together.
        ModelNotFoundError: a file is not there.
    """
    opened = FluxFiles(
        transformer=open_transformer(files.transformer),
        t5=open_t5(files.text_encoder_2),
        clip=open_clip(files.text_encoder),
        vae=open_vae(files.vae),
    )
    _check_widths(opened)
    return opened


def flux_parts(opened: FluxFiles, dtype: torch.dtype) -> FluxParts:
    """Takes over the files' modules; `dtype` is what they compute in."""
    transformer = opened.transformer
    layers, names = linear_layers(transformer.module), modulation_names(transformer.module)
    part = ModelPart(
        transformer, dtype, block_lists=_TRANSFORMER_BLOCKS, left_out=names, run_often=True
    )
    return FluxParts(
        transformer=part,
        t5=ModelPart(opened.t5, dtype, block_lists=_T5_BLOCKS),
        clip=ModelPart(opened.clip, dtype),
        vae=ModelPart(opened.vae, dtype, keep_stored=False),
        table=ModulationTable(part.module),
        layers=layers,
        stored=_stored_as(transformer),
    )


def open_flux(files: ModelPaths, dtype: torch.dtype) -> FluxParts:
    """The parts of these files; see open_files and flux_parts."""
    return flux_parts(open_files(files), dtype)


def _check_widths(opened: FluxFiles) -> None:
    config = opened.transformer.module.config
    vae = opened.vae.module.config
    pairs = (
        ("T5 encoder", opened.t5.module.config.d_model, config["joint_attention_dim"]),
        ("CLIP encoder", opened.clip.module.config.hidden_size, config["pooled_projection_dim"]),
        ("VAE", 4 * vae["latent_channels"], config["out_channels"] or config["in_channels"]),
    )
    for name, given, wanted in pairs:
        if given != wanted:
            raise CheckpointError(
                f"The {name} gives {given} channels, and the transformer takes {wanted}. Choose "
                f"the {name} that belongs to FLUX."
            )


def _stored_as(transformer: ModelFile) -> str:
    """The precision of the transformer's blocks in its file, as the report names it."""
    stored = transformer.weights.read("single_transformer_blocks.0.proj_mlp.weight")
    if stored.gguf_type is not None:
        return "GGUF"
    return _SHORT_NAMES.get(stored.data.dtype, str(stored.data.dtype).removeprefix("torch."))
