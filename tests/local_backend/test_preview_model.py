"""What the small model must be able to do. Half the steps of the recipe keep these tests short."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median

import pytest
import torch
from diffusers import AutoencoderKL, FluxFillPipeline
from fakes.backend import RecordingProgress
from fakes.quality import blur_fill, psnr_in, texture_share
from onereward_pack.local_backend.backends.preview import PreviewBackend
from onereward_pack.local_backend.pipeline.latent_preview import load_latent_rgb
from onereward_pack.local_backend.pipeline.preview_components import (
    PREVIEW_FOLDER,
    load_preview_model,
)
from onereward_pack.local_backend.preview_model.training.painter import Painter
from onereward_pack.local_backend.preview_model.training.vocabulary import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
)
from onereward_pack.nodes.contracts import REMOVE_PROMPT, EditRequest, EditTask
from onereward_pack.nodes.errors import CheckpointError
from safetensors import safe_open
from safetensors.torch import load, save_file
from torch import Tensor

SIZE = 256
STEPS = 14


@dataclass(frozen=True, eq=False)
class Case:
    """A scene, the hole in it, and what the model put there; all [1, c, h, w]."""

    truth: Tensor
    mask: Tensor
    answer: Tensor

    @property
    def psnr(self) -> float:
        return psnr_in(self.answer, self.truth, self.mask)

    @property
    def blur_psnr(self) -> float:
        return psnr_in(blur_fill(self.truth, self.mask), self.truth, self.mask)

    @property
    def kept_psnr(self) -> float:
        return psnr_in(self.answer, self.truth, 1 - self.mask)


def paint_all(seed: int) -> dict[str, Tensor]:
    """One scene of every kind of background."""
    painter = Painter(SIZE, "cpu", torch.Generator().manual_seed(seed))
    return {name: painter.paint(name, 1) for name in BACKGROUNDS}


def box_mask(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., top:bottom, left:right] = 1
    return mask


def ellipse_mask() -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    inside = ((y - 130) / 60) ** 2 + ((x - 120) / 70) ** 2 < 1
    return inside.float()[None, None]


def paint_in(scene: Tensor, mask: Tensor, prompt: str, task: EditTask, seed: int = 0) -> Case:
    request = EditRequest(
        task=task,
        prompt=prompt,
        image=scene.permute(0, 2, 3, 1),
        mask=mask[:, 0],
        num_inference_steps=STEPS,
        seed=seed,
    )
    result = PreviewBackend().run(request, RecordingProgress())
    return Case(scene, mask, result.images.permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def removals() -> list[Case]:
    masks = [box_mask(70, 60, 190, 170), ellipse_mask(), box_mask(90, 110, 200, 240)]
    return [
        paint_in(scene, masks[number % 3], REMOVE_PROMPT, EditTask.REMOVE)
        for number, scene in enumerate(paint_all(seed=2024).values())
    ]


@pytest.fixture(scope="module")
def extensions() -> list[Case]:
    masks = [
        box_mask(0, 0, SIZE, 80),
        box_mask(0, 176, SIZE, SIZE),
        box_mask(0, 0, 70, SIZE),
        box_mask(190, 0, SIZE, SIZE),
    ]
    return [
        paint_in(scene, masks[number % 4], BACKGROUNDS[name][0], EditTask.EXTEND)
        for number, (name, scene) in enumerate(list(paint_all(seed=2024).items())[::2])
    ]


@pytest.fixture(scope="module")
def shapes() -> dict[str, Case]:
    """One shape in every colour, each on another background, by the colour's name."""
    scenes = list(paint_all(seed=7).values())
    solid = [shape for shape in SHAPES if shape != "ring"]
    return {
        colour: paint_in(
            scenes[number],
            box_mask(64, 64, 192, 192),
            f"a {colour} {solid[number % len(solid)]}",
            EditTask.FILL,
        )
        for number, colour in enumerate(COLORS)
    }


def nearest_colour(case: Case) -> str:
    """The colour name nearest to the middle of the hole."""
    middle = case.answer[0, :, 112:144, 112:144].flatten(1).median(dim=1).values * 255
    return min(COLORS, key=lambda name: math.dist(COLORS[name], middle.tolist()))


def test_it_loads_with_stock_diffusers() -> None:
    pipeline = FluxFillPipeline.from_pretrained(PREVIEW_FOLDER, local_files_only=True)
    assert pipeline.transformer.config.in_channels == 384
    assert pipeline.vae_scale_factor == 8


