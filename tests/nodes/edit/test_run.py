from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes.backend import (
    ColourBackend,
    Interrupted,
    RecordingProgress,
    RemoteColourBackend,
    colour,
)
from onereward_pack.nodes.canvas.extend import ANCHORS, margins
from onereward_pack.nodes.canvas.options import REGION_CHOICES, CanvasOptions
from onereward_pack.nodes.canvas.sizes import parse_extend
from onereward_pack.nodes.contracts import EditRecipe, EditResult, EditTask
from onereward_pack.nodes.edit.run import edit, extend
from onereward_pack.nodes.errors import (
    ContentPolicyError,
    InputError,
    LocalBackendError,
    PartialFailureError,
    RemoteError,
)
from torch import Tensor

RECIPE = EditRecipe(task=EditTask.FILL, prompt="a cat", seed=5)
HARD = CanvasOptions(grow=0, blend=0, seam=0.0)


def square(height: int = 96, width: int = 128, side: int = 20) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, 30 : 30 + side, 40 : 40 + side] = 1
    return mask


def picture(batch: int = 1, height: int = 96, width: int = 128, channels: int = 3) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(1))


def bits(values: Tensor) -> Tensor:
    """Bit patterns: NaN equals itself, and 0.0 differs from -0.0."""
    return values.contiguous().view(torch.int16 if values.dtype == torch.float16 else torch.int32)


def untouched_equal(before: Tensor, after: Tensor, mask: Tensor) -> bool:
    keep = (mask == 0).unsqueeze(-1).expand_as(after)
    return torch.equal(bits(before)[keep], bits(after)[keep])


def random_mask(rng: random.Random, count: int, height: int, width: int) -> Tensor:
    masks = torch.zeros(count, height, width)
    for mask in masks:
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            top, left = rng.randrange(height), rng.randrange(width)
            tall = rng.choice([1, rng.randint(1, height)])
            wide = rng.choice([1, rng.randint(1, width)])
            mask[top : top + tall, left : left + wide] = rng.choice([1.0, 0.98, 0.5, 0.05])
    return masks


