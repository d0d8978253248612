from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from onereward_pack.nodes.contracts import BackendSpec, EditRequest, EditTask
from onereward_pack.nodes.edit.recipes import CUSTOM, PRESETS, make_recipe, preset_line, text_prompt
from onereward_pack.nodes.errors import InputError

WIDGETS = {"seed": 7, "steps": 28, "cfg": 4.0, "num_images": 1}


def test_the_widgets_default_to_the_authors_recipe() -> None:
    recipe = make_recipe(EditTask.FILL, prompt="a cat", **WIDGETS)
    assert (recipe.guidance_scale, recipe.true_cfg, recipe.negative_prompt) == (1.0, 4.0, "nsfw")
    assert (recipe.num_inference_steps, recipe.seed, recipe.acceleration) == (28, 7, "regular")


@pytest.mark.parametrize(
    ("preset", "steps", "cfg", "guidance"),
    [
        ("28", 28, 4.0, 1.0),
        ("quality 50", 50, 4.0, 1.0),
        ("fast (cfg 1)", 20, 1.0, 30.0),
        ("plain FLUX Fill", 28, 1.0, 30.0),
    ],
)
def test_a_preset_goes_before_the_widgets_and_the_report_says_so(
    preset: str, steps: int, cfg: float, guidance: float
) -> None:
    mine = {**WIDGETS, "steps": 7, "cfg": 3.0, "guidance": 2.0}
    recipe = make_recipe(EditTask.FILL, prompt="a cat", preset=preset, **mine)
    assert (recipe.num_inference_steps, recipe.true_cfg) == (steps, cfg)
    assert (recipe.guidance_scale, recipe.seed, recipe.prompt) == (guidance, 7, "a cat")
    said = f"preset {preset}: {steps} steps, cfg {cfg:g}, guidance {guidance:g}"
    assert preset_line(preset) == said


def test_without_a_preset_the_widgets_count() -> None:
    assert next(iter(PRESETS)) == CUSTOM and preset_line(CUSTOM) == ""
    mine = {**WIDGETS, "steps": 7, "cfg": 3.0, "guidance": 2.0}
    for preset in ({}, {"preset": CUSTOM}):
        recipe = make_recipe(EditTask.REMOVE, prompt="", **mine, **preset)
        assert (recipe.num_inference_steps, recipe.true_cfg, recipe.guidance_scale) == (7, 3.0, 2.0)


def test_the_preset_28_is_what_the_widgets_default_to() -> None:
    widgets = make_recipe(EditTask.FILL, prompt="a cat", **WIDGETS)
    assert make_recipe(EditTask.FILL, prompt="a cat", preset="28", **WIDGETS) == widgets


def test_a_preset_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match='no preset "turbo".*custom, 28, quality 50'):
        make_recipe(EditTask.FILL, prompt="a cat", preset="turbo", **WIDGETS)


@pytest.mark.parametrize(
    ("task", "prompt", "expected"),
    [
        (EditTask.FILL, " a cat ", "a cat"),
        (EditTask.REMOVE, "", "remove"),
        (EditTask.REMOVE, "the dog", "remove"),
        (EditTask.EXTEND, "", "high-definition, perfect composition"),
        (EditTask.EXTEND, "a beach", "a beach"),
    ],
)
def test_a_task_uses_the_fixed_prompt_the_authors_trained(
    task: EditTask, prompt: str, expected: str
) -> None:
    assert make_recipe(task, prompt=prompt, **WIDGETS).prompt == expected


def test_fill_without_words_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="prompt is empty.*OneReward Remove"):
        make_recipe(EditTask.FILL, prompt=" \n", **WIDGETS)


@pytest.mark.parametrize(
    ("text", "scene", "expected"),
    [
        ("SALE", "", 'the words "SALE"'),
        ("Byte\nDance", "", 'the words "Byte", and in the next line "Dance"'),
        ("\n A \n\n b\n", "on a sign", 'the words "A", and in the next line "b", on a sign'),
        ('Say "hi"', "", "the words \"Say 'hi'\""),
    ],
)
def test_lines_of_text_become_the_authors_pattern(text: str, scene: str, expected: str) -> None:
    assert text_prompt(text, scene) == expected


def test_text_without_a_word_is_refused() -> None:
    with pytest.raises(InputError, match="text is empty"):
        text_prompt(" \n ")


def test_a_request_is_the_recipe_on_pixels() -> None:
    recipe = make_recipe(EditTask.FILL, prompt="a cat", **WIDGETS)
    image, mask = torch.zeros(1, 16, 16, 3), torch.ones(1, 16, 16)
    request = recipe.on(image, mask, seed=9, num_images=3)
    assert isinstance(request, EditRequest)
    assert (request.seed, request.num_images, request.image, request.mask) == (9, 3, image, mask)
    same = {f.name for f in dataclasses.fields(recipe)} - {"seed", "num_images"}
    assert all(getattr(request, name) == getattr(recipe, name) for name in same)


def test_a_backend_spec_is_plain_data() -> None:
    spec = BackendSpec("preview")
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(BackendSpec("preview"))
