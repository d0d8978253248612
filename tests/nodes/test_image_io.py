from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fakes.fal_faults import bomb_png
from onereward_pack.nodes.errors import InputError
from onereward_pack.nodes.image_io import (
    data_uri,
    decode_image,
    decode_mask,
    encode_png,
    from_data_uri,
    to_bytes,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def file_of(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_8_bit_picture_survives_the_round_trip_exactly(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, len(mode)), np.uint8)
    data = file_of(Image.fromarray(pixels))
    tensor = decode_image(data)
    assert tensor.shape == (1, 9, 7, len(mode))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(tensor[0])))), pixels)


def test_grey_and_palette_pictures_become_rgb() -> None:
    grey = Image.new("L", (4, 3), 128)
    assert decode_image(file_of(grey)).shape == (1, 3, 4, 3)
    assert decode_image(file_of(grey.convert("P"))).shape == (1, 3, 4, 3)


def test_a_picture_taken_sideways_comes_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (8, 4))
    assert decode_image(file_of(picture, "JPEG", exif=exif)).shape == (1, 8, 4, 3)


def test_white_is_what_a_mask_changes() -> None:
    mask = Image.new("L", (5, 4), 0)
    mask.putpixel((2, 1), 255)
    tensor = decode_mask(file_of(mask))
    assert tensor.shape == (1, 4, 5)
    assert tensor[0, 1, 2] == 1
    assert tensor.sum() == 1


def test_values_outside_the_range_are_clipped_when_written() -> None:
    data = encode_png(torch.tensor([[[-1.0, 0.5, 2.0]]]))
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize("data", [b"", b"not a picture", file_of(Image.new("RGB", (64, 64)))[:60]])
def test_a_broken_file_is_refused_with_the_formats_that_work(data: bytes) -> None:
    with pytest.raises(InputError, match="not a readable picture.*PNG"):
        decode_image(data)


def test_a_mask_survives_the_round_trip_exactly_and_is_grey() -> None:
    mask = torch.arange(256).reshape(16, 16) / 255
    data = encode_png(mask)
    assert Image.open(io.BytesIO(data)).mode == "L"
    assert torch.equal(decode_mask(data)[0], mask)


@pytest.mark.parametrize("decode", [decode_image, decode_mask])
def test_16_bit_grey_is_scaled_and_not_cut_off(decode: Callable[[bytes], torch.Tensor]) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    found = decode(file_of(Image.fromarray(values))).reshape(1, 4, -1)[..., 0]
    assert (found * 255).round().tolist() == [[0, 1, 128, 255]]


def test_the_kind_of_float_does_not_change_the_file() -> None:
    pixels = torch.arange(256).reshape(16, 16) / 255
    for kind in (torch.float64, torch.float16):
        assert encode_png(pixels.to(kind)) == encode_png(pixels)


