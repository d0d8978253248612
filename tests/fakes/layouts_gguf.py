"""Writers of GGUF files: the FLUX transformer as city96's tool names it, T5 as llama.cpp does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from fakes.layouts import Written, matrices
from fakes.layouts_names import bfl_layers, from_bfl, to_bfl, to_llama
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from transformers import T5EncoderModel

GGUF_KINDS = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0)
# Rows of these are multiples of 256, and gguf for Python reads them but cannot write them.
GGUF_K_KINDS = (Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K)
# Where the half-precision scales of a block of 256 lie, in bytes from its start, and how large they
# are for numbers of mean 0 and deviation 0.04, as weights have.
K_SCALES = {
    Kind.Q2_K: ((80, 5e-3), (82, 7.5e-3)),
    Kind.Q3_K: ((108, 1e-3),),
    Kind.Q4_K: ((0, 3e-4), (2, 2.2e-3)),
    Kind.Q5_K: ((0, 1.4e-4), (2, 2.2e-3)),
    Kind.Q6_K: ((208, 3e-5),),
}


def write_gguf_transformer(folder: Path, model: FluxTransformer2DModel, kind: Kind) -> Written:
    """Blocks' matrices at this kind, other matrices as F16, vectors as F32.

    A K-quant gets random blocks of the right form, because nothing here can quantise to it: its
    reference has nothing to do with the model's weights.
    """
    state = model.state_dict()
    quantized = {f"{name}.weight" for name in bfl_layers(state) if "_blocks." in name}
    path = folder / f"flux-{kind.name}.gguf"
    dense = _write(path, "flux", to_bfl(state), quantized, kind)
    return Written(path, from_bfl(dense, state))


def write_gguf_t5(folder: Path, model: T5EncoderModel, kind: Kind) -> Written:
    """Blocks' matrices and the vocabulary at this kind, the rest as F32."""
    state = {k: v for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    names = dict(zip(state, to_llama(state), strict=True))
    quantized = {names[key] for key in matrices(state, "encoder.block.")} | {"token_embd.weight"}
    path = folder / f"t5-{kind.name}.gguf"
    dense = _write(path, "t5encoder", to_llama(state), quantized, kind)
    return Written(path, {key: dense[name] for key, name in names.items()})


def _write(
    path: Path, architecture: str, stored: Mapping[str, Tensor], quantized: set[str], kind: Kind
) -> dict[str, Tensor]:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    generator = np.random.default_rng(0)
    dense = {}
    for name, value in stored.items():
        matrix = Kind.F16 if architecture == "flux" and value.dim() == 2 else Kind.F32
        own = kind if name in quantized else matrix
        numbers = value.float().numpy()
        if own in K_SCALES:
            data = _random_blocks(generator, numbers.shape, own)
        else:
            data = gguf.quants.quantize(numbers, own)
        writer.add_tensor(name, data, raw_dtype=own)
        dense[name] = torch.from_numpy(gguf.quants.dequantize(data, own).copy()).float()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dense


def _random_blocks(
    generator: np.random.Generator, shape: tuple[int, ...], kind: Kind
) -> np.ndarray:
    """Rows of random blocks of this kind."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = shape
    blocks = generator.integers(0, 256, (rows, columns // values, size), dtype=np.uint8)
    for at, middle in K_SCALES[kind]:
        scales = (middle * generator.uniform(0.5, 1.5, blocks.shape[:2])).astype(np.float16)
        blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)
