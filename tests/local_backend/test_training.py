"""The preview model's training package: its scenes stay what they were, its stages run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from onereward_pack.local_backend.preview_model.training.__main__ import main, make_parser
from onereward_pack.local_backend.preview_model.training.captions import build_captions, phrase
from onereward_pack.local_backend.preview_model.training.demo_scenes import SCENES, paint_hole
from onereward_pack.local_backend.preview_model.training.objects import OBJECTS
from onereward_pack.local_backend.preview_model.training.packing import pack, pack_mask, unpack
from onereward_pack.local_backend.preview_model.training.painter import Painter
from onereward_pack.local_backend.preview_model.training.scenes import SceneBank
from onereward_pack.local_backend.preview_model.training.shapes import shape_alpha
from onereward_pack.local_backend.preview_model.training.vocabulary import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    WORDS,
)
from PIL import Image
from safetensors.torch import load

PREVIEW = Path(__file__).resolve().parents[2] / "local_backend" / "preview_model"


# measured on the scripts that trained the model: a change here is a change of its domain
MEANS = {
    "beach": 0.6238,
    "field": 0.4799,
    "desert": 0.6077,
    "mountains": 0.5605,
    "ocean": 0.4907,
    "night": 0.1191,
    "sunset": 0.4668,
    "sky": 0.7755,
    "brick": 0.4108,
    "wood": 0.4288,
    "checker": 0.5546,
    "stripes": 0.5482,
    "dots": 0.5613,
    "plain": 0.5739,
    "bokeh": 0.2804,
    "room": 0.6215,
    "city": 0.4418,
    "forest": 0.3624,
    "stones": 0.4197,
    "hills": 0.5188,
    "road": 0.4677,
    "abstract": 0.5026,
    "texture": 0.594,
}
TASK_DRAWS = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4]
SPRITE_DRAWS = [0, 0, 1, 0, 0, 0, 2, 0, 3, 3, 0, 1]
MASK_SUM = 10295.0
IMAGE_MEAN = 0.4940


def paint(name: str, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return Painter(48, "cpu", generator).paint(name, 3)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assets file without fonts: coloured shapes for objects, striped blocks for words."""
    side = 32
    shapes = {"cat|kitten": "circle", "sun": "square", "red star": "star", "blue ring": "ring"}
    sprites = np.zeros((len(shapes), side, side, 4), np.uint8)
    for i, shape in enumerate(shapes.values()):
        sprites[i, ..., :3] = (200, 60 * i, 40)
        sprites[i, ..., 3] = shape_alpha(shape, side) * 255
    words = [*WORDS[:3], "QXZ"]
    alpha = np.zeros((len(words), 64, 256), np.uint8)
    alpha[:, 16:48, 32:224:2] = 255
    path = tmp_path_factory.mktemp("assets") / "assets.npz"
    np.savez_compressed(
        path,
        sprites=sprites,
        names=np.array(list(shapes)),
        kinds=np.array(["emoji", "emoji", "shape", "shape"]),
        words=np.array(words),
        word_alpha=alpha,
        word_fit=np.full((len(words), 2), 0.75, np.float32),
        n_photos=np.array(0),
    )
    return path


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_every_background_class_is_in_range_and_fixed_by_its_seed(name: str) -> None:
    first = paint(name)
    assert first.shape == (3, 3, 48, 48)
    assert first.dtype == torch.float32
    assert 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, paint(name))
    assert not torch.equal(first, paint(name, seed=6))


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_every_background_class_still_paints_what_the_model_was_trained_on(name: str) -> None:
    assert paint(name).mean().item() == pytest.approx(MEANS[name], abs=2e-4)


def test_an_unknown_background_class_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="'moonbase'"):
        paint("moonbase")


def test_captions_take_the_article_their_noun_wants() -> None:
    names = ("cat", "owl", "unicorn", "grapes", "orange")
    phrases = ["a cat", "an owl", "a unicorn", "grapes", "an orange"]
    assert [phrase(name) for name in names] == phrases


def test_captions_know_every_object_word_and_place_once() -> None:
    names = ["|".join(alternatives) for _, alternatives in OBJECTS]
    names += [f"{color} {shape}" for shape in SHAPES for color in COLORS]
    captions = build_captions(names, WORDS)
    assert len(OBJECTS) == 131
    assert len(set(captions.texts)) == len(captions.texts)
    by_text = {captions.texts[i] for ids in captions.sprite for i in ids}
    assert {"a kitten", "A red circle", "an image of a cat"} <= by_text
    assert "an image of a kitten" not in by_text
    sale = {captions.texts[i] for i in captions.word[0]}
    assert {'the words "SALE"', 'the word "sale"', 'a sign that says "SALE"'} <= sale
    assert captions.texts[captions.extend] == "high-definition, perfect composition"
    assert (captions.texts[captions.empty], captions.texts[captions.negative]) == ("", "nsfw")


