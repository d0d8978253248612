"""The command line's pictures: 16 bits in, 16 bits out, and what cannot be read without loss."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onereward_pack.local_backend.cli.picture_files import encode_picture, read_picture
from onereward_pack.nodes.errors import InputError, MissingDependencyError
from onereward_pack.nodes.image_io import decode_image, decode_mask
from PIL import ExifTags, Image, ImageCms

RNG = np.random.default_rng(0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def values(channels: int, height: int = 23, width: int = 37) -> NDArray[np.uint16]:
    return RNG.integers(0, 65536, (height, width, channels)).astype(np.uint16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(pixels: NDArray[np.uint16], *more: bytes) -> bytes:
    """Written by hand, so that what reads it is not what wrote it."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + chunk(b"IEND", b"")


def tiff_of(pixels: NDArray[np.uint16], order: str = "<", **tags: int) -> bytes:
    """One uncompressed strip; `tags` by their names in PIL's list."""
    height, width, channels = pixels.shape
    base = ExifTags.Base
    entries = {
        base.ImageWidth: width, base.ImageLength: height, base.Compression: 1,
        base.BitsPerSample: (16,) * channels, base.SamplesPerPixel: channels,
        base.PhotometricInterpretation: 2 if channels > 2 else 1, base.RowsPerStrip: height,
        base.StripByteCounts: pixels.nbytes, base.PlanarConfiguration: 1,
    } | ({base.ExtraSamples: 2} if channels in (2, 4) else {})  # fmt: skip
    entries |= {base[name]: value for name, value in tags.items()}
    entries[base.StripOffsets] = 0
    end = 8 + 2 + 12 * len(entries) + 4
    extra = struct.pack(f"{order}{channels}H", *(16,) * channels)
    entries[base.StripOffsets] = end + len(extra)
    table = b""
    for tag, value in sorted(entries.items()):
        if isinstance(value, tuple):
            held = extra if len(extra) <= 4 else struct.pack(f"{order}I", end)
            table += struct.pack(f"{order}HHI", tag, 3, len(value)) + held.ljust(4, b"\0")
        else:
            table += struct.pack(f"{order}HHII", tag, 4, 1, value)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    count = struct.pack(f"{order}H", len(entries))
    return magic + count + table + bytes(4) + extra + pixels.astype(f"{order}u2").tobytes()


def read(tmp_path: Path, data: bytes) -> tuple[NDArray[np.uint16], int]:
    path = tmp_path / "picture"
    path.write_bytes(data)
    picture = read_picture(path)
    assert picture.pixels.dtype == torch.float32
    exact = picture.pixels[0].double() * (2**picture.bits - 1)
    assert (exact - exact.round()).abs().max() < 0.01
    return exact.round().numpy().astype(np.uint16), picture.bits


def decoded(png: bytes) -> NDArray[np.uint16]:
    """All 16 bits of a written file, as FFmpeg's reader of files sees them."""
    with av.open(io.BytesIO(png), format="png_pipe") as file:
        frame = next(file.decode(video=0))
    assert frame.format.name in ("rgb48be", "rgba64be")
    found = frame.to_ndarray()
    assert found.dtype.itemsize == 2
    return found.astype(np.uint16)


def as_rgb(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    grey = pixels.shape[-1] < 3
    return np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], -1) if grey else pixels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_16_bits_of_a_png_are_read_and_written(tmp_path: Path, channels: int) -> None:
    pixels = values(channels)
    found, bits = read(tmp_path, png_of(pixels))
    assert bits == 16 and np.array_equal(found, as_rgb(pixels))
    tensor = read_picture(tmp_path / "picture").pixels[0]
    assert np.array_equal(decoded(encode_picture(tensor, 16)), as_rgb(pixels))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_16_bits_of_a_tiff_are_read(tmp_path: Path, channels: int, order: str) -> None:
    pixels = values(channels)
    found, bits = read(tmp_path, tiff_of(pixels, order))
    assert bits == 16 and np.array_equal(found, as_rgb(pixels))


def test_every_one_of_the_65536_values_comes_back() -> None:
    every = torch.arange(65536).reshape(256, 256, 1).expand(-1, -1, 3) / 65535
    assert np.array_equal(decoded(encode_picture(every, 16))[..., 0].ravel(), np.arange(65536))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_of_16_bits_comes_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = values(3)
    # PIL's own turning of the upper 8 bits says where each pixel goes
    eight = io.BytesIO()
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(eight, "PNG", exif=exif)
    expected, bits = read(tmp_path, eight.getvalue())
    assert bits == 8
    for data in (png_of(pixels, chunk(b"eXIf", exif.tobytes()[6:])),
                 tiff_of(pixels, Orientation=orientation)):  # fmt: skip
        found, bits = read(tmp_path, data)
        assert bits == 16 and np.array_equal(found >> 8, expected)


