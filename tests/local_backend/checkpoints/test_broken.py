"""Broken and wrong files: one sentence each, from the header, before any weight is read."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import zipfile
from pathlib import Path

import gguf
import pytest
import torch
from fakes.layouts import write_transformer
from fakes.layouts_gguf import write_gguf_transformer
from fakes.refusals import refusal
from fakes.sparse import flux_shapes, write_header, write_sparse
from fakes.tiny_flux import TinyFlux, tiny_flux_fill
from gguf import GGMLQuantizationType as Kind
from onereward_pack.local_backend.checkpoints.load import (
    open_clip,
    open_t5,
    open_transformer,
    open_vae,
)
from onereward_pack.local_backend.checkpoints.readers.open import open_tensors

OPENERS = [open_transformer, open_t5, open_clip, open_vae]
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.fixture(scope="module")
def flux() -> TinyFlux:
    return tiny_flux_fill()


@pytest.mark.parametrize("bytes_left", [0, 7, 100, -1, -1000])
def test_a_truncated_safetensors_file_is_refused(
    tmp_path: Path, flux: TinyFlux, bytes_left: int
) -> None:
    path = write_transformer(tmp_path, flux.transformer).path
    with path.open("r+b") as file:
        file.truncate(bytes_left if bytes_left >= 0 else path.stat().st_size + bytes_left)
    assert "is damaged or cut short" in refusal(open_transformer, path)


def test_every_truncation_of_a_gguf_header_is_refused(tmp_path: Path, flux: TinyFlux) -> None:
    path = write_gguf_transformer(tmp_path, flux.transformer, Kind.Q8_0).path
    whole = path.read_bytes()
    header = gguf.GGUFReader(path).data_offset
    for size in [*range(4, header, 97), header, len(whole) - 4096]:
        path.write_bytes(whole[:size])
        assert "is damaged or cut short" in refusal(open_transformer, path)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_field(kind: int, inner: int, count: int) -> bytes:
    return GGUF + struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", kind, inner, count)


def gguf_tensor(values: int, kind: int, offset: int = 0, count: int = 1) -> bytes:
    entry = text(b"a") + struct.pack("<IQIQ", 1, values, kind, offset)
    return GGUF + struct.pack("<QQ", count, 0) + count * entry + bytes(99)


GGUF = b"GGUF" + struct.pack("<I", 3)
HUGE = 1 << 60
BROKEN_GGUF = {
    "version": b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    "counts": GGUF + struct.pack("<QQ", HUGE, HUGE),
    "endless array": gguf_field(9, 4, HUGE),
    "endless words": gguf_field(9, 8, HUGE),
    "endless name": GGUF + struct.pack("<QQQ", 0, 1, HUGE),
    "field of no kind": gguf_field(99, 0, 0),
    "tensor of no type": gguf_tensor(32, 99),
    "many dimensions": GGUF + struct.pack("<QQ", 1, 0) + text(b"a") + struct.pack("<I", 1 << 30),
    "half a block": gguf_tensor(33, 8),
    "beyond the end": gguf_tensor(32, 0, HUGE),
    "twice": gguf_tensor(1, 0, count=2),
}


@pytest.mark.parametrize("case", BROKEN_GGUF)
def test_a_broken_gguf_header_is_refused_at_once(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(BROKEN_GGUF[case])
    start = time.process_time()
    refusal(open_tensors, path)
    assert time.process_time() - start < 1


BROKEN_HEADERS: dict[str, tuple[bytes, int, str]] = {
    "no json": (b"{nonsense", 0, "not JSON"),
    "no table": (b"[1]", 0, "not a table"),
    "nested": (b'{"a":' * 40_000, 0, "not JSON"),
    "no entry": (b'{"a": 1}', 0, "does not describe a"),
    "type": (json.dumps({"a": ENTRY | {"dtype": "X9"}}).encode(), 8, "does not describe a"),
    "negative": (
        json.dumps({"a": ENTRY | {"shape": [-2], "data_offsets": [8, 0]}}).encode(), 8,
        "a place that no tensor can have",
    ),
    "size": (json.dumps({"a": ENTRY | {"shape": [3]}}).encode(), 8, "would take 12 bytes but has"),
    "room": (json.dumps({"a": ENTRY | {"shape": [1]}}).encode(), 8, "would take 4 bytes but has 8"),
    "overlap": (
        json.dumps({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}).encode(), 12,
        "b overlaps another tensor",
    ),
    "gap": (json.dumps({"a": ENTRY | {"data_offsets": [4, 12]}}).encode(), 12, "leaves a gap"),
    "short": (json.dumps({"a": ENTRY}).encode(), 7, "holds 7 of the 8 bytes"),
    "long": (json.dumps({"a": ENTRY}).encode(), 9, "1 bytes follow"),
}  # fmt: skip


def test_a_gguf_file_that_ends_within_its_last_tensor_is_refused(
    tmp_path: Path, flux: TinyFlux
) -> None:
    path = write_gguf_transformer(tmp_path, flux.transformer, Kind.Q8_0).path
    last = max(gguf.GGUFReader(path).tensors, key=lambda tensor: tensor.data_offset)
    with path.open("r+b") as file:
        file.truncate(last.data_offset + last.n_bytes - 1)
    assert f"{last.name} ends at byte" in refusal(open_transformer, path)


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_a_broken_safetensors_header_is_refused(tmp_path: Path, case: str) -> None:
    header, size, words = BROKEN_HEADERS[case]
    path = write_header(tmp_path / "a.safetensors", header, size)
    assert words in refusal(open_tensors, path)


@pytest.mark.parametrize("length", [0, 1, 100_000_001, (1 << 64) - 1])
def test_an_absurd_header_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(100))
    assert f"its header would be {length} bytes long" in refusal(open_tensors, path)


def pickles() -> dict[str, bytes]:
    zipped = io.BytesIO()
    torch.save({"a": torch.ones(3)}, zipped)
    old = io.BytesIO()
    torch.save({"a": torch.ones(3)}, old, _use_new_zipfile_serialization=False)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", "b")
    plain = {f"protocol {p}": pickle.dumps({"a": 1}, protocol=p) for p in (2, 3, 4, 5)}
    return plain | {
        "torch": zipped.getvalue(),
        "old torch": old.getvalue(),
        "zip": archive.getvalue(),
    }


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors", "a.gguf", "a.bin"])
def test_a_pickle_is_refused_under_any_name(tmp_path: Path, name: str) -> None:
    for content in pickles().values():
        path = tmp_path / name
        path.write_bytes(content)
        for opener in (open_tensors, *OPENERS):
            assert "is a pickle or a zip file" in refusal(opener, path)


def test_what_a_failed_download_leaves_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert "is a Git LFS pointer" in refusal(open_tensors, path)
    path.write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>")
    assert "is a web page" in refusal(open_tensors, path)


def test_flux_dev_of_full_size_is_refused_from_its_header_alone(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "fill-OneReward.safetensors", flux_shapes(in_channels=64))
    start = time.process_time()
    said = refusal(open_transformer, path)
    assert time.process_time() - start < 1
    assert "is FLUX.1-dev, whose image input is 64 wide" in said
