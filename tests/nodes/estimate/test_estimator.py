"""The estimate before an edit: the very crops of the edit, their pixels, price, time and words."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fakes.backend import ColourBackend, RecordingProgress
from onereward_pack.nodes.canvas import extend as canvas_extend
from onereward_pack.nodes.canvas.options import CanvasOptions
from onereward_pack.nodes.canvas.overlay import FILLED
from onereward_pack.nodes.contracts import EditRecipe, EditTask
from onereward_pack.nodes.edit import eta
from onereward_pack.nodes.edit.plan import BatchSize
from onereward_pack.nodes.edit.run import edit, extend
from onereward_pack.nodes.errors import CredentialsError, InputError, at_fault
from onereward_pack.nodes.estimate.estimator import EstimateRequest, estimate
from onereward_pack.nodes.image_io import from_data_uri
from PIL import Image
from torch import Tensor

RECIPE = EditRecipe(task=EditTask.FILL, prompt="a dog")


def request(height: int = 300, width: int = 400, **more: Any) -> EstimateRequest:
    task = more.pop("task", EditTask.FILL)
    return EstimateRequest(task, BatchSize(more.pop("pictures", 1), height, width), **more)


def extension(height: int = 96, width: int = 96, **more: Any) -> EstimateRequest:
    return request(height, width, task=EditTask.EXTEND, **more)


def two_spots(height: int = 300, width: int = 400) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[0, 10:30, 10:30] = 1
    mask[0, -30:-10, -30:-10] = 1
    return mask


class NeverRun(ColourBackend):
    """Other tests run the plain one, so how long it takes is known."""

    name = "colours"


def plan(asked: EstimateRequest, **more: Any) -> dict[str, Any]:
    return estimate(asked, more.pop("backend", NeverRun()), more.pop("kind", "local"), **more)


def test_each_variation_is_a_job_where_a_run_makes_one_image() -> None:
    asked, remote = request(mask=two_spots(), num_images=3), NeverRun()
    remote.capabilities = dataclasses.replace(remote.capabilities, images_per_run=1)
    assert plan(asked, backend=remote)["jobs"] == 3 * plan(asked)["jobs"]


def pixels(overlay: str) -> Tensor:
    picture = Image.open(io.BytesIO(from_data_uri(overlay)))
    assert picture.mode == "RGBA"
    return torch.from_numpy(np.array(picture))


def test_a_plan_has_the_crops_that_the_edit_sends() -> None:
    backend, mask = ColourBackend(), two_spots()
    said = plan(request(mask=mask))
    edit(torch.rand(1, 300, 400, 3), mask, RECIPE, None, backend, RecordingProgress())
    sent = [[each.image.shape[2], each.image.shape[1]] for each in backend.requests]
    assert [crop["seen"] for crop in said["crops"]] == sent and len(sent) == said["jobs"] == 2
    assert said["megapixels"] == sum(w * h for w, h in sent) / 2**20
    assert said["size"] == [400, 300] and said["source"] == [0, 0, 400, 300]
    assert said["words"] == f"2 crops, {said['megapixels']:.2f} MP, 2 jobs on colours"


def test_a_mask_of_bytes_is_planned_as_the_mask_it_was() -> None:
    mask = two_spots()
    assert plan(request(mask=(mask * 255).byte())) == plan(request(mask=mask))


def test_an_empty_mask_costs_nothing_and_says_so() -> None:
    asked = request(mask=torch.zeros(1, 64, 64, dtype=torch.uint8))
    said = plan(asked, kind="fal", price_of=lambda pixels: (9.0, "no"))
    assert said["crops"] == [] and said["jobs"] == 0 and said["overlay"] is None
    assert said["words"] == "The mask is empty: the picture goes through untouched, at no cost."
    assert said["price"] is None and said["notes"] == []


def test_variations_and_batches_are_counted() -> None:
    mask = two_spots()
    one = plan(request(mask=mask))
    many = plan(request(mask=mask, pictures=3, num_images=4))
    assert many["megapixels"] == 12 * one["megapixels"]
    assert many["jobs"] == 3 * 2  # this backend makes any number of images in a job
    assert many["crops"] == one["crops"]
    assert many["notes"] == [
        "3 pictures: the first one's crops are shown, the numbers are for all."
    ]


def test_the_tasks_own_canvas_counts_unless_one_is_set() -> None:
    def painted(**more: Any) -> int:
        asked = request(mask=two_spots(), **more)
        return int((pixels(plan(asked)["overlay"])[..., 3] > 0).sum())

    assert painted(task=EditTask.REMOVE) > painted()
    assert painted(task=EditTask.REMOVE) == painted(canvas=CanvasOptions(grow=12))


def test_a_resized_mask_is_said() -> None:
    assert plan(request(mask=two_spots(150, 200)))["notes"] == [
        "Mask 200x150 was resized to the picture's 400x300."
    ]


def test_a_mask_of_another_shape_names_the_mask() -> None:
    with pytest.raises(InputError, match="Mask is 200x200, but the picture is 400x300") as refused:
        plan(request(mask=torch.ones(1, 200, 200)))
    assert refused.value.input == "mask"
    with pytest.raises(InputError) as refused:
        plan(request())
    assert refused.value.input == "mask"


def test_the_overlay_is_small_and_lies_on_the_mask() -> None:
    mask = torch.zeros(1, 1000, 2000)
    mask[0, 400:600, 800:1200] = 1
    drawn = pixels(plan(request(1000, 2000, mask=mask))["overlay"])
    assert drawn.shape == (256, 512, 4)
    assert drawn[128, 256].tolist() == [230, 40, 50, 110]
    assert drawn[10, 10].tolist() == [0, 0, 0, 0]
    white = (drawn == 255).all(-1).nonzero()
    # painted, grown by 8 and blended over 16 px, at a scale of 0.256
    edges = [white[:, 0].min(), white[:, 0].max(), white[:, 1].min(), white[:, 1].max()]
    expected = [377, 623, 777, 1223]
    for edge, place in zip(edges, expected, strict=True):
        assert abs(float(edge) - place * 0.256) <= 2, (edge, place)


def test_extend_has_the_crops_and_the_canvas_of_the_run() -> None:
    backend = ColourBackend()
    asked = extension(extend_to="left 100, bottom 300", overlap=8, num_images=2, pictures=2)
    said = plan(asked, backend=backend)
    done = extend(
        torch.rand(2, 96, 96, 3), "left 100, bottom 300", "center", 8,
        EditRecipe(task=EditTask.EXTEND, prompt="hills", num_images=2), None, backend,
        RecordingProgress(),
    )  # fmt: skip
    assert said["size"] == [196, 396] == [done.images.shape[2], done.images.shape[1]]
    assert said["source"] == [100, 0, 96, 96]
    assert said["steps"] > 1 and said["words"].startswith(f"{said['steps']} steps, ")
    assert said["jobs"] == len(backend.requests)
    sent = sum(each.image[0, ..., 0].numel() * each.num_images for each in backend.requests)
    assert said["megapixels"] == sent / 2**20


def test_the_crops_of_all_steps_cover_the_new_area_of_the_final_canvas() -> None:
    said = plan(extension(extend_to="left 200, top 40, right 300, bottom 500"))
    width, height = said["size"]
    covered = torch.zeros(height, width, dtype=torch.bool)
    for crop in said["crops"]:
        x, y, w, h = crop["box"]
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        covered[y : y + h, x : x + w] = True
    x, y, w, h = said["source"]
    covered[y : y + h, x : x + w] = True
    assert covered.all()


def test_extend_by_an_aspect_goes_by_the_anchor() -> None:
    assert plan(extension(96, 128, extend_to="16:9"))["source"] == [21, 0, 128, 96]
    assert plan(extension(96, 128, extend_to="16:9", anchor="left"))["source"] == [0, 0, 128, 96]


def test_a_picture_that_has_the_shape_goes_through() -> None:
    said = plan(extension(extend_to="96x96"))
    assert said["crops"] == [] and said["size"] == [96, 96] and said["overlay"] is None
    assert said["words"].startswith("The picture has this shape already")


@pytest.mark.parametrize(
    ("fields", "named", "words"),
    [
        ({"extend_to": "wide"}, "extend_to", "'wide' is not understood"),
        ({"extend_to": "0"}, "extend_to", "adds nothing"),
        ({"extend_to": "64x64"}, "extend_to", "smaller than the picture"),
        ({"anchor": "north"}, "extend_to", "Unknown anchor 'north'"),
        ({"overlap": 9999}, "overlap", "Overlap 9999 is out of range"),
        ({"extend_to": "16384"}, "extend_to", "at most 256 MP"),
    ],
)
def test_what_extend_cannot_do_names_its_input(
    fields: dict[str, Any], named: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        plan(extension(**fields))
    assert refused.value.input == named


def test_the_largest_canvas_is_one_limit_for_the_estimate_and_for_the_edit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canvas_extend, "MAX_CANVAS", 200 * 100)
    recipe = EditRecipe(task=EditTask.EXTEND, prompt="hills")

    def run(to: str) -> None:
        backend, progress = ColourBackend(), RecordingProgress()
        extend(torch.rand(1, 90, 90, 3), to, "center", 8, recipe, None, backend, progress)

    assert plan(extension(90, 90, extend_to="200x100"))["size"] == [200, 100]
    run("200x100")
    words = "The new canvas is 201x100, 0 MP; at most 0 MP can be made. Extend less."
    for refused in (lambda: plan(extension(90, 90, extend_to="201x100")), lambda: run("201x100")):
        with pytest.raises(InputError, match=words):
            refused()


def test_the_price_is_asked_for_the_jobs_pixels() -> None:
    asked: list[Sequence[int]] = []

    def price_of(pixels: Sequence[int]) -> tuple[float | None, str]:
        asked.append(pixels)
        return 0.0187, "More than the cap."

    said = plan(request(mask=two_spots(), num_images=2), kind="fal", price_of=price_of)
    sizes = [w * h for w, h in (crop["seen"] for crop in said["crops"])]
    assert asked == [[sizes[0], sizes[0], sizes[1], sizes[1]]]
    assert said["price"] == 0.0187 and said["notes"] == ["More than the cap."]
    assert said["words"].endswith("on colours, about $0.019")


def test_a_plan_without_a_key_is_a_plan_still() -> None:
    def price_of(pixels: Sequence[int]) -> tuple[float | None, str]:
        raise CredentialsError("There is no fal key.")

    said = plan(request(mask=two_spots()), kind="fal", price_of=price_of)
    assert len(said["crops"]) == 2 and said["price"] is None
    assert said["notes"] == ["There is no fal key."]
    assert said["words"].endswith("price unknown")


def test_the_time_is_told_by_what_the_backend_took_before() -> None:
    class Timed(ColourBackend):
        name = "timed"

    asked = request(mask=two_spots(), steps=10, cfg=4.0)
    first = plan(asked, backend=Timed())
    assert first["seconds"] is None and " s" not in first["words"]
    eta.record("timed", "regular", first["megapixels"] * 10 * 2, 3.0)
    assert plan(asked, backend=Timed())["seconds"] == pytest.approx(3.0)
    assert plan(asked, backend=Timed())["words"].endswith("on timed, about 3 s")
    twice = request(mask=two_spots(), steps=10, cfg=4.0, num_images=50)
    assert plan(twice, backend=Timed())["words"].endswith("about 2 min")
    for unknown in ({"steps": None}, {"acceleration": None}, {"acceleration": "none"}):
        assert plan(request(mask=two_spots(), **unknown), backend=Timed())["seconds"] is None


def test_notes_come_once_and_in_order() -> None:
    said = plan(request(mask=two_spots(150, 200)), notes=["first", "", "first"])
    assert said["notes"][0] == "first" and len(said["notes"]) == 2


def test_the_innermost_input_at_fault_is_named() -> None:
    with pytest.raises(CredentialsError) as refused, at_fault("image"), at_fault("mask"):
        raise CredentialsError("no")
    assert refused.value.input == "mask" and str(refused.value) == "no"


def test_a_plan_names_and_draws_the_pinholes_that_are_filled() -> None:
    mask = torch.zeros(1, 300, 400)
    mask[0, 100:160, 100:180] = 1
    mask[0, 120:123, 120:122] = 0
    told = plan(request(mask=mask))
    assert any(
        note.startswith("1 pinhole of the mask, 6 px in all, filled") for note in told["notes"]
    )
    drawn = pixels(told["overlay"])
    assert (drawn[120:123, 120:122] == torch.tensor([*FILLED, 255])).all()
    whole = plan(request(mask=mask, canvas=CanvasOptions(clean=False)))
    assert not any("pinhole" in note for note in whole["notes"])
