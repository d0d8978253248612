"""Seeded random numbers on a device: the one source of chance of a scene bank."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """Draws from one generator, so that a seed fixes every scene."""

    def __init__(self, device: torch.device | str, seed: int) -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def rand(self, *shape: int) -> Tensor:
        """Uniform in 0..1."""
        return torch.rand(*shape, device=self.device, generator=self.generator)

    def uniform(self, n: int, low: float, high: float) -> Tensor:
        """`n` numbers, uniform between the two."""
        return self.rand(n) * (high - low) + low

    def pick(self, n: int, count: int) -> Tensor:
        """`n` indices below `count`."""
        return torch.randint(0, count, (n,), device=self.device, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        """One number, `low` to `high` - 1."""
        drawn = torch.randint(low, high, (1,), generator=self.generator, device=self.device)
        return int(drawn)

    def weighted(self, n: int, weights: list[float]) -> Tensor:
        """`n` indices, the k-th as likely as its weight says."""
        shares = torch.tensor(weights, device=self.device)
        return torch.multinomial(shares, n, True, generator=self.generator)

    def flips(self, n: int) -> Tensor:
        """`n` signs, 1 or -1."""
        return (self.rand(n) > 0.5).float() * 2 - 1
