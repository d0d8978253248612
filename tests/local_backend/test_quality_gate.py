"""The quality gate's parts: held-out scenes, judges, arithmetic. The gate itself is a benchmark."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
from benchmarks.quality import choose_scenes, choose_variants, must_hold, problems
from benchmarks.quality_emulated import NOISE, block_linears, fp8, fp8_linears, fp8_memory, noisy
from benchmarks.quality_judges import Judges, letters_right, list_chances, load_judges
from benchmarks.quality_reader import LETTERS, read_words, spell, word_losses
from benchmarks.quality_scores import (
    FIDELITY,
    STEPS,
    Row,
    Sample,
    band,
    equal_steps,
    level_misses,
    spread,
    steps_by_band,
    summary,
    technique_misses,
    worst_tenth,
)
from benchmarks.quality_variants import Around, Variant, variants
from fakes.backend import RecordingProgress
from fakes.quality import (
    EQUAL,
    HeldOutScene,
    blur_fill,
    held_out_scenes,
    psnr_in,
    texture_share,
)
from fakes.tiny import make_request, tiny_components
from onereward_pack.local_backend.acceleration.levels import EVERY_STEP, LEVELS, NONE, Level
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline
from onereward_pack.local_backend.pipeline.validation import check_pixels, check_recipe
from onereward_pack.nodes.contracts import EditTask
from torch import Tensor


@cache
def scenes() -> list[HeldOutScene]:
    return held_out_scenes()


@cache
def judges() -> Judges:
    return load_judges()


def truth(scene: HeldOutScene) -> Tensor:
    return scene.image.permute(0, 3, 1, 2)


def blurred(scene: HeldOutScene) -> Tensor:
    """What is left when the hole is filled without doing what was asked for."""
    return blur_fill(truth(scene), scene.mask[None])


def hits(task: EditTask, blur: bool = False) -> list[bool | None]:
    """The judges' findings on true, or on blurred, pictures of a task."""
    own = [scene for scene in scenes() if scene.task is task]
    pictures = [blurred(scene) if blur else truth(scene) for scene in own]
    return [judges().judge(s, p).hit for s, p in zip(own, pictures, strict=True)]


def sample(psnr: float = 50.0, seconds: float = 1.0, share: float = 0.2, **more: object) -> Sample:
    words: dict[str, object] = {
        **{"scene": "fill-00", "task": "fill", "variant": "v", "steps": STEPS, "truth": 20.0},
        **{"texture": 0.5, "score": 0.9, "hit": True, "seen": "cat"},
    }
    return Sample(psnr=psnr, seconds=seconds, share=share, **(words | more))  # type: ignore[arg-type]


def good_row(**changes: object) -> Row:
    """Of a level that meets every target of regular."""
    rows = [sample(psnr=p) for p in (43.0, 45.0)]
    rivals = [sample(psnr=p, steps=14) for p in (37.0, 38.0)]
    row = summary("regular", rows, [sample(EQUAL), sample(EQUAL)], rivals)
    return replace(row, **changes)  # type: ignore[arg-type]


def test_there_are_enough_scenes_of_every_task_that_a_backend_would_take() -> None:
    counts = Counter(scene.task for scene in scenes())
    assert len(scenes()) >= 60
    assert set(counts) == set(EditTask) and min(counts.values()) >= 12
    for scene in scenes():
        check_recipe(scene.request())
        check_pixels(scene.request())
    assert scenes()[0].request().acceleration == "none"
    recipe = scenes()[0].request(acceleration="high")
    assert (recipe.acceleration, recipe.num_inference_steps, recipe.true_cfg) == ("high", 28, 4)


def test_every_scene_has_its_own_noise_also_when_a_task_is_asked_for_alone() -> None:
    assert len({scene.seed for scene in scenes()}) == len(scenes())
    alone = {scene.name: scene.seed for task in EditTask for scene in held_out_scenes(task)}
    assert alone == {scene.name: scene.seed for scene in scenes()}