def test_a_mask_is_packed_as_diffusers_packs_it() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(2, 1, 48, 64, generator=generator) > 0.5).float()
    pipe = FluxFillPipeline.from_pretrained(str(PREVIEW), torch_dtype=torch.float32)
    masked = torch.zeros(2, 3, 48, 64)
    with torch.no_grad():
        expected, _ = pipe.prepare_mask_latents(
            mask, masked, 2, 16, 1, 48, 64, torch.float32, "cpu", generator
        )
    assert torch.equal(pack_mask(mask), expected)


def test_latents_come_back_from_their_tokens() -> None:
    latents = torch.arange(2 * 16 * 6 * 8).float().view(2, 16, 6, 8)
    assert torch.equal(unpack(pack(latents), 6, 8), latents)
    assert torch.equal(pack(latents), FluxFillPipeline._pack_latents(latents, 2, 16, 6, 8))


def test_a_scene_differs_from_its_clean_background_in_the_mask_only(assets: Path) -> None:
    bank = SceneBank(assets, "cpu", bg_per_class=1, bg_size=64, seed=3)
    tasks = ("fill", "text", "remove", "extend", "extend_free")
    scenes = bank.batch(5, 48, 64, tasks)
    assert scenes.image.shape == (5, 3, 48, 64)
    assert set(scenes.mask.unique().tolist()) == {0.0, 1.0}
    changed = (scenes.image - scenes.clean).abs().amax(1, keepdim=True) > 1e-6
    assert not bool((changed & (scenes.mask == 0)).any())
    assert changed.flatten(1).any(1).tolist() == [True, True, False, False, False]
    texts = bank.texts(scenes)
    assert texts[2].startswith("remove")
    assert texts[4] == "high-definition, perfect composition"


def test_a_seed_gives_the_scenes_it_always_gave(assets: Path) -> None:
    bank = SceneBank(assets, "cpu", bg_per_class=1, bg_size=64, seed=3)
    scenes = bank.batch(12, 48, 64)
    assert scenes.task.tolist() == TASK_DRAWS
    assert scenes.sprite.tolist() == SPRITE_DRAWS
    assert scenes.mask.sum().item() == pytest.approx(MASK_SUM, abs=4)
    assert scenes.image.mean().item() == pytest.approx(IMAGE_MEAN, abs=2e-4)


def test_the_demo_scenes_in_the_pack_are_those_of_the_stage() -> None:
    folder = PREVIEW.parent / "cli" / "demo_scenes"
    entries = json.loads((folder / "scenes.json").read_text("utf-8"))
    assert [entry["task"] for entry in entries] == ["fill", "remove", "extend", "text"]
    for entry, scene in zip(entries, SCENES, strict=True):
        assert scene.entry.items() <= entry.items()
        with Image.open(folder / entry["file"]) as picture:
            assert picture.size == (512, 512)
        if scene.hole:
            with Image.open(folder / entry["mask"]) as mask:
                assert np.array_equal(np.asarray(mask), paint_hole(scene.hole).numpy())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_200_000


def test_every_option_of_every_stage_is_explained() -> None:
    stages = make_parser()._subparsers
    assert stages is not None
    (choices,) = (action.choices for action in stages._group_actions)
    assert choices is not None
    for stage in choices.values():
        assert all(action.help for action in stage._actions)


def test_the_stages_from_tokenizer_to_export_make_a_pipeline_that_loads(
    assets: Path, tmp_path: Path
) -> None:
    work, out = str(tmp_path / "work"), tmp_path / "weights"
    common = ["--assets", str(assets), "--work", work]
    smoke = ["--smoke", "--device", "cpu", "--seconds", "60"]
    main(["tokenizer", *common])
    main(["vae", *common, *smoke])
    main(["model", *common, *smoke])
    main(["export", "--work", work, "--out", str(out)])
    clip = load((out / "text_encoder" / "model.safetensors").read_bytes())
    assert all(name.startswith("text_model.") for name in clip)
    pipe = FluxFillPipeline.from_pretrained(str(out))
    assert pipe.transformer.config.in_channels == 384
    assert pipe.vae.config.shift_factor != 0
    assert pipe.text_encoder_2.dtype == torch.float32
    assert pipe.tokenizer("a cat").input_ids != pipe.tokenizer("a dog").input_ids