@pytest.mark.parametrize("block", range(10))
def test_nothing_outside_the_blend_changes_and_all_that_was_painted_is_new(block: int) -> None:
    rng = random.Random(block)
    for case in range(40):
        height, width = rng.randint(1, 150), rng.randint(1, 150)
        batch, masks = rng.choice([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)])
        image = picture(batch, height, width, rng.choice([3, 4])) * 3 - 1
        image[..., 0, 0, :] = float("nan")
        if rng.random() < 0.3:
            image = image.half()
        mask = random_mask(rng, masks, height, width)
        options = CanvasOptions(
            grow=rng.choice([0, 1, 8]),
            blend=rng.choice([0, 1, 16]),
            context=rng.choice([1.0, 1.5, 3.0]),
            target=rng.choice(["auto", "native", "96", "64x48", "0.01 MP"]),
            regions=rng.choice(REGION_CHOICES),
            seam=rng.choice([0.0, 1.0]),
            clean=rng.random() < 0.8,
            invert=rng.random() < 0.1,
        )
        before = image.clone()
        recipe = replace(RECIPE, num_images=rng.choice([1, 1, 2]))
        backend = ColourBackend(drift=None if options.seam == 0 else 0.01)
        done = edit(image, mask, recipe, options, backend, RecordingProgress())
        assert torch.equal(bits(image), bits(before)), (block, case)
        pairs = max(batch, masks)
        count = recipe.num_images
        assert done.images.shape == (pairs * count, height, width, image.shape[-1])
        assert done.mask.shape == (pairs * count, height, width)
        source = before.repeat(pairs // batch, 1, 1, 1).repeat_interleave(count, 0)
        assert untouched_equal(source, done.images, done.mask), (block, case)
        painted = (mask >= (0.1 if options.clean else 0.5)) ^ options.invert
        painted = painted.repeat(pairs // masks, 1, 1).repeat_interleave(count, 0)
        assert bool((done.mask[painted] == 1).all()), (block, case)
        if options.seam == 0:
            for index, (new, where) in enumerate(zip(done.images, painted, strict=True)):
                error = (new[where][:, :3].float() - colour(5 + index)).abs()
                assert not error.numel() or error.max() < 2e-3, (block, case)


@pytest.mark.parametrize("block", range(4))
def test_an_extension_keeps_every_source_pixel_beyond_the_overlap(block: int) -> None:
    rng = random.Random(100 + block)
    for case in range(25):
        height, width = rng.randint(2, 120), rng.randint(2, 120)
        image = picture(rng.choice([1, 2]), height, width, rng.choice([3, 4]))
        to = rng.choice(["2x", "16:9", "9:16", "2.39:1", "37", "left 50, bottom 9", "400x300"])
        overlap, anchor = rng.choice([0, 1, 24]), rng.choice(ANCHORS)
        recipe = replace(RECIPE, task=EditTask.EXTEND, num_images=rng.choice([1, 2]))
        before = image.clone()
        try:
            done = extend(
                image, to, anchor, overlap, recipe, None, ColourBackend(), RecordingProgress()
            )
        except InputError as error:
            assert "canvas is" in str(error) or "already" in str(error)
            continue
        assert torch.equal(image, before)
        assert len(done.images) == len(image) * recipe.num_images
        sides = margins(parse_extend(to), anchor, height, width)
        left, top = sides.left, sides.top
        source = before.repeat_interleave(recipe.num_images, 0)
        inside = done.images[:, top : top + height, left : left + width]
        blend = done.mask[:, top : top + height, left : left + width]
        assert untouched_equal(source, inside, blend), (block, case, to, anchor)
        if overlap == 0:
            assert bool((blend == 0).all())


def test_without_a_soft_edge_only_the_painted_pixels_change() -> None:
    image, mask = picture(), square()
    done = edit(image, mask, RECIPE, HARD, ColourBackend(), RecordingProgress())
    assert torch.equal(done.mask, mask)
    changed = (done.images != image).any(-1)
    assert torch.equal(changed, mask.bool())


def test_variations_come_picture_by_picture_with_seeds_counted_up() -> None:
    backend = ColourBackend()
    recipe = replace(RECIPE, num_images=2)
    done = edit(picture(3), square(), recipe, HARD, backend, RecordingProgress())
    assert done.seeds == (5, 6, 7, 8, 9, 10)
    assert [r.seed for r in backend.requests] == [5, 7, 9]
    inside = done.images[:, 40, 50]
    assert torch.allclose(inside, torch.stack([colour(s) for s in done.seeds]), atol=1e-3)


def test_the_seed_wraps_at_the_end_of_its_range() -> None:
    recipe = replace(RECIPE, seed=2**64 - 1, num_images=1)
    done = edit(picture(2), square(), recipe, HARD, ColourBackend(), RecordingProgress())
    assert done.seeds == (2**64 - 1, 0)


@pytest.mark.parametrize("empty", [torch.zeros(1, 64, 64), torch.zeros(1, 96, 128)])
def test_an_empty_mask_gives_the_picture_back_without_a_call(empty: Tensor) -> None:
    backend, image = ColourBackend(), picture()
    done = edit(image, empty, RECIPE, None, backend, RecordingProgress())
    assert torch.equal(done.images, image)
    assert not backend.requests
    assert not done.mask.any()
    assert "untouched" in done.report


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (picture(2), torch.ones(3, 96, 128), "2.*3"),
        (picture(), torch.ones(1, 50, 128), "128x50.*128x96"),
        (picture(channels=1), square(), "3 or 4"),
        (picture()[0], square(), r"\[96, 128, 3\]"),
        (picture(0), square(), "empty"),
        ((picture() * 255).byte(), square(), "uint8"),
        (picture(), torch.full((1, 96, 128), float("nan")), "NaN|nan"),
    ],
)
def test_bad_input_is_refused_before_the_backend_runs(
    image: Tensor, mask: Tensor, words: str
) -> None:
    backend = ColourBackend()
    with pytest.raises(InputError, match=words):
        edit(image, mask, RECIPE, None, backend, RecordingProgress())
    assert not backend.requests


