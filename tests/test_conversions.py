from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from onereward_pack.nodes.conversions import decode_image, decode_mask, encode_png
from onereward_pack.nodes.errors import InputError
from PIL import Image


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
