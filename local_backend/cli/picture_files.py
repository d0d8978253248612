"""The command line's pictures: read with 8 or 16 bits a channel, written as a PNG with as many.

PIL makes 8 bits of 16-bit colour and says nothing. PyAV, which ComfyUI itself reads pictures with,
keeps all 16 of a PNG and of most TIFFs; it is asked only where there are 16.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ...nodes.errors import InputError, MissingDependencyError
from ...nodes.image_io import decode_image, encode_png, has_alpha, opened

if TYPE_CHECKING:
    from torch import Tensor

DEEP = 65535
PNG_DEPTH, PNG_HEAD = 24, 33  # where the bits a channel stand, and where the first chunk ends
SAMPLE_FORMAT = 339  # of TIFF, and not in PIL's list
# PyAV's names of what it decodes to, less the byte order: how many channels lie side by side.
PACKED = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}
# Or in planes of their own, which stand for these channels.
PLANES = {"gbrp16": (1, 2, 0), "gbrap16": (1, 2, 0, 3)}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as its file has it.

    Attributes:
        pixels: float [1, H, W, 3 or 4] in 0..1, upright.
        bits: 8 or 16 a channel.
        profile: the ICC profile of its colours; empty for none.
        notes: what the user should know of the reading.
    """

    pixels: Tensor
    bits: int
    profile: bytes
    notes: tuple[str, ...]


def read_file(path: Path) -> bytes:
    """All of a file; InputError if it cannot be read or holds nothing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}. Check the file name.") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes). Save it again, or choose another file.")
    return data


def read_picture(path: Path) -> Picture:
    """A picture file at its own depth; of several pictures the first.

    Raises:
        InputError: it cannot be read, or not without loss.
        MissingDependencyError: it has 16 bits, and PyAV is not installed.
    """
    data, name = read_file(path), str(path)
    with opened(io.BytesIO(data), name) as header:
        bits = _bits(header, data)
        notes = _notes(header, name)
        profile = header.info.get("icc_profile") or b""
        if bits == 16:
            pixels = _deep_pixels(header, data, name)
    if bits == 8:
        pixels = decode_image(data, name=name)
    if profile[16:20] not in (b"", b"RGB "):  # CMYK's or grey's, and the result is RGB
        notes, profile = (
            (*notes, f"{name}: its colour profile is not for RGB and is left out."),
            b"",
        )
    return Picture(pixels, bits, profile, notes)


def encode_picture(pixels: Tensor, bits: int = 8, profile: bytes = b"") -> bytes:
    """float [H, W, 3 or 4] as a PNG; values from a file of as many bits come back exactly."""
    png = _deep_png(pixels) if bits == 16 else encode_png(pixels)
    if not profile:
        return png
    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:PNG_HEAD] + chunk + png[PNG_HEAD:]


def _bits(picture: Image.Image, data: bytes) -> int:
    """Bits per channel, as the PNG's or TIFF's header gives them; PIL's modes do not show them."""
    if picture.format == "PNG":
        return max(8, data[PNG_DEPTH])
    if picture.format == "TIFF":
        return 16 if 8 < max(_tag(picture, ExifTags.Base.BitsPerSample, 1)) <= 16 else 8
    return 8


def _notes(picture: Image.Image, name: str) -> tuple[str, ...]:
    count = getattr(picture, "n_frames", 1)
    if count == 1 or picture.format == "MPO":  # whose others are views or a thumbnail
        return ()
    return (f"{name} holds {count} pictures; the first one is used.",)


def _tag(picture: Image.Image, tag: int, default: int) -> tuple[int, ...]:
    """A TIFF's tag, which is one value or several."""
    value = picture.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # of a TIFF
    return value if isinstance(value, tuple) else (value,)


def _deep_pixels(picture: Image.Image, data: bytes, name: str) -> Tensor:
    if picture.format == "TIFF":
        _check_tiff(picture, name)
    values = _decoded(data, str(picture.format).lower(), name)
    values = _upright(values, picture.getexif().get(ExifTags.Base.Orientation, 1))
    if values.shape[-1] < 3:
        values = values[..., [0, 0, 0, *range(1, values.shape[-1])]]
    elif not has_alpha(picture) and "transparency" not in picture.info:
        values = values[..., :3]  # a TIFF's fourth channel may be anything
    return torch.from_numpy(values.astype(np.float32)).div(DEEP)[None]


def _check_tiff(picture: Image.Image, name: str) -> None:
    """PyAV reads tiles without an error, but wrong."""
    tags = ExifTags.Base
    wrong = {
        "its pixels lie in tiles": _tag(picture, tags.TileWidth, 0) != (0,),
        "its alpha is multiplied in": _tag(picture, tags.ExtraSamples, 2)[0] == 1,
        "its numbers have a sign or a point": set(_tag(picture, SAMPLE_FORMAT, 1)) != {1},
        "it is neither RGB nor grey": _tag(picture, tags.PhotometricInterpretation, 0)[0]
        not in (1, 2),
    }
    for why in (reason for reason, is_so in wrong.items() if is_so):
        raise InputError(
            f"{name} is a 16-bit TIFF that cannot be read without loss ({why}). "
            "Save it as a 16-bit PNG."
        )


def _decoded(data: bytes, kind: str, name: str) -> NDArray[np.uint16]:
    """[H, W, channels] as PyAV's decoder of this name finds them."""
    av = _pyav()
    try:
        codec = av.CodecContext.create(kind, "r")
        frame = [*codec.decode(av.Packet(data)), *codec.decode(None)][0]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(
            f"{name} has 16 bits a channel, and PyAV cannot read it ({error}). "
            "Save it as a 16-bit PNG."
        ) from error
    layout, order = frame.format.name[:-2], ">" if frame.format.name.endswith("be") else "<"
    if layout in PACKED:
        return _plane(frame.planes[0], frame, PACKED[layout], order)
    if layout in PLANES:
        planes = [_plane(plane, frame, 1, order) for plane in frame.planes]
        return np.concatenate([planes[PLANES[layout].index(i)] for i in range(len(planes))], -1)
    raise InputError(
        f"{name} has 16 bits a channel in a form that is not read here ({frame.format.name}). "
        "Save it as a 16-bit PNG."
    )


def _plane(plane: Any, frame: Any, channels: int, order: str) -> NDArray[np.uint16]:
    width = frame.width * channels * 2
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, :width]
    values = np.ascontiguousarray(rows).view(f"{order}u2").astype(np.uint16)
    return values.reshape(frame.height, frame.width, channels)


def _upright(values: NDArray[np.uint16], orientation: int) -> NDArray[np.uint16]:
    """As the orientation of EXIF says: 5 to 8 are the first four with rows for columns."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    rows, columns = {
        2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)
    }.get(orientation, (1, 1))  # fmt: skip
    return values[::rows, ::columns]


def _deep_png(pixels: Tensor) -> bytes:
    av = _pyav()
    height, width, channels = pixels.shape
    kind = "rgba64be" if channels == 4 else "rgb48be"
    values = pixels.float().clamp(0, 1).mul(DEEP).round().cpu().numpy().astype(">u2", order="C")
    frame = av.VideoFrame(width, height, kind)
    rows = np.zeros((height, frame.planes[0].line_size), np.uint8)
    rows[:, : width * channels * 2] = values.view(np.uint8).reshape(height, -1)
    frame.planes[0].update(rows)
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, kind, Fraction(1)
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def _pyav() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "The picture has 16 bits a channel, which PyAV keeps, and that is not installed. "
            f'Run: "{sys.executable}" -m pip install av. Or save the picture with 8 bits.'
        ) from error
    return av