def test_a_transparent_colour_of_16_bits_becomes_alpha(tmp_path: Path) -> None:
    pixels = values(3)
    key = chunk(b"tRNS", struct.pack(">HHH", *pixels[4, 5].tolist()))
    found, _ = read(tmp_path, png_of(pixels, key))
    assert found.shape[-1] == 4 and found[4, 5, 3] == 0 and (found[..., 3] == 0).sum() == 1
    assert np.array_equal(found[..., :3], pixels)


@pytest.mark.parametrize(("tags", "why"), [
    ({"TileWidth": 16}, "tiles"), ({"ExtraSamples": 1}, "alpha is multiplied in"),
    ({"PhotometricInterpretation": 6}, "neither RGB nor grey|of a kind that is not read"),
])  # fmt: skip
def test_a_tiff_that_would_come_out_wrong_is_refused(
    tmp_path: Path, tags: dict[str, int], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        read(tmp_path, tiff_of(values(4), **tags))


def test_a_16_bit_picture_without_pyav_is_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match="-m pip install av. Or save .* 8 bits"):
        read(tmp_path, png_of(values(3)))
    Image.new("RGB", (4, 4)).save(tmp_path / "picture", "PNG")
    assert encode_picture(read_picture(tmp_path / "picture").pixels[0]).startswith(b"\x89PNG")


@pytest.mark.parametrize("data", [png_of(values(3))[:400], tiff_of(values(3))[:400]])
def test_a_16_bit_picture_cut_short_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="picture"):
        read(tmp_path, data)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_colour_profile_goes_with_the_pixels(tmp_path: Path, kind: str, bits: int) -> None:
    path = tmp_path / "picture"
    Image.new("RGB", (9, 7), (200, 30, 40)).save(path, kind, icc_profile=SRGB)
    picture = read_picture(path)
    assert picture.profile == SRGB and picture.notes == ()
    with Image.open(io.BytesIO(encode_picture(picture.pixels[0], bits, SRGB))) as written:
        assert written.info["icc_profile"] == SRGB
        written.load()


def test_a_profile_of_other_colours_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    profile = SRGB[:16] + b"CMYK" + SRGB[20:]
    Image.new("CMYK", (9, 7)).save(path, "JPEG", icc_profile=profile)
    picture = read_picture(path)
    assert picture.profile == b"" and "profile is not for RGB" in picture.notes[0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_used_and_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "moving"
    first, second = Image.new("RGB", (9, 7), "white"), Image.new("RGB", (9, 7), "red")
    first.save(path, kind, save_all=True, append_images=[second])
    picture = read_picture(path)
    assert picture.pixels.min() > 0.99
    assert picture.notes == (f"{path} holds 2 pictures; the first one is used.",)


def test_a_file_that_is_none_or_empty_is_said_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.png").write_text("no picture")
    for name, words in {"": "Cannot read .*: Is a directory", "gone.png": "No such file",
                        "empty.png": r"empty.png is empty \(0 bytes\)",
                        "words.png": "words.png is not a readable picture"}.items():  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_picture(tmp_path / name)


@pytest.mark.parametrize(
    ("channels", "tags"),
    [(1, {"PhotometricInterpretation": 0}), (3, {"PlanarConfiguration": 2}), (5, {})],
)
def test_a_tiff_that_pil_reads_wrong_is_refused_as_a_mask(
    channels: int, tags: dict[str, int]
) -> None:
    with pytest.raises(InputError, match=r"^m\.tif is a .*TIFF.* Save it as a PNG\.$"):
        decode_mask(tiff_of(values(channels), **tags), name="m.tif")


def test_a_lab_tiff_has_no_alpha() -> None:
    file = io.BytesIO()
    Image.new("LAB", (8, 6), (120, 130, 140)).save(file, "TIFF")
    assert decode_image(file.getvalue()).shape == (1, 6, 8, 3)


def test_what_a_decoder_says_of_a_broken_file_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libavif's refusals come as RuntimeError."""

    def load(self: Image.Image) -> None:
        raise RuntimeError("Failed to decode image")

    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "BMP")
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(InputError, match=r"a\.avif is not a readable picture \(Failed"):
        decode_image(file.getvalue(), name="a.avif")
