"""Muon for the hidden matrices (batched by shape), AdamW for everything else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

WEIGHT_DECAY = 0.01
MOMENTUM = 0.95


def _is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a matrix maps hidden states to hidden states: no embedding, no modulation."""
    if parameter.ndim != 2:
        return False
    if "transformer_blocks" in name and ".norm" not in name:
        return True
    in_encoder = "encoder.block" in name or "encoder.layers" in name
    return in_encoder and "bias" not in name and "embed" not in name


def _orthogonal(gradient: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: five Newton-Schulz steps in bf16."""
    x = gradient.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    length: Tensor = x.norm(dim=(1, 2), keepdim=True)
    x = x / (length + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Muon:
    """One optimizer over a whole model; `muon=False` leaves all of it to AdamW."""

    def __init__(self, model: torch.nn.Module, rate: float, muon: bool = True) -> None:
        matrices: dict[tuple[int, ...], list[Tensor]] = {}
        rest: list[Parameter] = []
        for name, parameter in model.named_parameters():
            if muon and _is_hidden(name, parameter):
                matrices.setdefault(tuple(parameter.shape), []).append(parameter)
            else:
                rest.append(parameter)
        self.groups = [
            (group, torch.zeros(len(group), *shape, device=group[0].device))
            for shape, group in matrices.items()
        ]
        decayed = {"params": [p for p in rest if p.ndim > 1], "weight_decay": WEIGHT_DECAY}
        plain = {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0}
        fused = rest[0].device.type != "cpu"
        self.adam = torch.optim.AdamW([decayed, plain], lr=rate, betas=(0.9, 0.98), fused=fused)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update at learning rate `rate`."""
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        for parameters, momentum in self.groups:
            gradient = torch.stack([p.grad for p in parameters if p.grad is not None])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = _orthogonal(torch.lerp(gradient, momentum, MOMENTUM))
            update = update * (0.2 * max(update.shape[1:]) ** 0.5) * rate
            torch._foreach_mul_(parameters, 1 - rate * WEIGHT_DECAY)
            torch._foreach_sub_(parameters, list(update.unbind()))