def test_a_recipe_the_backend_cannot_honour_is_refused() -> None:
    with pytest.raises(InputError, match="acceleration high"):
        recipe = replace(RECIPE, acceleration="high")
        edit(picture(), square(), recipe, None, ColourBackend(), RecordingProgress())


def test_progress_counts_over_all_crops_and_shows_the_whole_picture() -> None:
    mask = square(300, 400)
    mask[:, 250:270, 350:370] = 1
    progress = RecordingProgress()
    backend = ColourBackend()
    done = edit(picture(1, 300, 400), mask, RECIPE, None, backend, progress)
    assert len(backend.requests) == 2
    assert progress.steps == [(1, 2), (2, 2)]
    assert progress.previews[0].shape == (300, 400, 3)
    assert torch.allclose(progress.previews[0][40, 50], colour(5), atol=0.08)
    assert done.report.count("crop ") == 2


def test_the_preview_of_a_large_picture_is_small() -> None:
    progress = RecordingProgress()
    mask = torch.zeros(1, 2000, 1500)
    mask[:, 900:1300, 700:1000] = 1
    edit(picture(1, 2000, 1500), mask, RECIPE, None, ColourBackend(), progress)
    assert max(progress.previews[0].shape) <= 512
    assert torch.allclose(progress.previews[0][275, 210], colour(5), atol=0.02)


def test_cancel_ends_the_edit_and_the_next_one_is_clean() -> None:
    mask = square(300, 400)
    mask[:, 250:270, 350:370] = 1
    image = picture(1, 300, 400)
    before = image.clone()
    with pytest.raises(Interrupted):
        edit(image, mask, RECIPE, None, ColourBackend(), RecordingProgress(cancel_at=1))
    assert torch.equal(image, before)
    again = edit(image, mask, RECIPE, None, ColourBackend(), RecordingProgress())
    fresh = edit(before, mask, RECIPE, None, ColourBackend(), RecordingProgress())
    assert torch.equal(again.images, fresh.images)


def test_long_extensions_run_in_steps_each_variation_from_its_own_picture() -> None:
    backend, progress = ColourBackend(), RecordingProgress()
    recipe = replace(RECIPE, task=EditTask.EXTEND, num_images=2)
    done = extend(picture(1, 40, 40), "right 100", "center", 0, recipe, None, backend, progress)
    assert done.images.shape == (2, 40, 140, 3)
    assert any("step 2 of" in text for text in progress.texts)
    assert done.seeds == (5, 6)
    assert torch.allclose(done.images[1, 20, 130], colour(6), atol=0.02)


def test_a_picture_that_has_the_aspect_already_comes_back_untouched() -> None:
    backend, image = ColourBackend(), picture(1, 90, 160)
    recipe = replace(RECIPE, task=EditTask.EXTEND)
    done = extend(image, "16:9", "center", 24, recipe, None, backend, RecordingProgress())
    assert torch.equal(done.images, image)
    assert not backend.requests
    assert "untouched" in done.report


@pytest.mark.parametrize("overlap", [-1, 513])
def test_an_overlap_out_of_range_is_refused(overlap: int) -> None:
    recipe = replace(RECIPE, task=EditTask.EXTEND)
    with pytest.raises(InputError, match=f"Overlap {overlap}"):
        extend(
            picture(), "2x", "center", overlap, recipe, None, ColourBackend(), RecordingProgress()
        )


def test_the_report_names_backend_recipe_crops_seam_and_times() -> None:
    report = edit(picture(), square(), RECIPE, None, ColourBackend(), RecordingProgress()).report
    for words in ("fill: a cat", "colour, 28 steps, cfg 4", "seed 5, acceleration regular",
                  "crop 1 at x", "seam correction (delta E)", "denoise"):  # fmt: skip
        assert words in report


