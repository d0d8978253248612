"""Draws every sprite once: Noto Color Emoji, plain shapes, words in DejaVu Sans Bold."""

from __future__ import annotations

import io
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .objects import OBJECTS
from .shapes import shape_alpha
from .vocabulary import COLORS, SHAPES, WORDS

log = logging.getLogger("onereward")

#: where Debian's fonts-noto-color-emoji and fonts-dejavu-core put them
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
TEXT_FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
#: scikit-image's sample photos that are CC0 or in the public domain
PHOTOS = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
)
SPRITE_SIDE = 128
WORD_HEIGHT, WORD_WIDTH = 64, 256
RANDOM_WORDS = 2400

Pixels = NDArray[np.uint8]


def _emoji(char: str, font: ImageFont.FreeTypeFont) -> Pixels:
    """RGBA of one emoji, centred in a square."""
    page = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(page).text((20, 20), char, font=font, embedded_color=True)
    box = page.getbbox()
    if box is None:
        raise ValueError(f"the emoji font has no picture for {char!r}. Use Noto Color Emoji.")
    glyph = page.crop(box)
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return np.asarray(square.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.LANCZOS))


def _shape(shape: str, rgb: tuple[int, int, int]) -> Pixels:
    """RGBA of one coloured shape, a little lighter at the top."""
    side = SPRITE_SIDE
    shade = np.linspace(1.06, 0.90, side)[:, None, None]
    pixels = np.clip(np.array(rgb)[None, None] * shade, 0, 255) * np.ones((side, side, 1))
    alpha = shape_alpha(shape, side)[..., None] * 255
    rgba: Pixels = np.concatenate([pixels, alpha], -1).round().astype(np.uint8)
    return rgba


def word_alpha(text: str, font_path: Path) -> tuple[Pixels, float, float]:
    """White text as large as fits its canvas; the alpha, and the share of width and height used."""
    font = ImageFont.truetype(str(font_path), 120)
    left, top, right, bottom = (int(v) for v in font.getbbox(text))
    line = Image.new("L", (right - left + 8, bottom - top + 8), 0)
    ImageDraw.Draw(line).text((4 - left, 4 - top), text, font=font, fill=255)
    scale = min(WORD_WIDTH / line.width, WORD_HEIGHT / line.height)
    width = max(1, round(line.width * scale))
    height = max(1, round(line.height * scale))
    canvas = Image.new("L", (WORD_WIDTH, WORD_HEIGHT), 0)
    fitted = line.resize((width, height), Image.Resampling.LANCZOS)
    canvas.paste(fitted, ((WORD_WIDTH - width) // 2, (WORD_HEIGHT - height) // 2))
    return np.asarray(canvas), width / WORD_WIDTH, height / WORD_HEIGHT


def _all_words(seed: int) -> list[str]:
    """WORDS, then different random strings of capitals and digits."""
    rng = random.Random(seed)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    weights = [4] * 26 + [1] * 10
    words = list(WORDS)
    seen = set(words)
    while len(words) < len(WORDS) + RANDOM_WORDS:
        word = "".join(rng.choices(letters, weights, k=rng.choice([1, 2, 3, 3, 4, 4, 5, 5, 6])))
        if word not in seen:
            seen.add(word)
            words.append(word)
    return words


def _photo(path: Path) -> Pixels:
    """A JPEG, as bytes, with a short side of 512 px at most."""
    image = Image.open(path).convert("RGB")
    scale = 512 / min(image.size)
    if scale < 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def build_assets(
    path: Path, emoji_font: Path, text_font: Path, photos_folder: Path | None, seed: int
) -> None:
    """Write one .npz of 8.5 MB: sprites, names, kinds, words and their alpha, and the photos."""
    font = ImageFont.truetype(str(emoji_font), 109)
    sprites = [_emoji(char, font) for char, _ in OBJECTS]
    names = ["|".join(alternatives) for _, alternatives in OBJECTS]
    kinds = ["emoji"] * len(OBJECTS)
    for shape in SHAPES:
        for color, rgb in COLORS.items():
            sprites.append(_shape(shape, rgb))
            names.append(f"{color} {shape}")
            kinds.append("shape")
    words = _all_words(seed)
    drawn = [word_alpha(word, text_font) for word in words]
    photos = [_photo(photos_folder / name) for name in PHOTOS] if photos_folder else []
    # Any: by its type, an array among keywords could meet the flag allow_pickle
    numbered: dict[str, Any] = {f"photo{i}": photo for i, photo in enumerate(photos)}
    np.savez_compressed(
        path,
        sprites=np.stack(sprites),
        names=np.array(names),
        kinds=np.array(kinds),
        words=np.array(words),
        word_alpha=np.stack([alpha for alpha, _, _ in drawn]),
        word_fit=np.array([(wide, high) for _, wide, high in drawn], np.float32),
        n_photos=np.array(len(photos)),
        **numbered,
    )
    counts = (len(sprites), len(words), len(photos), path)
    log.info("assets: %d sprites, %d words, %d photos -> %s", *counts)
