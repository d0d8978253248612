"""The VAE's key map: where its weights lie, in BFL's (latent diffusion's) or diffusers' names."""

from __future__ import annotations

import re

from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from ...nodes.errors import CheckpointError
from .module_weights import Slice, Source

_LEVEL = re.compile(r"encoder\.down\.(\d+)\.")


def autoencoder_slices(source: Source) -> tuple[dict[str, Slice], list[str]]:
    """Places by AutoencoderKL's parameter names, and the names that have none.

    Raises:
        CheckpointError: the weights are quantised.
    """
    for name in source.tensors:
        if source.quantized(name):
            raise CheckpointError(
                f"{source.files.path.name} is quantised, which a VAE cannot be here. "
                "Choose ae.safetensors in bf16, fp16 or fp32."
            )
    levels = {match[1] for match in map(_LEVEL.match, source.tensors) if match}
    if not levels:
        return {name: Slice(name) for name in source.tensors}, []
    return _from_ldm(source, len(levels))


def _from_ldm(source: Source, levels: int) -> tuple[dict[str, Slice], list[str]]:
    # diffusers' converter hands memory-mapped tensors on, by which they are known again
    tensors = {name: source.read(name).data for name in source.tensors}
    places = {tensor.data_ptr(): name for name, tensor in tensors.items()}
    config = {"down_block_types": ("",) * levels, "up_block_types": ("",) * levels}
    converted = convert_ldm_vae_checkpoint(tensors, config)
    slices = {
        name: Slice(places[tensor.data_ptr()], shape=tuple(tensor.shape))
        for name, tensor in converted.items()
    }
    # the converter passes over what it does not know
    return slices, sorted(source.tensors.keys() - {place.source for place in slices.values()})
