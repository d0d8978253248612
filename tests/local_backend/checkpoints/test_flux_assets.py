"""The data that FLUX.1-Fill needs besides weights: vocabularies, settings, schedule, previews.

The token ids were taken from ComfyUI's own tokenizers, which read other copies of the same data.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from fakes.tiny_flux import FLUX_ASSETS, tiny_flux_fill
from onereward_pack.local_backend.pipeline.latent_preview import load_latent_rgb
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

CLIP_START, CLIP_END = 49406, 49407
T5_END, T5_PAD = 1, 0
# Text, CLIP's tokens without start and end, T5's tokens without the end.
KNOWN_TOKENS = [
    ("", [], []),
    ("a cat", [320, 2368], [3, 9, 1712]),
    ("remove", [9709], [2036]),
    ("nsfw", [19847], [3, 29, 7, 89, 210]),
    (
        "high-definition, perfect composition",
        [1400, 268, 11405, 267, 1878, 17510],
        [306, 18, 221, 5582, 1575, 6, 626, 5761],
    ),
    (
        "A photo of a RED Bicycle, leaning on a wall.",
        [320, 1125, 539, 320, 736, 11652, 267, 24411, 525, 320, 2569, 269],
        [71, 1202, 13, 3, 9, 3, 13729, 2106, 10136, 6, 90, 152, 53, 30, 3, 9, 1481, 5],
    ),
    (
        'the words "SALE 50%"',
        [518, 2709, 257, 1690, 276, 271, 4, 257],
        [8, 1234, 96, 134, 17350, 5743, 121],
    ),
    (
        "a sign that says 'OPEN'",
        [320, 2292, 682, 1563, 262, 1488, 262],
        [3, 9, 1320, 24, 845, 3, 31, 667, 20702, 31],
    ),
    (
        "\u201cHello\u201d \u2014 it\u2019s caf\u00e9 na\u00efve\u2026",
        [728, 506, 3306, 728, 507, 2005, 585, 728, 503, 338, 15304, 1097, 35689, 563, 959],
        [105, 566, 7126, 153, 3, 318, 34, 22, 7, 11949, 3, 29, 9, 2, 162, 233],
    ),
    (
        "\u732b\u306e\u5199\u771f, \u041c\u043e\u0441\u043a\u0432\u0430",
        [163, 234, 104, 21575, 44653, 33440, 509, 267, 38018, 13506, 23669, 27152, 39813, 27080],
        [3, 2, 6, 3, 2, 18737, 6652, 16624],
    ),
    (
        # Full-width letters, a circled digit, a ligature, a fraction: T5 normalises, CLIP does not.
        "\uff26\uff35\uff2c\uff2c width \u2460 \ufb01ne \u00bd",
        [171, 121, 228, 171, 121, 243, 171, 121, 234, 171, 121, 490]
        + [23571, 158, 239, 510, 171, 105, 223, 1422, 33613],
        [27645, 9400, 209, 1399, 209, 2, 357],
    ),
    (
        "a cat \U0001f431 and 3.14159",
        [320, 2368, 22979, 537, 274, 269, 272, 275, 272, 276, 280],
        [3, 9, 1712, 3, 2, 11, 1877, 2534, 27904],
    ),
    (
        "  two  spaces,\ttabs\nand lines  ",
        [1237, 9006, 267, 29163, 537, 3418],
        [192, 4856, 6, 3808, 7, 11, 2356],
    ),
    (
        "we don't know they've 1234",
        [649, 847, 713, 1038, 889, 1200, 272, 273, 274, 275],
        [62, 278, 31, 17, 214, 79, 31, 162, 586, 3710],
    ),
]


@pytest.fixture(scope="module")
def clip_tokenizer() -> CLIPTokenizerFast:
    return CLIPTokenizerFast.from_pretrained(FLUX_ASSETS / "tokenizer", local_files_only=True)


@pytest.fixture(scope="module")
def t5_tokenizer() -> T5TokenizerFast:
    return T5TokenizerFast.from_pretrained(FLUX_ASSETS / "tokenizer_2", local_files_only=True)


def settings(part: str) -> dict[str, Any]:
    path = FLUX_ASSETS / part / "config.json"
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


@pytest.mark.parametrize(("text", "clip", "t5"), KNOWN_TOKENS)
def test_texts_become_the_tokens_that_comfyui_makes(
    text: str,
    clip: list[int],
    t5: list[int],
    clip_tokenizer: CLIPTokenizerFast,
    t5_tokenizer: T5TokenizerFast,
) -> None:
    assert clip_tokenizer(text).input_ids == [CLIP_START, *clip, CLIP_END]
    assert t5_tokenizer(text).input_ids == [*t5, T5_END]


def test_clip_pads_to_77_with_its_end_token(clip_tokenizer: CLIPTokenizerFast) -> None:
    found = clip_tokenizer("a cat", padding="max_length", truncation=True)
    assert found.input_ids == [CLIP_START, 320, 2368] + [CLIP_END] * 74


def test_t5_pads_to_512_with_zeros(t5_tokenizer: T5TokenizerFast) -> None:
    found = t5_tokenizer("a cat", padding="max_length", truncation=True)
    assert found.input_ids == [3, 9, 1712, T5_END] + [T5_PAD] * 508


def test_long_texts_are_cut_before_the_end_token(
    clip_tokenizer: CLIPTokenizerFast, t5_tokenizer: T5TokenizerFast
) -> None:
    text = "a cat " * 600
    clip = clip_tokenizer(text, padding="max_length", truncation=True).input_ids
    t5 = t5_tokenizer(text, padding="max_length", truncation=True).input_ids
    assert (len(clip), clip[-2:]) == (77, [320, CLIP_END])
    assert (len(t5), t5[-2:]) == (512, [3, T5_END])


def test_vocabularies_fit_the_embeddings(
    clip_tokenizer: CLIPTokenizerFast, t5_tokenizer: T5TokenizerFast
) -> None:
    assert len(clip_tokenizer) == settings("text_encoder")["vocab_size"] == 49408
    assert len(t5_tokenizer) == 32100 <= settings("text_encoder_2")["vocab_size"]


def test_settings_describe_models_of_the_published_sizes() -> None:
    with torch.device("meta"):
        models = {
            "transformer": FluxTransformer2DModel.from_config(settings("transformer")),
            "vae": AutoencoderKL.from_config(settings("vae")),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**settings("text_encoder"))),
            "text_encoder_2": T5EncoderModel(T5Config(**settings("text_encoder_2"))),
        }
    sizes = {
        name: sum(parameter.numel() for parameter in model.parameters())
        for name, model in models.items()
    }
    assert sizes == {
        # FLUX.1-dev's 11,901,408,320 and 320 more columns of the image's input.
        "transformer": 11_902_391_360,
        "vae": 83_819_683,
        "text_encoder": 123_060_480,
        "text_encoder_2": 4_762_310_656,
    }


def test_clip_pools_at_the_first_end_token(clip_tokenizer: CLIPTokenizerFast) -> None:
    encoder = tiny_flux_fill().text_encoder
    tokens = clip_tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        found = encoder(tokens)
    assert torch.equal(found.pooler_output, found.last_hidden_state[:, 3])


def test_the_schedule_shifts_with_the_picture_as_flux_does() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(FLUX_ASSETS / "scheduler")
    scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=1.15)
    shifted = 3.158193 / (3.158193 + 1)  # e ** 1.15
    assert scheduler.config.use_dynamic_shifting
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, shifted, 0.0], abs=1e-6)
    names = ("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift")
    assert [scheduler.config[name] for name in names] == [256, 0.5, 4096, 1.15]


def test_previews_are_grey_without_latents_and_bright_where_the_bright_channel_is() -> None:
    preview = load_latent_rgb(FLUX_ASSETS / "vae" / "latent_rgb.json", 16)
    latents = torch.zeros(1, 16, 1, 2)
    latents[0, 12, 0, 1] = 4.0
    expected = torch.tensor([[[0.5, 0.5, 0.5], [0.6784, 0.6662, 0.6762]]])
    torch.testing.assert_close(preview.picture(latents), expected)


def test_the_folder_stays_small_and_holds_no_weights() -> None:
    files = [path for path in FLUX_ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert {path.suffix for path in files} == {".json", ".txt", ".md"}
