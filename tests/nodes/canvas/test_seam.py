from __future__ import annotations

import pytest
import torch
from benchmarks import seam as bench
from onereward_pack.nodes.canvas.seam import correct_seam, seam_step
from torch import Tensor

SIDE = 160


def hole(side: int = SIDE, margin: int = 50) -> Tensor:
    kept = torch.ones(side, side, dtype=torch.bool)
    kept[margin : side - margin, margin : side - margin] = False
    return kept


def test_strength_zero_and_no_hole_return_the_answer_itself() -> None:
    original, generated = torch.rand(2, SIDE, SIDE, 3)
    assert correct_seam(original, generated, hole(), 0.0) is generated
    everything = torch.ones(SIDE, SIDE, dtype=torch.bool)
    assert correct_seam(original, generated, everything, 1.0) is generated


def test_too_little_ring_leaves_the_answer_alone() -> None:
    original, generated = torch.rand(2, 64, 64, 3)
    kept = torch.zeros(64, 64, dtype=torch.bool)
    assert correct_seam(original, generated, kept, 1.0) is generated
    kept[0, :63] = True
    assert correct_seam(original, generated, kept, 1.0) is generated


def test_a_constant_shift_is_taken_off_exactly_and_inputs_stay() -> None:
    original = bench.textured(SIDE)
    generated = original + torch.tensor([0.02, -0.03, 0.01])
    before = original.clone(), generated.clone()
    corrected = correct_seam(original, generated, hole(), 1.0)
    assert (corrected - original)[~hole()].abs().max() < 1e-4
    assert torch.equal(original, before[0]) and torch.equal(generated, before[1])
    half = correct_seam(original, generated, hole(), 0.5)
    expected = (original + generated)[~hole()] / 2
    assert torch.allclose(half[~hole()], expected, atol=1e-4)


@pytest.mark.parametrize("shape", bench.SHAPES)
def test_a_linear_gradient_is_nearly_taken_off(shape: bench.Shape) -> None:
    original = bench.textured(SIDE)
    ramp = torch.linspace(-0.02, 0.02, SIDE)
    generated = original + (ramp[:, None] - 0.5 * ramp[None, :])[..., None]
    kept = bench.faded(shape(SIDE)) <= 0
    left = (correct_seam(original, generated, kept, 1.0) - original)[~kept]
    # Where the hole meets the crop's edge the membrane is free, so the slope is guessed there.
    assert left.abs().mean() < (0.0025 if shape is bench.border else 0.0005)


def test_grain_on_the_ring_does_not_leak_into_the_hole() -> None:
    torch.manual_seed(0)
    original = torch.full((SIDE, SIDE, 3), 0.5)
    generated = original + 0.05 * torch.randn(SIDE, SIDE, 3)
    change = (correct_seam(original, generated, hole(), 1.0) - generated)[~hole()]
    assert change.std() < 0.05 / 20 and change.abs().max() < 0.05 / 5


def test_a_spot_repainted_on_the_ring_does_not_colour_the_hole() -> None:
    original = bench.smooth(SIDE)
    generated = original + 0.01
    generated[40:48, 60:90] = torch.tensor([1.0, 0.0, 0.0])
    left = (correct_seam(original, generated, hole(), 1.0) - original)[~hole()]
    assert left.abs().max() < 0.001


def test_detail_drawn_anew_by_the_model_keeps_its_contrast() -> None:
    original = 0.5 + 0.1 * bench._noise(SIDE, 2, 1)
    generated = 0.5 + 0.1 * bench._noise(SIDE, 2, 2)
    corrected = correct_seam(original, generated, hole(), 1.0)[~hole()]
    assert corrected.std() == pytest.approx(float(generated[~hole()].std()), rel=0.05)


def test_a_hole_at_the_edge_gets_the_nearby_drift_without_runaway() -> None:
    torch.manual_seed(1)
    original = bench.photo(SIDE)
    generated = original + 0.02 + 0.02 * torch.randn(SIDE, SIDE, 3)
    kept = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    kept[:, :24] = True  # an extension: the rest of the crop is new
    change = (correct_seam(original, generated, kept, 1.0) - generated)[~kept]
    assert (change + 0.02).abs().max() < 0.015


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (9, 70)])
def test_thin_pictures_work(size: tuple[int, int]) -> None:
    original = torch.rand(*size, 3) * 0.5
    kept = torch.ones(size, dtype=torch.bool)
    middle = max(size) // 2
    reach = max(size) // 6
    hole_at = slice(middle - reach, middle + reach)
    kept[(hole_at, slice(None)) if size[0] > size[1] else (slice(None), hole_at)] = False
    corrected = correct_seam(original, original + 0.02, kept, 1.0)
    assert (corrected - original)[~kept].abs().max() < 1e-3


@pytest.mark.parametrize("picture", bench.PICTURES)
@pytest.mark.parametrize("shape", bench.SHAPES)
def test_a_quarter_of_what_a_global_match_leaves_at_most(
    picture: bench.Picture, shape: bench.Shape
) -> None:
    got = bench.case(picture, shape, 192, real=False)
    assert got["lab"].edge > 0.1
    assert got["ours"].edge <= got["lab"].edge / 4
    assert got["ours"].hole <= got["lab"].hole / 4
    assert abs(got["ours"].step) <= 0.03


@pytest.mark.parametrize("picture", bench.PICTURES)
def test_drift_that_no_plane_describes_is_still_much_reduced(picture: bench.Picture) -> None:
    got = bench.case(picture, bench.disc, 512, real=True)
    assert got["ours"].edge <= 0.5 * got["lab"].edge
    assert got["ours"].edge <= 0.3 * got["none"].edge


def test_the_seam_step_is_the_distance_of_two_plain_colours() -> None:
    blend = bench.faded(bench.rectangle(SIDE))
    red, green = torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.2, 0.7, 0.3])
    picture = torch.where(blend[..., None] > 0, red, green)
    lab = bench.to_lab(torch.stack((red, green))[None])[0]
    assert seam_step(picture, blend) == pytest.approx(float((lab[0] - lab[1]).norm()), abs=0.05)


def test_the_seam_step_looks_at_the_two_bands_only_and_not_at_alpha() -> None:
    blend = bench.faded(bench.rectangle(SIDE))
    plain = torch.full((SIDE, SIDE, 3), 0.4)
    noisy = plain.clone()
    noisy[(blend > 0) & (blend < 1)] = 1.0
    noisy[:5] = 0.0
    noisy[SIDE // 2, SIDE // 2] = 1.0
    with_alpha = torch.cat((noisy, torch.rand(SIDE, SIDE, 1)), dim=-1).half()
    assert seam_step(noisy, blend) == pytest.approx(0.0, abs=1e-3)
    assert seam_step(with_alpha, blend) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_without_an_edge_there_is_no_seam_step(value: float) -> None:
    assert seam_step(torch.rand(40, 40, 3), torch.full((40, 40), value)) == 0.0