def test_masks_are_of_many_sizes_and_their_boxes_lie_where_they_are() -> None:
    shares = sorted(scene.share for scene in scenes())
    assert shares[0] < 0.08 and shares[len(shares) // 10] < 0.12
    assert shares[-1] > 0.5 and shares[len(shares) * 9 // 10] > 0.4
    for scene in scenes():
        left, top, right, bottom = (round(side) for side in scene.box)
        inside = scene.mask[0, max(top, 0) : bottom, max(left, 0) : right]
        assert inside.mean() > (0.3 if scene.task is EditTask.EXTEND else 0.65), scene.name


def test_a_fill_names_an_object_the_judge_knows_and_a_text_a_word_it_can_spell() -> None:
    words = [scene.label for scene in scenes() if scene.task is EditTask.TEXT]
    known = sum(word in judges().words for word in words)
    assert 0.6 <= known / len(words) <= 0.85
    assert all(letter in LETTERS for word in words for letter in word)
    for scene in held_out_scenes(EditTask.FILL):
        assert scene.label in judges().names


@pytest.mark.parametrize(
    ("task", "least"), [(EditTask.FILL, 0.85), (EditTask.TEXT, 0.9), (EditTask.REMOVE, 0.9)]
)
def test_the_judges_find_on_true_pictures_what_was_asked_for(task: EditTask, least: float) -> None:
    found = hits(task)
    assert sum(map(bool, found)) >= least * len(found)


@pytest.mark.parametrize("task", [EditTask.FILL, EditTask.TEXT])
def test_the_judges_do_not_find_it_where_the_hole_is_a_blur(task: EditTask) -> None:
    found = hits(task, blur=True)
    assert sum(map(bool, found)) <= 0.1 * len(found)


def test_an_object_that_did_not_go_is_seen() -> None:
    fills = held_out_scenes(EditTask.FILL)
    kept = [replace(scene, task=EditTask.REMOVE) for scene in fills]
    gone = [judges().judge(scene, truth(scene)).hit for scene in kept]
    assert sum(map(bool, gone)) <= 0.25 * len(gone)


def test_an_extension_is_not_asked_for_anything_in_particular() -> None:
    scene = held_out_scenes(EditTask.EXTEND)[0]
    finding = judges().judge(scene, truth(scene))
    assert finding.score is None and finding.hit is None


def columns_of(classes: list[int]) -> Tensor:
    """What a reader that is quite sure gives, [columns, 1, 1 + letters]."""
    sure = torch.full((len(classes), 1, 1 + len(LETTERS)), -9.0)
    for i, letter in enumerate(classes):
        sure[i, 0, letter] = 0.0
    return sure.log_softmax(2)


def test_repeated_letters_need_a_gap_to_be_read_twice() -> None:
    [f, e] = spell("FE")
    assert read_words(columns_of([0, f, f, e, e, 0, e, 0])) == ["FEE"]


def test_a_misspelt_word_is_not_taken_for_the_word() -> None:
    columns = columns_of([x for letter in spell("BCOIK") for x in (letter, 0)])
    assert read_words(columns) == ["BCOIK"]
    right, wrong = word_losses(columns.expand(-1, 2, -1), ["BCOIK", "BOOK"]).tolist()
    assert right < 0.5 and wrong > 5
    chances = list_chances(columns, ["BOOK", "BCOIK", "SALE"])
    assert chances.sum().item() == pytest.approx(1) and chances.argmax() == 1


def test_letters_right_counts_what_must_be_changed() -> None:
    assert letters_right("KIVQN", "KIVQN") == 1
    assert letters_right("KIVN", "KIVQN") == pytest.approx(0.8)
    assert letters_right("KIXXQN", "KIVQN") == pytest.approx(0.6)
    assert letters_right("", "KIVQN") == 0
    assert letters_right("ABCDEFGHIJ", "KIVQN") == 0


def test_equal_pictures_are_a_number_of_decibels_apart_and_a_blur_has_no_texture() -> None:
    scene = held_out_scenes(EditTask.FILL)[0]
    mask, picture = scene.mask[None], truth(scene)
    assert psnr_in(picture, picture, mask) == EQUAL
    assert psnr_in(picture + 0.1 * mask, picture, mask) == pytest.approx(20, abs=1e-3)
    assert psnr_in(picture + 0.1 * (1 - mask), picture, mask) == EQUAL
    assert texture_share(picture, picture, mask) == 1
    assert texture_share(blurred(scene), picture, mask) < 0.35


def test_the_rival_gets_no_less_time_than_the_variant_and_never_all_of_nones() -> None:
    assert [equal_steps(ratio) for ratio in (0.5, 0.501, 0.499)] == [14, 15, 14]
    assert equal_steps(17 / 28) == 17
    assert equal_steps(0.001) == 1
    assert equal_steps(0.99) == equal_steps(1.2) == STEPS - 1


def test_each_band_of_masks_gets_the_rival_of_its_own_median() -> None:
    assert [band(share) for share in (0.0, 0.1599, 0.16, 0.3199, 0.32, 1.0)] == [0, 0, 1, 1, 2, 2]
    ratios = [(0.1, 0.2), (0.1, 0.25), (0.1, 9.0), (0.5, 0.5)]
    assert steps_by_band(ratios) == {0: 7, 2: 14}


def test_the_worst_tenth_is_a_mean_of_the_lowest_and_never_of_none() -> None:
    assert worst_tenth([float(i) for i in range(20)]) == 0.5
    assert worst_tenth([3.0, 1.0, 2.0]) == 1
    assert worst_tenth([float(i) for i in range(21)]) == 1
    found = spread([1.0, 3.0])
    assert (found.mean, found.error, found.tenth, found.worst) == (2, 1, 1, 1)


def test_a_row_compares_each_scene_with_the_same_scene() -> None:
    full = [sample(EQUAL, 2.0, score=0.9), sample(EQUAL, 4.0, score=None, share=0.5)]
    own = [
        sample(40.0, 1.0, score=0.8, texture=0.46, truth=21.0),
        sample(50.0, 1.5, score=None, share=0.5, truth=20.0),
    ]
    rivals = [sample(36.0, 1.1, steps=14), sample(30.0, 1.6, steps=11, share=0.5)]
    row = summary("v", own, full, rivals)
    assert row.cost == pytest.approx(2.5 / 6) and row.rival_cost == pytest.approx(2.7 / 6)
    assert row.rival_steps == (14, 11)
    assert row.leads == (12, 10) and row.lead == (12, pytest.approx(8))
    assert row.score == (pytest.approx(-10), 0)
    assert row.sharpness == pytest.approx(-2) and row.truth == pytest.approx(0.5)


def test_what_has_no_rival_has_no_lead() -> None:
    row = summary("fp8", [sample(45.0)], [sample(EQUAL)], None)
    assert row.rival is None and row.leads is None and row.lead is None
    assert technique_misses(row) == [] and row.rival_steps == ()


def test_a_good_level_misses_nothing() -> None:
    assert level_misses(good_row(), FIDELITY["regular"]) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"psnr": spread([41.8, 41.9])}, "dB to none"),
        ({"rival": spread([39.5, 39.5])}, "in the mean"),
        ({"rival": spread([38.3, 38.1])}, "in the worst tenth"),
        ({"sharpness": -2.1}, "sharpness"),
        ({"sharpness": 2.1}, "sharpness"),
        ({"score": (-2.1, 1.0)}, "task score"),
    ],
)
def test_each_target_can_be_missed(changes: dict[str, object], word: str) -> None:
    misses = level_misses(good_row(**changes), FIDELITY["regular"])
    assert any(word in miss for miss in misses)


