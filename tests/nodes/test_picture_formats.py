"""The formats that people have pictures and masks in, everywhere the pack opens files itself: as
results and on the command line, in the plan, and on the server.
"""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from onereward_pack.local_backend.server.messages import Failed
from onereward_pack.local_backend.server.storage.decode import read_picture
from onereward_pack.nodes.edit.plan import BatchSize
from onereward_pack.nodes.errors import InputError
from onereward_pack.nodes.estimate import inputs
from onereward_pack.nodes.image_io import (
    decode_image,
    decode_mask,
    format_names,
    formats,
    mask_parts,
)
from PIL import ExifTags, Image, features

KINDS = ["PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "GIF"]
TURNED = [("JPEG", "RGB"), *product(["PNG", "WEBP", "TIFF"], ["RGB", "RGBA"])]
HERE = [kind for kind in KINDS if kind != "AVIF" or features.check("avif")]
LIMIT = 1_000_000
SCENE = Image.new("RGB", (40, 24))
SCENE.paste((255, 255, 255), (8, 4, 24, 16))


def file_of(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    more = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    picture.save(buffer, kind, **more, **options)
    return buffer.getvalue()


def with_alpha(mode: str = "RGBA") -> Image.Image:
    """Opaque strokes where SCENE is white, on nothing at all: the same white, transparent."""
    picture = Image.new("RGB", SCENE.size, (255, 255, 255))
    picture.putalpha(SCENE.convert("L"))
    return picture.convert(mode)


def close(pixels: torch.Tensor, channels: int | None) -> bool:
    """Whether they are SCENE's, but for what a lossy format and a GIF's palette change."""
    grey = torch.from_numpy(np.array(SCENE.convert("L"))) / 255
    want = grey if channels is None else grey[..., None].expand(*grey.shape, channels)
    return pixels.shape == (1, *want.shape) and bool((pixels[0] - want).abs().mean() < 0.03)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """estimate.inputs, while ComfyUI's loader is none yet."""
    monkeypatch.delitem(sys.modules, "nodes", raising=False)
    return inputs


@pytest.fixture(params=["PIL", "PyAV"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A LoadImage in the words of ComfyUI 0.3.75, or of 0.33."""

    class ByPil:
        def load_image(self, image: str) -> object:
            return node_helpers.pillow(Image.open, image)  # type: ignore[name-defined] # noqa: F821

    class ByAv:
        def load_image(self, image: str) -> object:
            return InputImpl.VideoFromFile(image).get_components()  # type: ignore[name-defined] # noqa: F821

    comfy = types.ModuleType("nodes")
    comfy.LoadImage = ByAv if request.param == "PyAV" else ByPil  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nodes", comfy)
    return str(request.param)


def test_what_can_be_read_is_named_and_nothing_else() -> None:
    assert set(formats()) == set(HERE) - {"MPO"}
    assert format_names().startswith("PNG, JPEG, WebP, ") and format_names().endswith(" or GIF")
    assert ("AVIF" in format_names()) == features.check("avif")


@pytest.mark.parametrize("kind", HERE)
def test_a_picture_and_a_mask_are_read_in_every_format(kind: str) -> None:
    data = file_of(SCENE, kind)
    assert close(decode_image(data), 3) and close(decode_mask(data), None)


@pytest.mark.parametrize("kind", HERE)
def test_the_server_reads_a_picture_and_a_mask_in_every_format(kind: str) -> None:
    data = file_of(SCENE, kind)
    picture, mask = (read_picture(data, f"{name}_url", LIMIT) for name in ("image", "mask"))
    assert not isinstance(picture, Failed) and close(picture, 3)
    assert not isinstance(mask, Failed) and close(mask, None)


@pytest.mark.parametrize("kind", HERE)
def test_the_plan_reads_a_picture_and_a_mask_in_every_format(
    plan: inputs, loader: str, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(file_of(SCENE, kind))
    assert plan.picture_size(str(path)) == BatchSize(1, 24, 40)
    assert close(plan.read_mask(str(path), "red") / 255, None)
    assert not plan.read_mask(str(path), "alpha").any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "mode"), TURNED)
def test_a_turned_picture_is_upright_and_planned_so(
    plan: inputs, tmp_path: Path, mode: str, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    scene = SCENE.copy()
    scene.putalpha(SCENE.convert("L").point(lambda value: 255 - value))
    path = tmp_path / "picture"
    path.write_bytes(file_of(scene.convert(mode), kind, exif=exif))
    size = (24, 40) if orientation < 5 else (40, 24)
    decoded = decode_image(path.read_bytes())
    assert decoded.shape[1:3] == size
    assert plan.picture_size(str(path)) == BatchSize(1, *size)
    red = plan.read_mask(str(path), "red")
    assert (red / 255 - decoded[..., 0]).abs().max() < 0.01
    # What is told from a turned picture is where its corner goes.
    turned = {1: (8, 4), 2: (16, 4), 3: (16, 8), 4: (8, 8), 5: (4, 8), 6: (8, 8), 7: (8, 16),
              8: (4, 16)}[orientation]  # fmt: skip
    rows, columns = (decoded[0, ..., 0] > 0.5).nonzero().amin(0).tolist()
    assert (columns, rows) == turned
    if mode == "RGBA":
        assert torch.equal(plan.read_mask(str(path), "alpha"), red)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_white_that_is_transparent_is_not_what_a_mask_changes(mode: str, kind: str) -> None:
    data = file_of(with_alpha(mode if kind == "PNG" else "RGBA"), kind)
    assert close(decode_mask(data), None)
    served = read_picture(data, "mask_url", LIMIT)
    assert isinstance(served, torch.Tensor) and close(served, None)


def keyed(mode: str) -> bytes:
    """White outside of SCENE's box as a PNG's transparent value, and white-ish inside."""
    values = np.where(np.array(SCENE.convert("L")) > 0, 250, 255).astype(np.uint8)
    grey = Image.fromarray(values)
    if mode == "I;16":
        deep = Image.fromarray(values.astype(np.uint16) * 257)
        return file_of(deep, "PNG", transparency=65535)
    if mode == "P":
        palette = grey.convert("RGB").quantize(2)
        return file_of(palette, "PNG", transparency=palette.getpixel((0, 0)))
    return file_of(
        grey.convert(mode), "PNG", transparency=(255, 255, 255) if mode == "RGB" else 255
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
def test_a_transparent_colour_is_transparent_in_pictures_and_masks(mode: str) -> None:
    data = keyed(mode)
    assert decode_image(data).shape == (1, 24, 40, 4)
    assert close(decode_mask(data), None)
    white, opaque = mask_parts(data)
    assert white.min() > 0.9 and close(opaque, None)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_transparent_colour_is_a_mask_where_the_running_comfyui_makes_one(
    plan: inputs, loader: str, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "keyed.png"
    path.write_bytes(keyed(mode))
    mask = plan.read_mask(str(path), "alpha")
    if loader == "PIL" and mode != "P":
        assert mask.shape == (1, 64, 64) and not mask.any()
    else:
        assert close(1 - mask / 255, None)


def test_a_palette_without_transparency_has_an_empty_mask(
    plan: inputs, loader: str, tmp_path: Path
) -> None:
    path = tmp_path / "palette.png"
    SCENE.quantize(4).save(path)
    assert not plan.read_mask(str(path), "alpha").any()


def test_pages_and_frames_are_counted_as_the_running_comfyui_loads_them(
    plan: inputs, loader: str, tmp_path: Path
) -> None:
    more = [SCENE.transpose(Image.Transpose.ROTATE_180), SCENE.resize((20, 12))]
    pages, frames, views = (tmp_path / name for name in ("pages.tiff", "frames.png", "views.mpo"))
    SCENE.save(pages, save_all=True, append_images=more)
    SCENE.save(frames, save_all=True, append_images=more[:1])
    SCENE.save(views, save_all=True, append_images=more[:1])
    counts = [plan.picture_size(str(path)).pictures for path in (pages, frames, views)]
    assert counts == ([2, 2, 1] if loader == "PIL" else [1, 2, 1])


def float_tiff() -> bytes:
    return file_of(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")


@pytest.mark.parametrize(("data", "words"), [
    (b"", "0 bytes is not a readable picture .its format is not known."),
    (b"BM", "not a readable picture"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "not a readable picture"),
    (file_of(SCENE, "WEBP")[:-9], "not a readable picture"),
    (file_of(SCENE, "TIFF")[:-900], "not a readable picture"),
    (file_of(SCENE, "GIF")[:-30], "not a readable picture"),
    (float_tiff(), "floating-point numbers, which do not say what is white. Save it with 8 or 16"),
    (file_of(Image.new("I", (4, 4)), "TIFF"), "whole numbers of 32 bits"),
])  # fmt: skip
@pytest.mark.parametrize("read", [decode_image, decode_mask])
def test_what_cannot_be_read_is_one_sentence_with_what_can(
    data: bytes, words: str, read: Callable[[bytes], object]
) -> None:
    with pytest.raises(InputError, match=words) as failure:
        read(data)
    assert "0x" not in str(failure.value)  # no address in memory
    assert format_names() in str(failure.value) or "Save it with" in str(failure.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_a_file_becomes_rgb_or_rgba(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode == "PA" else "PNG"
    found = decode_image(file_of(SCENE.convert(mode), kind))
    assert found.shape == (1, 24, 40, 4 if mode.endswith("A") else 3)
    assert close(found[..., :3], 3)
