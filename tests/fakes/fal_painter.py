"""The fake model: checks a OneReward request, fills the mask with a colour, keeps the files."""

from __future__ import annotations

import base64
import binascii
import io
import random
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from fakes.fal_faults import Entries, Outcome, Reply, error_entry, json_reply
from numpy.typing import NDArray
from PIL import Image

DRIFT = 2  # of 255: what the VAE does to pixels outside the mask
CHOICES = {"acceleration": ("none", "regular", "high"), "output_format": ("jpeg", "png")}
NULLABLE = ("prompt", "seed")
KINDS: dict[str, tuple[tuple[type, ...], str, str]] = {
    **dict.fromkeys(
        ("image_url", "mask_url", "prompt", "negative_prompt"),
        ((str,), "string_type", "Input should be a valid string"),
    ),
    **dict.fromkeys(
        ("num_inference_steps", "num_images", "seed"),
        ((int,), "int_type", "Input should be a valid integer"),
    ),
    **dict.fromkeys(
        ("guidance_scale", "true_cfg"),
        ((int, float), "float_type", "Input should be a valid number"),
    ),
    **dict.fromkeys(
        ("sync_mode", "enable_safety_checker"),
        ((bool,), "bool_type", "Input should be a valid boolean"),
    ),
}


class Refused(Exception):
    """The model's 422."""

    def __init__(self, entries: Entries) -> None:
        super().__init__(entries[0]["msg"])
        self.reply = json_reply(422, {"detail": entries}, {"x-fal-billable-units": "0"})


class Files:
    """What lies under /files: name -> (bytes, content type). `base` is the server's address."""

    def __init__(self) -> None:
        self.base = ""
        self._held: dict[str, tuple[bytes, str]] = {}

    def name(self, content_type: str) -> str:
        """A new name that nobody can guess."""
        return f"{uuid.uuid4().hex}.{content_type.partition('/')[2] or 'bin'}"

    def put(self, name: str, data: bytes, content_type: str) -> str:
        """Keep the file; its URL."""
        self._held[name] = (data, content_type)
        return self.url(name)

    def url(self, name: str) -> str:
        return f"{self.base}/files/{name}"

    def get(self, name: str) -> tuple[bytes, str] | None:
        return self._held.get(name)


def seed_colour(seed: int) -> tuple[int, int, int]:
    """What picture number i of a job is filled with is seed_colour(seed + i)."""
    return seed * 37 % 200 + 28, seed * 101 % 200 + 28, seed * 61 % 200 + 28


def paint(arguments: Mapping[str, Any], outcome: Outcome, files: Files) -> tuple[Reply, float]:
    """The model's answer, and the megapixels that it made."""
    if outcome.error is not None:
        return outcome.error(arguments), 0.0
    try:
        _check(arguments)
        image = np.asarray(_load(arguments, "image_url", files).convert("RGB"))
        mask = np.asarray(_load(arguments, "mask_url", files).convert("L")) > 127
        if mask.shape != image.shape[:2]:
            sizes = [f"{a.shape[1]}x{a.shape[0]}" for a in (mask, image)]
            message = f"Value error, mask is {sizes[0]}, image is {sizes[1]}"
            raise Refused([_entry(arguments, "mask_url", "value_error", message)])
    except Refused as refusal:
        return refusal.reply, 0.0
    return _result(arguments, outcome, files, image, mask)


def _check(arguments: Mapping[str, Any]) -> None:
    entries: Entries = []
    for name in ("image_url", "mask_url"):
        if name not in arguments:
            entry = _entry(arguments, name, "missing", "Field required")
            entries.append({**entry, "input": dict(arguments)})
    for name, value in arguments.items():
        if name in KINDS and not (value is None and name in NULLABLE):
            types, kind, message = KINDS[name]
            if type(value) not in types:
                entries.append(_entry(arguments, name, kind, message))
            elif name.startswith("num_") and value < 1:
                message = "Input should be greater than or equal to 1"
                entries.append(_entry(arguments, name, "greater_than_equal", message, {"ge": 1}))
        if name in CHOICES and value not in CHOICES[name]:
            words = " or ".join(f"'{choice}'" for choice in CHOICES[name])
            ctx = {"expected": words}
            entries.append(
                _entry(arguments, name, "literal_error", f"Input should be {words}", ctx)
            )
    if entries:
        raise Refused(entries)


def _entry(
    arguments: Mapping[str, Any],
    name: str,
    kind: str,
    message: str,
    ctx: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    return {**error_entry(name, kind, message, ctx or {}), "input": arguments.get(name)}


def _load(arguments: Mapping[str, Any], name: str, files: Files) -> Image.Image:
    """A data URI or one of the server's own files; nothing else is fetched."""
    url = arguments[name]
    try:
        if url.startswith("data:"):
            head, _, text = url.partition(",")
            data = base64.b64decode(text, validate=True) if head.endswith(";base64") else b""
        else:
            held = files.get(url.removeprefix(files.url("")))
            if held is None:
                message = "Failed to download the file"
                raise Refused([_entry(arguments, name, "file_download_error", message)])
            data = held[0]
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    except (OSError, ValueError, binascii.Error) as error:
        message = "Could not load the image"
        raise Refused([_entry(arguments, name, "image_load_error", message)]) from error


def _result(
    arguments: Mapping[str, Any],
    outcome: Outcome,
    files: Files,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
) -> tuple[Reply, float]:
    seed = arguments.get("seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    black = outcome.flagged and arguments.get("enable_safety_checker", True)
    count = 0 if outcome.no_images else arguments.get("num_images", 1)
    pictures = [_painted(image, mask, seed + i, black, outcome.size) for i in range(count)]
    body = {
        "images": [_kept(arguments, outcome, files, picture) for picture in pictures],
        "seed": seed,
        "has_nsfw_concepts": [black] * count,
        "prompt": arguments.get("prompt") or "",
        "timings": {"inference": 0.01},
    }
    return json_reply(200, body), sum(p.width * p.height for p in pictures) / 1e6


def _painted(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    seed: int,
    black: bool,
    size: tuple[int, int] | None,
) -> Image.Image:
    kept = np.minimum(image.astype(np.int16) + DRIFT, 255)
    filled = np.where(mask[..., None], np.array(seed_colour(seed)), kept)
    picture = Image.fromarray((filled * (not black)).astype(np.uint8))
    return picture.resize(size) if size else picture


def _kept(
    arguments: Mapping[str, Any], outcome: Outcome, files: Files, picture: Image.Image
) -> dict[str, Any]:
    """One entry of `images`; its file lies under /files or in the entry itself."""
    form = arguments.get("output_format", "jpeg")
    kind = f"image/{form}"
    buffer = io.BytesIO()
    picture.save(buffer, form.upper(), **({"quality": 95} if form == "jpeg" else {}))
    data, sent_as = buffer.getvalue(), kind
    if outcome.swap is not None:
        data, other = outcome.swap(data)
        sent_as = other or kind
    if outcome.file_url:
        url = outcome.file_url
    elif outcome.inline or arguments.get("sync_mode", False):
        url = f"data:{sent_as};base64," + base64.b64encode(data).decode()
    else:
        url = files.put(files.name(kind), data, sent_as)
    size = {"width": picture.width, "height": picture.height}
    return {"url": url, **size, "content_type": kind, "file_name": None, "file_size": None}
