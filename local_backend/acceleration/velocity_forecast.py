"""Velocity forecasting: at steps that the transformer skips, its guided velocity is extrapolated.

In the manner of TaylorSeer (arXiv:2503.06923; diffusers.hooks.taylorseer_cache), which forecasts
each block's features by a Taylor series. Here it is the output alone, by Lagrange's polynomial
through the last velocities, and what was forecast is corrected when the transformer has run again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_PREDICTED_FROM, _CORRECTED_FROM = 2, 3  # points: a line, and with the new one a parabola


class VelocityForecast:
    """The guided velocity of some tokens through a run.

    At a step that is left out it goes straight on. When the model has run again, the curve through
    the new velocity and the two before it says what the steps left out should have been, and the
    next step makes up for the difference: so what is left is an error of interpolation, of about a
    third of extrapolation's and not adding up. It is the combined velocity of both prompts, so
    neither branch of the guidance is ever older than the other. With no step left out, nothing is
    changed.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        """`sigmas`: the scheduler's, one more than there are steps."""
        self._sigmas = sigmas
        self._known: list[tuple[int, Tensor]] = []
        self._predicted: list[tuple[int, Tensor]] = []

    def predict(self, step: int) -> Tensor:
        """The velocity of a step that is left out; there must be one before it that was not."""
        velocity = self._through(self._known[-_PREDICTED_FROM:], step)
        self._predicted.append((step, velocity))
        return velocity

    def add(self, step: int, velocity: Tensor) -> Tensor:
        """Takes a computed velocity; returns it, corrected by the error of the forecasts before."""
        self._known = [*self._known, (step, velocity)][-_CORRECTED_FROM:]
        if not self._predicted:
            return velocity
        owed = torch.zeros_like(velocity, dtype=torch.float32)
        for left_out, guess in self._predicted:
            better = self._through(self._known, left_out).float()
            owed += self._length(left_out) * (better - guess.float())
        self._predicted = []
        return (velocity.float() + owed / self._length(step)).to(velocity.dtype)

    def _length(self, step: int) -> float:
        return self._sigmas[step + 1] - self._sigmas[step]

    def _through(self, points: Sequence[tuple[int, Tensor]], step: int) -> Tensor:
        """The polynomial through these points, at a step (Lagrange's form)."""
        at = self._sigmas[step]
        times = [self._sigmas[known] for known, _ in points]
        value = torch.zeros_like(points[0][1], dtype=torch.float32)
        for index, (_, velocity) in enumerate(points):
            weight = 1.0
            for other, time in enumerate(times):
                if other != index:
                    weight *= (at - time) / (times[index] - time)
            value += weight * velocity.float()
        return value.to(points[0][1].dtype)