def test_clip_has_the_names_that_transformers_before_5_6_reads_too() -> None:
    with safe_open(PREVIEW_FOLDER / "text_encoder" / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len(names) == 36
    assert [name for name in names if not name.startswith("text_model.")] == []


def test_weights_that_do_not_fit_are_told_with_the_library_and_its_version(tmp_path: Path) -> None:
    shutil.copytree(PREVIEW_FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load(path.read_bytes())
    save_file({f"room.{name}": value for name, value in tensors.items()}, path, {"format": "pt"})
    words = rf"CLIPTextModel of transformers {re.escape(version('transformers'))}: 72 weights"
    with pytest.raises(CheckpointError, match=words):
        load_preview_model(tmp_path)


def test_its_weights_are_small() -> None:
    files = [path for path in PREVIEW_FOLDER.rglob("*.safetensors")]
    assert len(files) == 4
    assert sum(path.stat().st_size for path in files) < 20e6


def test_removal_finds_the_background_better_than_a_blur(removals: list[Case]) -> None:
    assert len(removals) == len(BACKGROUNDS)
    ours, blur = mean(case.psnr for case in removals), mean(case.blur_psnr for case in removals)
    assert ours > 22
    assert ours > blur + 1.5


def test_removal_keeps_texture_where_a_blur_has_none(removals: list[Case]) -> None:
    ours = median(texture_share(case.answer, case.truth, case.mask) for case in removals)
    blur = median(
        texture_share(blur_fill(case.truth, case.mask), case.truth, case.mask) for case in removals
    )
    assert ours > 0.4
    assert ours > 2 * blur


def test_extending_continues_the_scene_better_than_a_blur(extensions: list[Case]) -> None:
    ours, blur = mean(case.psnr for case in extensions), mean(case.blur_psnr for case in extensions)
    assert ours > 20.5
    assert ours > blur + 2


def test_a_shape_has_the_colour_the_prompt_names(shapes: dict[str, Case]) -> None:
    seen = {named: nearest_colour(case) for named, case in shapes.items()}
    right = [named for named in seen if seen[named] == named]
    assert len(right) >= 10, seen


def test_a_shape_has_no_colour_of_another_prompt(shapes: dict[str, Case]) -> None:
    names = list(shapes)
    wrong = [
        (named, other)
        for named, other in zip(names, names[1:] + names[:1], strict=True)
        if nearest_colour(shapes[named]) == other
    ]
    assert len(wrong) <= 1, wrong


def test_nothing_but_the_mask_changes(
    removals: list[Case], extensions: list[Case], shapes: dict[str, Case]
) -> None:
    cases = [*removals, *extensions, *shapes.values()]
    kept = [case.kept_psnr for case in cases]
    assert mean(kept) > 31
    assert min(kept) > 25


def test_the_prompt_decides_which_object_appears() -> None:
    scene, hole = paint_all(seed=3)["plain"], box_mask(64, 64, 192, 192)
    objects = ("strawberry", "frog", "dolphin")  # red, green, blue
    means = []
    for name in objects:
        answer = paint_in(scene, hole, f"a {name}", EditTask.FILL).answer
        means.append(answer[0, :, 64:192, 64:192].mean(dim=(1, 2)))
    tints = torch.stack(means) - torch.stack(means).mean(dim=0)
    assert [objects[row] for row in tints.argmax(dim=0)] == list(objects), tints


def test_words_are_written_and_differ_by_prompt() -> None:
    scene, hole = paint_all(seed=3)["plain"], box_mask(88, 40, 168, 216)
    sale, open_, nothing = (
        paint_in(scene, hole, prompt, EditTask.TEXT).answer
        for prompt in ('the word "SALE"', 'the word "OPEN"', REMOVE_PROMPT)
    )
    inside = hole[0, 0] > 0
    difference = (sale - open_).abs().mean(dim=1)[0]
    assert difference[inside].mean() > 0.05
    assert difference[~inside].mean() < 0.01
    assert texture_share(sale, nothing, hole) > 3


def test_another_seed_gives_another_picture_of_the_same_thing(shapes: dict[str, Case]) -> None:
    first = shapes["red"]
    second = paint_in(first.truth, first.mask, "a red circle", EditTask.FILL, seed=1)
    assert nearest_colour(first) == nearest_colour(second) == "red"
    assert ((first.answer - second.answer).abs() * first.mask).max() > 0.2


@torch.no_grad()
def test_the_preview_map_shows_what_the_vae_would() -> None:
    vae = AutoencoderKL.from_pretrained(PREVIEW_FOLDER / "vae", local_files_only=True)
    latent_rgb = load_latent_rgb(PREVIEW_FOLDER / "vae" / "latent_rgb.json", 16)
    errors = []
    for scene in paint_all(seed=99).values():
        latents = vae.encode(scene * 2 - 1).latent_dist.mode()
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        small = torch.nn.functional.avg_pool2d(scene, 8)[0].permute(1, 2, 0)
        errors.append((latent_rgb.picture(latents) - small).square().mean().item())
    assert -10 * math.log10(mean(errors)) > 28
