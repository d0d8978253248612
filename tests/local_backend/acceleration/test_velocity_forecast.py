from __future__ import annotations

import pytest
import torch
from onereward_pack.local_backend.acceleration.velocity_forecast import VelocityForecast
from torch import Tensor

SIGMAS = [1.0, 0.9, 0.78, 0.65, 0.5, 0.34, 0.16, 0.0]


def curve(degree: int) -> list[Tensor]:
    """A velocity per step: a polynomial in sigma, another one for each of 6 tokens."""
    weights = torch.randn(degree + 1, 1, 6, 4, generator=torch.Generator().manual_seed(degree))
    return [sum(w * sigma**n for n, w in enumerate(weights)) for sigma in SIGMAS[:-1]]


def total(velocities: list[Tensor], computed: set[int]) -> Tensor:
    """What all steps together add to the latents."""
    path, latents = VelocityForecast(SIGMAS), torch.zeros_like(velocities[0])
    for step, velocity in enumerate(velocities):
        taken = path.add(step, velocity) if step in computed else path.predict(step)
        latents = latents + (SIGMAS[step + 1] - SIGMAS[step]) * taken
    return latents


def test_with_every_step_computed_each_velocity_is_handed_on_untouched() -> None:
    path = VelocityForecast(SIGMAS)
    for step, velocity in enumerate(curve(3)):
        assert path.add(step, velocity) is velocity


@pytest.mark.parametrize(
    ("degree", "computed"), [(0, {0, 3}), (1, {0, 1, 4}), (2, {0, 1, 2, 5, 6})]
)
def test_a_velocity_that_is_a_polynomial_of_the_noise_loses_nothing(
    degree: int, computed: set[int]
) -> None:
    every = set(range(7))
    if degree == 2:  # a parabola is not foretold by a line, but made up for once it is known
        assert total(curve(2)[:5], computed).sub(total(curve(2)[:5], every)).abs().max() > 1e-2
    left = total(curve(degree), computed) - total(curve(degree), every)
    assert left.abs().max() < 1e-5


def test_what_was_left_out_is_made_up_for_by_most_of_its_error() -> None:
    velocities = [torch.full((1, 1, 1), sigma).exp() for sigma in SIGMAS[:-1]]
    exact = total(velocities, set(range(7)))
    corrected = total(velocities, {0, 1, 2, 4, 6})
    path, plain = VelocityForecast(SIGMAS), torch.zeros_like(exact)
    for step, velocity in enumerate(velocities):
        if step in {0, 1, 2, 4, 6}:
            path.add(step, velocity)
        guess = velocity if step in {0, 1, 2, 4, 6} else path.predict(step)
        plain = plain + (SIGMAS[step + 1] - SIGMAS[step]) * guess
    assert (corrected - exact).abs() < 0.35 * (plain - exact).abs()


def test_velocities_keep_their_own_type() -> None:
    path = VelocityForecast(SIGMAS)
    path.add(0, curve(1)[0].bfloat16())
    assert path.predict(1).dtype is torch.bfloat16
    assert path.add(2, curve(1)[2].bfloat16()).dtype is torch.bfloat16
