"""A stored weight and its quantisation metadata: what it stands for, which forms are refused."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from onereward_pack.local_backend.checkpoints.module_weights import Source
from onereward_pack.local_backend.checkpoints.quant_metadata import split_metadata
from onereward_pack.local_backend.checkpoints.readers.open import open_tensors
from onereward_pack.local_backend.quantization.fp8 import to_fp8
from onereward_pack.local_backend.quantization.stored_weight import Stored, dense, stack
from onereward_pack.nodes.errors import CheckpointError
from safetensors.torch import save_file
from torch import Tensor

FP8 = torch.float8_e4m3fn
ROWS, COLUMNS = 6, 64


def weight() -> Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


def source(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> Source:
    save_file(tensors, path / "a.safetensors", metadata)
    files = open_tensors(path / "a.safetensors")
    return Source(files, {name: name for name in files.tensors})


def note(**words: object) -> Tensor:
    return torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)


def packed(kind: Kind) -> tuple[Stored, Tensor]:
    data = gguf.quants.quantize(weight().numpy(), kind)
    reference = torch.from_numpy(gguf.quants.dequantize(data, kind))
    return Stored(torch.from_numpy(data), (ROWS, COLUMNS), None, int(kind)), reference


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0])
def test_packed_rows_stand_for_what_gguf_says(kind: Kind) -> None:
    stored, reference = packed(kind)
    assert stored.quantized
    assert torch.equal(stored.dense(torch.float32), reference)
    assert torch.equal(stored.rows(2, 5).dense(torch.float32), reference[2:5])
    swapped = stack([stored.rows(3, 6), stored.rows(0, 3)])
    assert swapped.shape == (ROWS, COLUMNS)
    assert torch.equal(swapped.dense(torch.float32), torch.cat([reference[3:], reference[:3]]))
    half = stored.dense(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    # bf16 keeps 8 bits: half a step is 2^-9; fp16 work before it adds 2^-11
    assert (half - reference).abs().max() <= reference.abs().max() * (2**-9 + 2**-10)


def test_plain_values_are_cast_and_scaled_ones_multiplied() -> None:
    values = weight().to(torch.bfloat16)
    plain = Stored(values, (ROWS, COLUMNS))
    assert not plain.quantized
    assert plain.nbytes == 2 * ROWS * COLUMNS
    assert torch.equal(plain.dense(torch.float32), values.float())
    data = weight().to(FP8)
    scalar = Stored(data, (ROWS, COLUMNS), torch.tensor(0.5))
    assert scalar.quantized
    assert scalar.nbytes == ROWS * COLUMNS + 4
    assert torch.equal(scalar.dense(torch.float32), data.float() * 0.5)
    assert torch.equal(scalar.rows(1, 3).dense(torch.float32), data[1:3].float() * 0.5)


def test_a_scale_per_row_goes_with_its_rows() -> None:
    scale = torch.arange(1.0, ROWS + 1)[:, None]
    data = torch.randint(-127, 128, (ROWS, COLUMNS), dtype=torch.int8)
    stored = Stored(data, (ROWS, COLUMNS), scale)
    assert torch.equal(stored.rows(2, 4).dense(torch.float32), data[2:4].float() * scale[2:4])
    turned = stack([stored.rows(4, 6), stored.rows(0, 4)]).dense(torch.float32)
    assert torch.equal(turned, torch.cat([data[4:].float() * scale[4:], data[:4] * scale[:4]]))


def test_rows_of_fp8_are_views_and_stack_keeps_fp8() -> None:
    stored = to_fp8(weight())
    assert stored.rows(1, 3).data.data_ptr() == stored.data[1:].data_ptr()
    assert stack([stored.rows(3, 6), stored.rows(0, 3)]).data.dtype == FP8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_to_fp8_is_near_in_every_row_whatever_its_size(dtype: torch.dtype) -> None:
    values = weight() * torch.logspace(-4, 3, ROWS)[:, None]
    values[3] = 0
    values = values.to(dtype)
    stored = to_fp8(values)
    assert (stored.data.dtype, stored.shape, stored.gguf_type) == (FP8, (ROWS, COLUMNS), None)
    assert stored.scale is not None and stored.scale.shape == (ROWS, 1)
    back = stored.dense(torch.float32)
    assert torch.isfinite(back).all()
    assert not back[3].any()
    error = (back - values.float()).norm(dim=1) / values.float().norm(dim=1).clamp(min=1e-30)
    # E4M3 has three bits: half a step is 1/16 at most, about 1/40 on average
    assert error.max() < 0.04


def test_to_fp8_keeps_the_largest_value_of_a_row() -> None:
    values = weight()
    back = to_fp8(values).dense(torch.float32)
    at = values.abs().argmax(dim=1, keepdim=True)
    assert torch.allclose(back.gather(1, at), values.gather(1, at), rtol=1e-6)


def test_dense_works_where_the_data_is() -> None:
    # the meta device stands for a GPU: nothing may come from the CPU
    data = torch.empty(ROWS, 2 * 34, dtype=torch.uint8, device="meta")
    assert dense(data, None, int(Kind.Q8_0), (ROWS, 64), torch.float16).device.type == "meta"


@pytest.mark.parametrize("end", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (ROWS,), (ROWS, 1)])
def test_a_weight_finds_its_scale(tmp_path: Path, end: str, shape: tuple[int, ...]) -> None:
    scale = torch.rand(shape) + 0.5
    data = weight().to(FP8)
    opened = source(tmp_path, {"a.weight": data, f"a.{end}": scale})
    assert set(opened.tensors) == {"a.weight"}
    stored = opened.read("a.weight")
    assert stored.scale is not None
    assert stored.scale.shape == (() if scale.numel() == 1 else (ROWS, 1))
    expected = data.float() * (scale.reshape(-1, 1) if scale.numel() > 1 else scale)
    assert torch.equal(stored.dense(torch.float32), expected)


def test_activation_scales_and_the_marker_change_no_weight(tmp_path: Path) -> None:
    data = weight().to(FP8)
    extras = {
        "scaled_fp8": torch.zeros(2).to(FP8),
        "a.scale_input": torch.tensor(9.0),
        "a.input_scale": torch.tensor(9.0),
    }
    opened = source(tmp_path, {"a.weight": data} | extras)
    assert set(opened.tensors) == {"a.weight"}
    assert torch.equal(opened.read("a.weight").dense(torch.float32), data.float())


def test_a_scale_beside_plain_values_is_multiplied_in(tmp_path: Path) -> None:
    values = weight().to(torch.bfloat16)
    opened = source(tmp_path, {"a.weight": values, "a.scale_weight": torch.tensor(0.5)})
    stored = opened.read("a.weight")
    assert not stored.quantized and not opened.quantized("a.weight")
    assert stored.scale is None
    assert torch.equal(stored.dense(torch.float32), values.float() * 0.5)


def test_fp8_in_a_container_of_bytes_is_read_as_noted(tmp_path: Path) -> None:
    data = weight().to(FP8)
    opened = source(
        tmp_path,
        {"a.weight": data.view(torch.uint8), "a.comfy_quant": note(format="float8_e4m3fn")},
    )
    assert torch.equal(opened.read("a.weight").dense(torch.float32), data.float())


def test_a_note_in_the_header_counts_like_one_beside_the_weight(tmp_path: Path) -> None:
    layers = {"a": {"format": "nvfp4"}}
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    with pytest.raises(CheckpointError, match="quantised as nvfp4"):
        source(tmp_path, {"a.weight": weight().to(FP8)}, metadata)


def test_notes_of_a_full_checkpoint_s_other_models_are_left_alone(tmp_path: Path) -> None:
    layers = {"vae.b": {"format": "nvfp4"}, "x.a": {"format": "float8_e4m3fn"}}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    tensors = {"x.a.weight": weight().to(FP8), "vae.b.weight": weight()}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    files = open_tensors(tmp_path / "a.safetensors")
    weights, layers_found = split_metadata(files, {"a.weight": "x.a.weight"})
    assert weights == {"a.weight": "x.a.weight"}
    assert layers_found["a.weight"].format == "float8_e4m3fn"


REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "mxfp8": ({"a.comfy_quant": note(format="mxfp8")}, "quantised as mxfp8"),
    "nvfp4": ({"a.comfy_quant": note(format="nvfp4")}, "quantised as nvfp4"),
    "rotated": (
        {"a.comfy_quant": note(format="int8_tensorwise", convrot=True)},
        "int8_tensorwise with rotation .Hadamard.",
    ),
    "rotated, inside": (
        {"a.comfy_quant": note(format="int8_tensorwise", params={"convrot": True})},
        "int8_tensorwise with rotation .Hadamard.",
    ),
    "no note": ({"a.comfy_quant": torch.zeros(3, dtype=torch.uint8)}, "makes no sense"),
    "another type": ({"a.comfy_quant": note(format="float8_e5m2")}, "noted as float8_e5m2 but"),
    "blocks": ({"a.weight_scale": torch.ones(ROWS, 4)}, r"scales of the shape \[6, 4\]"),
    "columns": ({"a.weight_scale": torch.ones(COLUMNS)}, r"scales of the shape \[64\]"),
    "no weight": ({"b.weight_scale": torch.ones(())}, r"b\.weight, which it lacks"),
    "int8 alone": ({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, "int8 without a scale"),
    "bytes": ({"a.weight": torch.ones(2, 2, dtype=torch.uint8)}, "stored as U8"),
    "doubles": ({"a.weight": torch.ones(2, 2, dtype=torch.float64)}, "stored as F64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_metadata_that_is_no_plain_scale_is_refused(tmp_path: Path, case: str) -> None:
    extras, words = REFUSED[case]
    with pytest.raises(CheckpointError, match=words):
        source(tmp_path, {"a.weight": weight().to(FP8)} | extras)


def test_a_packed_type_that_nothing_here_unpacks_is_refused_when_opened(tmp_path: Path) -> None:
    size = gguf.GGML_QUANT_SIZES[Kind.IQ3_S][1]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    rows = np.zeros((2, size), np.uint8)
    writer.add_tensor("a.weight", rows, raw_dtype=Kind.IQ3_S)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    files = open_tensors(tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match=r"stored as IQ3_S, which this pack cannot unpack"):
        Source(files, {name: name for name in files.tensors})