def test_the_report_says_once_what_the_runs_on_this_machine_noted() -> None:
    class Noting(ColourBackend):
        def run(self, *asked: Any) -> EditResult:
            return replace(super().run(*asked), notes=("24 GB free: bf16 resident", "its part"))

    mask = square(300, 400)
    mask[:, 250:270, 350:370] = 1
    report = edit(picture(1, 300, 400), mask, RECIPE, None, Noting(), RecordingProgress()).report
    assert report.splitlines()[2:4] == ["24 GB free: bf16 resident", "its part"]
    assert report.count("bf16 resident") == 1
    assert report.count("crop ") == 2


@pytest.mark.parametrize("side", [30, 60, 140])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_colour_painted_into_the_soft_edge_is_not_taken_for_drift(
    side: int, noise: float
) -> None:
    wall = 0.5 + noise * (picture(1, 320, 320) - 0.5)
    mask = torch.zeros(1, 320, 320)
    mask[:, 80 : 80 + side, 80 : 80 + side] = 1
    backend = ColourBackend(max_pixels=320 * 320, min_side=256, drift=0.01)
    done = edit(wall, mask, RECIPE, None, backend, RecordingProgress())
    painted = done.images[0][mask[0] == 1]
    assert (painted - colour(RECIPE.seed)).abs().max() < 0.03


def test_jobs_of_a_remote_backend_are_one_image_each_and_paste_in_order() -> None:
    backend = RemoteColourBackend()
    progress = RecordingProgress()
    recipe = replace(RECIPE, num_images=3)
    done = edit(picture(2), square(), recipe, HARD, backend, progress)
    plain = edit(picture(2), square(), recipe, HARD, ColourBackend(drift=None), RecordingProgress())
    assert torch.equal(done.images, plain.images)
    assert sorted(request.seed for request in backend.requests) == [5, 6, 7, 8, 9, 10]
    assert {request.num_images for request in backend.requests} == {1}
    assert backend.admitted == [5, 6, 7, 8, 9, 10]
    assert progress.steps[-1] == (6, 6)


def test_a_flagged_image_is_the_input_with_an_empty_mask() -> None:
    backend = RemoteColourBackend(flagged={6})
    source = picture()
    recipe = replace(RECIPE, num_images=3)
    done = edit(source, square(), recipe, HARD, backend, RecordingProgress())
    assert done.flagged == (False, True, False)
    assert torch.equal(done.images[1], source[0])
    assert not done.mask[1].any() and done.mask[0].any()
    assert "variation 2: request job-6, flagged" in done.report


def test_an_extension_that_is_flagged_is_an_error() -> None:
    backend = RemoteColourBackend(flagged={5})
    with pytest.raises(ContentPolicyError, match="new area was flagged"):
        extend(picture(), "1.5x", "center", 8, RECIPE, None, backend, RecordingProgress())


def test_a_failed_job_is_named_after_the_others_have_run() -> None:
    backend = RemoteColourBackend(failing={6})
    with pytest.raises(PartialFailureError) as caught:
        edit(picture(3), square(), RECIPE, HARD, backend, RecordingProgress())
    assert list(caught.value.errors) == ["picture 2"]
    assert "1 of 3 jobs failed" in str(caught.value) and "with seed 5" in str(caught.value)
    assert len(backend.requests) == 3


def test_one_job_alone_fails_with_its_own_error_and_the_seed() -> None:
    with pytest.raises(RemoteError, match=r"Seed: 5\. It may have been billed"):
        edit(
            picture(), square(), RECIPE, HARD, RemoteColourBackend(failing={5}), RecordingProgress()
        )


def test_the_report_adds_up_what_remote_jobs_cost() -> None:
    progress = RecordingProgress()
    recipe = replace(RECIPE, num_images=2)
    done = edit(picture(), square(), recipe, HARD, RemoteColourBackend(), progress)
    assert "cost: about $0.020; about $0.100 this session" in done.report
    assert progress.texts[-1].startswith("cost: about $0.020")


