"""The classifier stage: a small CNN that names the object in a hole, to measure fills with."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .scenes import SceneBank, Scenes

log = logging.getLogger("onereward")

#: the held-out scenes use a seed no training run used
HELD_OUT = 424242
RATE = 3e-3
SIDE = 128
#: (scenes in a batch, backgrounds per class, their px, scenes in the last test)
FULL = (128, 24, 192, 256)
SMOKE = (8, 2, 64, 8)
FILE = "classifier.safetensors"


def make_classifier(classes: int) -> nn.Sequential:
    """An untrained network for pictures `[n, 3, 48, 48]` in -1..1."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 64, 128, 192):
        layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        grouped = nn.Conv2d(width, width, 3, 1, 1, groups=max(1, width // 32))
        layers += [grouped, nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = nn.Linear(channels, classes)
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


def crop_box(x: Tensor, box: Tensor, size: int = 48) -> Tensor:
    """The hole's bounding box (left, top, right, bottom px), made square, as size x size px."""
    n, _, height, width = x.shape
    center_x = (box[:, 0] + box[:, 2]) / width - 1
    center_y = (box[:, 1] + box[:, 3]) / height - 1
    half = torch.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) / 2
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = half * 2 / width
    theta[:, 1, 1] = half * 2 / height
    theta[:, :, 2] = torch.stack([center_x, center_y], 1)
    grid = F.affine_grid(theta, [n, 3, 2 * size, 2 * size], align_corners=False)
    fine = F.grid_sample(x, grid, align_corners=False, padding_mode="border")
    return F.avg_pool2d(fine, 2)


def _training_crops(scenes: Scenes, blurred: bool) -> Tensor:
    """Crops with noise and other brightness, so that the VAE's look does not matter."""
    x = crop_box(scenes.image, scenes.box)
    if blurred:
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noisy = x + 0.04 * torch.randn_like(x)
    return noisy * (0.85 + 0.3 * torch.rand(len(x), 3, 1, 1))


def accuracy(logits: Tensor, truth: Tensor, top: int = 1) -> float:
    """Share of rows whose true class is among the `top` best."""
    best = logits.topk(top, 1).indices
    return (best == truth[:, None]).any(1).float().mean().item()


def train_classifier(assets: Path, work: Path, seconds: float, smoke: bool) -> None:
    """Write work/classifier.safetensors, the class names as metadata."""
    torch.manual_seed(0)
    batch, per_class, bg_size, tested = SMOKE if smoke else FULL
    bank = SceneBank(assets, "cpu", per_class, bg_size, seed=77)
    network = make_classifier(len(bank.sprites))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    start = time.time()
    step = 0
    while (progress := (time.time() - start) / seconds) < 1 and not (smoke and step == 3):
        scenes = bank.batch(batch, SIDE, SIDE, ["fill"] * batch)
        x = _training_crops(scenes, blurred=step % 2 == 1)
        loss = F.cross_entropy(network(x * 2 - 1), scenes.sprite, label_smoothing=0.05)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - progress) + 1e-5
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            log.info("%d %.0f s loss %.3f", step, time.time() - start, loss.item())
    network.eval()
    work.mkdir(parents=True, exist_ok=True)
    names = json.dumps(bank.sprites.names)
    save_file(network.state_dict(), work / FILE, metadata={"names": names})
    test = SceneBank(assets, "cpu", max(1, per_class // 4), bg_size, seed=HELD_OUT + 1)
    scenes = test.batch(tested, SIDE, SIDE, ["fill"] * tested)
    with torch.no_grad():
        share = accuracy(network(crop_box(scenes.image, scenes.box) * 2 - 1), scenes.sprite)
    log.info("classifier on true composites: %.3f of %d classes", share, len(bank.sprites))


def load_classifier(work: Path) -> tuple[nn.Sequential, list[str]]:
    """The trained network, and its classes' names."""
    with safe_open(work / FILE, "pt") as file:
        names: list[str] = json.loads(file.metadata()["names"])
    network = make_classifier(len(names))
    network.load_state_dict(load_file(work / FILE))
    return network.eval(), names