def test_a_better_task_score_is_no_miss() -> None:
    assert level_misses(good_row(score=(5.0, 1.0)), FIDELITY["regular"]) == []


def test_a_technique_must_lead_in_the_mean_and_in_the_worst_tenth() -> None:
    assert technique_misses(good_row()) == []
    [miss] = technique_misses(good_row(rival=spread([43.2, 43.4])))
    assert "worst tenth" in miss
    assert len(technique_misses(good_row(rival=spread([46.0, 46.0])))) == 2


def test_every_level_but_none_is_compared_and_so_is_what_it_is_made_of() -> None:
    both = Level(gaps=((1.0, 3),), masked_gaps=((1.0, 2),), refresh=5)
    single = Level(gaps=((1.0, 3),))
    found = variants({"none": NONE, "both": both, "single": single})
    named = [name for name, variant in found.items() if variant.kind == "level"]
    assert named == ["both", "single"]
    parts = [variant.level for variant in found.values() if variant.kind == "part"]
    assert parts == [
        replace(both, masked_gaps=None),
        replace(both, gaps=EVERY_STEP, masked_gaps=EVERY_STEP),
    ]
    assert "none" not in variants() and set(LEVELS) - set(variants()) == {"none"}


def test_what_a_level_contains_must_hold_and_any_other_technique_may_lose() -> None:
    losing = good_row(rival=spread([60.0, 60.0]))
    kinds = {kind: Variant(name="regular", kind=kind, level=NONE) for kind in ("level", "part")}
    kinds |= {kind: Variant(name="x", kind=kind, level=NONE) for kind in ("technique", "floor")}
    wrong = [kind for kind, variant in kinds.items() if problems(losing, variant)]
    assert wrong == ["level", "part", "technique"]
    assert [kind for kind, variant in kinds.items() if must_hold(variant)] == ["level", "part"]


