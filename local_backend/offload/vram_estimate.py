"""The VRAM estimate: the weights, and the activations of each stage by published measurements."""

from __future__ import annotations

import torch

from ...nodes.contracts import EditRequest
from ..acceleration.kv_cache import KVCacheFormat, kv_cache_formats
from ..acceleration.levels import LEVELS
from ..acceleration.masked_token_attention import kv_cache_bytes, token_sets
from .flux_parts import FluxParts
from .memory_plan import VramEstimate

TEXT_TOKENS = 512
_VAE_BYTES_PER_PIXEL = (
    2460  # a decoder of 128 channels in 16 bits: +2.4 GiB at 1024x1024 on an H100
)
_TILE_PIXELS = 512 * 512
_LIVE_COPIES = 16  # of the hidden states, in a block of the transformer


def estimate_vram(parts: FluxParts, request: EditRequest, device: torch.device) -> VramEstimate:
    """Bytes of the parts and of a run's activations on a picture of this size."""
    height, width = request.image.shape[1:3]
    branches = 2 if request.true_cfg > 1 else 1
    transformer = {fp8: parts.transformer.sizes(fp8) for fp8 in (False, True)}
    return VramEstimate(
        transformer=transformer,
        t5=parts.t5.sizes(),
        clip=parts.clip.sizes(),
        vae=parts.vae.sizes(),
        denoising=_denoising(parts, height * width // 256, branches),
        encoding=_encoding(parts),
        decoding=_decoding(parts, height * width),
        tiled_decoding=_decoding(parts, min(height * width, _TILE_PIXELS)) + 16 * height * width,
        table=_table(parts, request.num_inference_steps, branches),
        kv_caches=_kv_caches(parts, request, device),
    )


def _kv_caches(
    parts: FluxParts, request: EditRequest, device: torch.device
) -> dict[KVCacheFormat, int]:
    """What the unmasked tokens' keys and values take in each format, the best one first; nothing
    where the level caches none.
    """
    level = LEVELS[request.acceleration]
    if level.masked_gaps is None:
        return {}
    tokens, branches = token_sets(request.mask, level.halo), 2 if request.true_cfg > 1 else 1
    transformer = parts.transformer
    return {
        kv_cache_format: kv_cache_bytes(transformer.module, tokens, branches, kv_cache_format)
        for kv_cache_format in kv_cache_formats(device, transformer.dtype)
    }


def _width(parts: FluxParts) -> int:
    config = parts.transformer.module.config
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def _denoising(parts: FluxParts, tokens: int, branches: int) -> int:
    width, itemsize = _width(parts), parts.transformer.dtype.itemsize
    states = (tokens + TEXT_TOKENS) * branches * width * _LIVE_COPIES * itemsize
    unpacked = (
        2 * 5 * width * width * itemsize
    )  # the widest weight, as it is made and as it is used
    return states + unpacked


def _encoding(parts: FluxParts) -> int:
    config, itemsize = parts.t5.module.config, parts.t5.dtype.itemsize
    states = TEXT_TOKENS * config.d_ff * 6 * itemsize
    scores = 2 * config.num_heads * TEXT_TOKENS**2 * 4
    return states + scores + 2 * config.d_ff * config.d_model * itemsize


def _decoding(parts: FluxParts, pixels: int) -> int:
    channels, itemsize = parts.vae.module.config["block_out_channels"][0], parts.vae.dtype.itemsize
    return int(pixels * _VAE_BYTES_PER_PIXEL * channels / 128 * itemsize / 2)


def _table(parts: FluxParts, steps: int, branches: int) -> int:
    config = parts.transformer.module.config
    rows = 12 * config["num_layers"] + 3 * config["num_single_layers"]
    return int(steps * branches * rows * _width(parts) * parts.transformer.dtype.itemsize)