def test_an_edit_knows_which_picture_each_image_was_made_from() -> None:
    recipe = replace(RECIPE, num_images=2)
    done = edit(picture(2), square(), recipe, HARD, ColourBackend(), RecordingProgress())
    assert (done.sources, done.origin) == ((0, 0, 1, 1), (0, 0))


def test_an_extension_knows_where_the_picture_lies_in_it() -> None:
    recipe = replace(RECIPE, task=EditTask.EXTEND, num_images=2)
    image = picture(2, 40, 48)
    done = extend(
        image, "left 8, top 60", "center", 0, recipe, None, ColourBackend(), RecordingProgress()
    )
    assert (done.sources, done.origin) == ((0, 0, 1, 1), (60, 8))
    for result, source in zip(done.images, done.sources, strict=True):
        assert torch.equal(result[60:100, 8:56], image[source])


def test_the_badge_and_the_summary_say_where_and_at_what_price() -> None:
    recipe = replace(RECIPE, num_images=2)
    done = edit(picture(), square(), recipe, HARD, RemoteColourBackend(), RecordingProgress())
    name = RemoteColourBackend.name
    assert done.badge == f"{name}: about $0.020"
    assert done.summary.startswith(f"{name}, 0.")
    assert done.summary.endswith(" s, cost: about $0.020; about $0.100 this session")


def test_the_badge_says_what_must_be_known_of_a_backend() -> None:
    backend = ColourBackend()
    backend.capabilities = replace(backend.capabilities, note="not OneReward")
    done = edit(picture(), square(), RECIPE, HARD, backend, RecordingProgress())
    assert done.badge == "colour: not OneReward"
    assert done.summary.startswith("colour: not OneReward, ")


def test_the_badge_of_an_extension_adds_up_what_its_steps_cost() -> None:
    recipe = replace(RECIPE, task=EditTask.EXTEND)
    image, backend = picture(1, 40, 40), RemoteColourBackend()
    done = extend(image, "right 100", "center", 0, recipe, None, backend, RecordingProgress())
    assert len(done.costs) > 1 and f"step 2 of {len(done.costs)}\nextend: " in done.report
    assert done.badge == f"{backend.name}: about ${sum(filter(None, done.costs)):.3f}"
    assert done.summary.count("cost: about $0.010") == len(done.costs)


@pytest.mark.parametrize(
    ("mask", "note"),
    [
        (torch.zeros(1, 64, 64), "Mask is empty: the picture is returned untouched."),
        (torch.full((1, 96, 128), 1 / 255), "Mask is empty: the picture is returned untouched."),
        (square(192, 256, 40), "Mask 256x192 was resized to the picture's 128x96."),
    ],
)
def test_the_summary_says_what_the_user_should_know(mask: Tensor, note: str) -> None:
    done = edit(picture(), mask, RECIPE, HARD, ColourBackend(), RecordingProgress())
    assert done.summary.endswith(note)
    assert done.summary.startswith("colour, ") == bool((done.mask > 0).any())


def test_a_note_is_said_once_for_a_batch() -> None:
    mask = square(192, 256, 40)
    done = edit(picture(3), mask, RECIPE, HARD, ColourBackend(), RecordingProgress())
    assert done.summary.count("was resized") == 1


def test_an_extension_to_the_shape_that_is_there_speaks_of_no_mask() -> None:
    recipe = replace(RECIPE, task=EditTask.EXTEND)
    image, backend = picture(1, 90, 160), ColourBackend()
    done = extend(image, "16:9", "center", 24, recipe, None, backend, RecordingProgress())
    assert done.summary == "The picture has this shape already: it is returned untouched."
    assert not any(word in done.report for word in ("steps", "Mask"))
    assert torch.equal(done.images, image)


def transparent(share: float) -> Tensor:
    image = picture(channels=4)
    image[..., 3] = 1
    image[:, :, : round(128 * share), 3] = 0
    return image