def test_the_bytes_of_pixels_are_those_of_their_file() -> None:
    pixels = torch.rand(7, 5, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    held = np.asarray(Image.open(io.BytesIO(encode_png(pixels))))
    assert to_bytes(pixels) == held.tobytes()


def test_a_file_survives_its_data_uri() -> None:
    data = bytes(range(256))
    uri = data_uri(data, "image/png")
    assert uri.startswith("data:image/png;base64,") and from_data_uri(uri) == data
    assert from_data_uri("data:;base64,") == b""
    assert from_data_uri("data:image/png;charset=utf-8;base64,AAAA") == bytes(3)


@pytest.mark.parametrize("uri", [
    "", "data:", "data:image/png", "data:image/png,AAAA", "image/png;base64,AAAA",
    "https://v3.fal.media/x.png", "data:image/png;base64 ,AAAA",
])  # fmt: skip
def test_what_is_no_data_uri_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is no data URI in base64"):
        from_data_uri(uri)


@pytest.mark.parametrize("text", ["A", "AAA", "AA=A", "A\nAAA", "AA-_", "\u00e4" * 4, "{}"])
def test_broken_base64_is_refused_without_showing_the_picture(text: str) -> None:
    with pytest.raises(InputError, match="data URI is broken") as failure:
        from_data_uri("data:image/png;base64," + "AAAA" * 1000 + text)
    assert len(str(failure.value)) < 200


def test_a_picture_larger_than_allowed_is_not_opened() -> None:
    data = file_of(Image.new("RGB", (20, 10)))
    assert decode_image(data, 200).shape == (1, 10, 20, 3)
    with pytest.raises(InputError, match="20x10 pixels; 199 are allowed"):
        decode_image(data, 199)


@pytest.mark.parametrize("side", [12_000, 30_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    swap = bomb_png(side, side).swap
    assert swap is not None
    with pytest.raises(InputError):
        decode_image(swap(b"")[0], 64_000_000)


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A good PNG with one more chunk, whose checksum is right."""
    first, *rest = chunks_of(file_of(Image.new("RGB", (8, 6))))
    return png_of([first, (kind, data), *rest])


def changed(kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A good PNG with a changed chunk, whose checksum is right."""
    chunks = chunks_of(file_of(Image.new("RGB", (8, 6))))
    return png_of([(name, change(data) if name == kind else data) for name, data in chunks])


# PIL answers each with an exception of another kind; a good checksum lets it look inside.
BROKEN_PNGS = {
    "a short header": changed(b"IHDR", lambda data: data[:9]),
    "an unknown depth": changed(b"IHDR", lambda data: data[:8] + b"\x05\x07\0\0\0"),
    "no size": changed(b"IHDR", lambda data: bytes(8) + data[8:]),
    "no pixels": png_of(chunks_of(file_of(Image.new("RGB", (8, 6))))[:1]),
    "pixels that are no zlib": changed(b"IDAT", lambda data: b"x" * len(data)),
    "half the pixels": changed(b"IDAT", lambda data: data[: len(data) // 2]),
    "a short resolution": with_chunk(b"pHYs", b"\0"),
    "a short gamma": with_chunk(b"gAMA", b"\0"),
    "a short frame count": with_chunk(b"acTL", b"\0"),
    "a frame cut short": with_chunk(b"acTL", struct.pack(">II", 2, 0))[:-12],
    "a text that grows": with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 << 20))),
    "an odd colour profile": with_chunk(b"iCCP", b"a\0\x05"),
    "an odd orientation": with_chunk(b"eXIf", b"MM\0\x11\0\0\0\x08"),
    "a short orientation": with_chunk(b"eXIf", b"M"),
    "a checksum that is wrong": file_of(Image.new("RGB", (8, 6)))[:-1] + b"\0",
    "a chunk of another length": file_of(Image.new("RGB", (8, 6))).replace(b"IDAT", b"ZDAT"),
}


@pytest.mark.parametrize("data", BROKEN_PNGS.values(), ids=BROKEN_PNGS.keys())
@pytest.mark.parametrize("read", [decode_image, decode_mask])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_broken_png_is_refused_or_read_and_raises_nothing_else(
    data: bytes, read: Callable[[bytes], object]
) -> None:
    try:
        read(data)
    except InputError as error:
        assert "not a readable picture" in str(error) and len(str(error)) < 400


@pytest.mark.parametrize("name", ["no size", "half the pixels", "a short header", "no pixels"])
def test_a_png_without_its_pixels_is_never_taken_for_a_picture(name: str) -> None:
    with pytest.raises(InputError, match="not a readable picture"):
        decode_image(BROKEN_PNGS[name])


def test_words_beside_the_pixels_do_no_harm() -> None:
    info = PngInfo()
    info.add_text("prompt", "x" * 1000, zip=True)
    picture = Image.new("RGB", (8, 6), (1, 2, 3))
    found = decode_image(file_of(picture, pnginfo=info, dpi=(72, 72), icc_profile=b"x" * 200))
    assert torch.equal(found, decode_image(file_of(picture)))


def test_a_format_that_would_start_another_program_is_not_opened() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "EPS")
    with pytest.raises(InputError, match="not a readable picture"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_a_fast_png_holds_the_same_values(channels: int | None) -> None:
    shape = (30, 40) if channels is None else (30, 40, channels)
    values = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3)) / 255
    fast, slow = encode_png(values, fast=True), encode_png(values)
    assert np.array_equal(Image.open(io.BytesIO(fast)), Image.open(io.BytesIO(slow)))