def test_a_few_scenes_are_of_all_tasks_and_an_unknown_variant_is_refused() -> None:
    assert [scene.task for scene in choose_scenes(5)] == [*EditTask, EditTask.FILL]
    assert len({scene.name for scene in choose_scenes(None)}) == len(scenes())
    assert list(choose_variants(["high", "regular"])) == ["regular", "high"]
    with pytest.raises(SystemExit, match="no variant fast"):
        choose_variants(["fast"])


def test_fp8_rounds_by_a_sixteenth_at_most_and_keeps_the_largest() -> None:
    values = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    rounded = fp8(values)
    large = values.abs() > values.abs().amax(1, keepdim=True) / 100
    assert 0.01 < ((rounded - values) / values).abs()[large].max() <= 1 / 16
    peak = values.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(rounded.gather(1, peak), values.gather(1, peak))


@pytest.mark.parametrize(
    ("around", "least", "most"),
    [(noisy, NOISE / 9, NOISE * 9), (fp8_linears, 1e-3, 0.2), (fp8_memory, 1e-4, 0.2)],
)
def test_an_emulation_changes_a_run_a_little_and_leaves_nothing(
    around: Around, least: float, most: float
) -> None:
    levels = {"none": Level(gaps=EVERY_STEP, masked_gaps=EVERY_STEP, refresh=2, halo=0)}
    pipeline = OneRewardPipeline(tiny_components(), torch.device("cpu"), levels=levels)
    request = make_request(64, 64, acceleration="none", num_inference_steps=4)

    def run() -> Tensor:
        return pipeline(request, RecordingProgress()).images

    before = run()
    with around(pipeline):
        inside = run()
    assert least < (inside - before).norm() / before.norm() < most
    assert torch.equal(run(), before)


def test_the_linears_of_a_block_are_all_but_its_norms() -> None:
    names = [*block_linears(tiny_components().transformer)]
    # double: q, k, v, out and the text's, two feed-forwards of two; single: q, k, v, mlp, out
    assert len(names) == 12 + 5