def test_an_edit_of_a_transparent_place_says_that_it_does_not_show() -> None:
    image = transparent(0.5)
    done = edit(image, square(), RECIPE, HARD, ColourBackend(), RecordingProgress())
    note = (
        "100% of the repainted pixels are transparent (alpha below 0.5) and stay so: the edit does "
        'not show there. Alpha "from blend" on OneReward Canvas makes them opaque.'
    )
    assert note in done.summary and note in done.report
    assert torch.equal(done.images[..., 3], image[..., 3])


@pytest.mark.parametrize("alpha", ["keep", "from blend"])
def test_an_edit_that_shows_says_nothing_of_alpha(alpha: str) -> None:
    image = transparent(0.0 if alpha == "keep" else 1.0)
    canvas = replace(HARD, alpha=alpha)
    done = edit(image, square(), RECIPE, canvas, ColourBackend(), RecordingProgress())
    assert "transparent" not in done.report
    assert (done.images[..., 3][done.mask == 1] == 1).all()


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a (red:1.4) cat", "(red:1.4)"),
        ("a cat, embedding:easynegative, sitting", "embedding:easynegative"),
        ("a cat <lora:fur:0.8>", "<lora:fur:0.8>"),
    ],
)
def test_words_for_other_nodes_are_said_to_be_read_literally(prompt: str, read: str) -> None:
    recipe = replace(RECIPE, prompt=prompt)
    done = edit(picture(), square(), recipe, HARD, ColourBackend(), RecordingProgress())
    assert done.report.count(f"so this is no weight, LoRA or embedding: {read}") == 1


@pytest.mark.parametrize(
    "prompt",
    ["a cat (grey)", 'the words "(A: 5)"', "at 10:30", "a 16:9 screen", "the embedding of a cat"],
)
def test_plain_words_are_not(prompt: str) -> None:
    recipe = replace(RECIPE, prompt=prompt)
    done = edit(picture(), square(), recipe, HARD, ColourBackend(), RecordingProgress())
    assert "literally" not in done.report


def test_a_backend_that_looks_embeddings_up_is_believed() -> None:
    backend = ColourBackend()
    backend.capabilities = replace(backend.capabilities, prompt_embeddings=True)
    recipe = replace(RECIPE, prompt="a cat, embedding:x")
    done = edit(picture(), square(), recipe, HARD, backend, RecordingProgress())
    assert "literally" not in done.report


def test_a_seed_that_a_later_picture_takes_past_the_last_is_refused_before_the_first() -> None:
    recipe = replace(RECIPE, seed=2**64 - 4, num_images=3)
    backend = ColourBackend()
    with pytest.raises(InputError, match="passes the largest seed"):
        edit(picture(2), square(), recipe, HARD, backend, RecordingProgress())
    assert not backend.requests
    single = ColourBackend()
    single.capabilities = replace(single.capabilities, images_per_run=1)
    done = edit(picture(2), square(), recipe, HARD, single, RecordingProgress())
    assert done.seeds[2:5] == (2**64 - 2, 2**64 - 1, 0)


def test_a_picture_with_gradients_is_edited_and_the_result_has_none() -> None:
    image = picture().requires_grad_()
    done = edit(
        image, square().requires_grad_(), RECIPE, None, ColourBackend(), RecordingProgress()
    )
    assert not done.images.requires_grad
    recipe = replace(RECIPE, task=EditTask.EXTEND)
    wide = extend(image, "16:9", "center", 8, recipe, None, ColourBackend(), RecordingProgress())
    assert not wide.images.requires_grad


def test_a_backend_that_returns_too_few_images_is_told_so() -> None:
    class Miser(ColourBackend):
        def run(self, *arguments: Any) -> EditResult:
            whole = super().run(*arguments)
            return replace(whole, images=whole.images[:1], has_nsfw_concepts=(False,))

    recipe = replace(RECIPE, num_images=2)
    with pytest.raises(LocalBackendError, match="asked for 2 images.*returned 1"):
        edit(picture(), square(), recipe, HARD, Miser(), RecordingProgress())
