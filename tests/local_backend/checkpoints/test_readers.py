"""Tensor files open by what they contain; headers only, and memory-mapped where they are read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from fakes.sparse import flux_shapes, write_header, write_sparse
from gguf import GGMLQuantizationType as Kind
from onereward_pack.local_backend.checkpoints.detect import Family, recognise
from onereward_pack.local_backend.checkpoints.readers.open import TensorInfo, open_tensors
from onereward_pack.nodes.errors import CheckpointError, MissingDependencyError, ModelNotFoundError
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]
TYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I64": torch.int64,
}


def write_gguf(path: Path, kind: Kind = Kind.Q8_0) -> np.ndarray:
    """A file with a header that holds every sort of field; returns its packed tensor's rows."""
    values = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    packed = gguf.quants.quantize(values, kind)
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_string("general.name", "tiny")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bb", "ccc"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_bool("flag", True)
    writer.add_tensor("packed", packed, raw_dtype=kind)
    writer.add_tensor("plain", values[:, :5].copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return packed


def test_a_safetensors_header_is_told_as_it_is(tmp_path: Path) -> None:
    tensors = {name: torch.ones(2, 3).to(dtype) for name, dtype in TYPES.items()}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {"format": "pt", "author": "me"})
    files = open_tensors(path)
    assert dict(files.tensors) == {
        name: TensorInfo(name, (2, 3), 6 * dtype.itemsize) for name, dtype in TYPES.items()
    }
    assert dict(files.metadata) == {"format": "pt", "author": "me"}
    for name, value in tensors.items():
        read = files.read(name)
        assert read.dtype == TYPES[name]
        assert torch.equal(read.float(), value.float())


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0])
def test_a_gguf_header_is_told_as_it_is(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "model.gguf"
    packed = write_gguf(path, kind)
    files = open_tensors(path)
    assert dict(files.tensors) == {
        "packed": TensorInfo(kind.name, (6, 64), packed.nbytes),
        "plain": TensorInfo("F32", (6, 5), 120),
    }
    assert files.metadata["general.architecture"] == "flux"
    assert files.metadata["general.name"] == "tiny"
    read = files.read("packed")
    assert read.dtype == torch.uint8
    assert np.array_equal(read.numpy(), packed)
    # gguf's own reader is the judge of where everything lies
    judged = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    assert np.array_equal(files.read("plain").numpy(), judged["plain"])


@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_a_tensor_is_a_view_of_the_mapped_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"model.{form}"
    if form == "gguf":
        write_gguf(path)
    else:
        save_file({"plain": torch.arange(12.0)}, path)
    files = open_tensors(path)
    first, second = files.read("plain"), files.read("plain")
    assert first.data_ptr() == second.data_ptr()


def test_tensors_read_in_inference_mode_are_ordinary_ones(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with torch.inference_mode():
        assert not open_tensors(tmp_path / "a.safetensors").read("a").is_inference()


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "model.bin")
    assert "packed" in open_tensors(tmp_path / "model.safetensors").tensors
    assert "a" in open_tensors(tmp_path / "model.bin").tensors


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = write_header(tmp_path / "a.safetensors", header + b" " * (640 - len(header)), 4)
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert open_tensors(path).tensors["a"].shape == (1,)


def write_shards(folder: Path) -> Path:
    save_file({"a": torch.ones(1)}, folder / "one.safetensors", {"from": "one"})
    save_file({"b": torch.full((2,), 2.0)}, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    places = {"a": "one.safetensors", "b": "two.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    return index


def test_shards_are_one_set_of_tensors(tmp_path: Path) -> None:
    files = open_tensors(write_shards(tmp_path))
    assert set(files.tensors) == {"a", "b"}
    assert files.metadata["from"] == "one"
    assert files.read("b").tolist() == [2.0, 2.0]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"two\.safetensors, a part of .* is missing"):
        open_tensors(index)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    save_file({"a": torch.ones(1), "b": torch.ones(2)}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"a is in one\.safetensors and in two\.safetensors"):
        open_tensors(index)


def test_a_shard_without_its_tensor_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    save_file({"c": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"b is not in two\.safetensors"):
        open_tensors(index)


@pytest.mark.parametrize("name", ["../one.safetensors", "/one.safetensors"])
def test_a_shard_outside_the_index_s_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    index = write_shards(tmp_path / "model")
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="is missing"):
        open_tensors(index)


def test_an_index_that_names_no_shards_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for text in ("[]", "{}", '{"weight_map": {"a": 1}}', "no json"):
        index.write_text(text)
        with pytest.raises(CheckpointError):
            open_tensors(index)


def test_a_path_that_is_not_there_or_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is not there"):
        open_tensors(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_tensors(tmp_path)


def test_gguf_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match="-m pip install gguf"):
        open_tensors(tmp_path / "a.gguf")


def test_a_full_size_file_is_known_at_once(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "x.safetensors", flux_shapes())
    assert path.stat().st_size > 23_800_000_000
    start = time.process_time()
    family, _ = recognise(open_tensors(path))
    assert time.process_time() - start < 0.5
    assert family is Family.FLUX_FILL


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    places = {"a": "two.safetensors", "b": "one.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=r"a is not in two\.safetensors"):
        open_tensors(index)


def test_telling_what_a_file_is_loads_no_model_library() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest\n"
        "from onereward_pack.local_backend.checkpoints import detect\n"
        "from onereward_pack.local_backend.checkpoints.readers import open\n"
        "print([m for m in ('diffusers', 'transformers', 'gguf', 'peft') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
