"""The metrics stage: measures the exported model on held-out scenes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from torch import Tensor

from .classifier import HELD_OUT, accuracy, crop_box, load_classifier
from .sampling import fill_all, load_pipeline
from .scenes import SceneBank

log = logging.getLogger("onereward")

SIDE = 256
Values = dict[str, float]


def psnr_in(y: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """PSNR in dB inside the mask, `[n]`."""
    mse = (((y - x) ** 2) * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    return 10 * torch.log10(1 / mse)


def _gradients(t: Tensor, mask: Tensor) -> Tensor:
    along_y = t[..., 1:, 1:] - t[..., :-1, 1:]
    along_x = t[..., 1:, 1:] - t[..., 1:, :-1]
    return torch.cat([along_y, along_x], 1) * mask[..., 1:, 1:]


def texture(y: Tensor, x: Tensor, mask: Tensor) -> tuple[float, float]:
    """Gradient energy over the truth's, and correlation with it; a blur scores near 0 first."""
    gy, gx = _gradients(y, mask), _gradients(x, mask)
    yy, xx, yx = ((a * b).sum((1, 2, 3)) for a, b in ((gy, gy), (gx, gx), (gy, gx)))
    energy = (yy / xx.clamp(min=1e-6)).sqrt().median().item()
    return energy, (yx / (yy * xx).sqrt().clamp(min=1e-6)).mean().item()


def mean_fill(x: Tensor, mask: Tensor) -> Tensor:
    """Baseline: the hole takes the mean colour of the rest."""
    keep = 1 - mask
    mean = (x * keep).sum((2, 3), keepdim=True) / keep.sum((2, 3), keepdim=True)
    return x * keep + mask * mean


def blur_fill(x: Tensor, mask: Tensor) -> Tensor:
    """Baseline: the hole takes, from fine to coarse, the average of what is known nearby."""
    keep = 1 - mask
    known = x * keep
    out = known.clone()
    done = keep.clone()
    size = x.shape[-2:]
    for level in range(1, 9):
        factor = 2**level
        if x.shape[-1] % factor or x.shape[-2] % factor:
            break
        share = F.interpolate(F.avg_pool2d(keep, factor), size, mode="bilinear")
        mean = F.interpolate(F.avg_pool2d(known, factor), size, mode="bilinear")
        now = (share > 0.05).float() * (1 - done)
        out = out * (1 - now) + mean / share.clamp(min=1e-6) * now
        done = (done + now).clamp(max=1)
    for _ in range(24):  # smooth inside the hole
        around = F.avg_pool2d(F.pad(out, (2, 2, 2, 2), mode="replicate"), 5, 1)
        out = out * keep + around * mask
    return out


@torch.no_grad()
def measure_vae(pipe: FluxFillPipeline, bank: SceneBank, count: int) -> Values:
    """PSNR of the round trip."""
    image = bank.batch(count, SIDE, SIDE).image
    latents = pipe.vae.encode(image * 2 - 1).latent_dist.mode()
    y = (pipe.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    mse = ((y - image) ** 2).mean((1, 2, 3))
    return {"vae_psnr": (10 * torch.log10(1 / mse)).mean().item()}


def measure_task(
    pipe: FluxFillPipeline, bank: SceneBank, task: str, count: int, steps: int
) -> Values:
    """Removal or extension against the clean background, beside two baselines."""
    scenes = bank.batch(count, SIDE, SIDE, [task] * count)
    x, mask, texts = scenes.image, scenes.mask, bank.texts(scenes)
    values: Values = {}

    def note(name: str, y: Tensor) -> None:
        values[f"{task}_psnr_{name}"] = psnr_in(y, x, mask).mean().item()
        energy, correlation = texture(y, x, mask)
        values[f"{task}_texture_{name}"] = energy
        values[f"{task}_gradient_corr_{name}"] = correlation

    for cfg in (1.0, 2.0, 4.0) if task == "remove" else (4.0,):
        y = fill_all(pipe, x, mask, texts, cfg, steps)
        note(f"cfg{cfg:g}", y)
    note("blur", blur_fill(x, mask))
    values[f"{task}_psnr_mean"] = psnr_in(mean_fill(x, mask), x, mask).mean().item()
    values[f"{task}_outside_psnr"] = psnr_in(y, x, 1 - mask).mean().item()
    return values


@torch.no_grad()
def measure_fill(
    pipe: FluxFillPipeline, bank: SceneBank, work: Path, count: int, steps: int
) -> Values:
    """How often the asked-for object is recognized, also where prompts are swapped."""
    network, names = load_classifier(work)
    scenes = bank.batch(count, SIDE, SIDE, ["fill"] * count)
    x, mask, texts = scenes.image, scenes.mask, bank.texts(scenes)

    def share(y: Tensor, top: int = 1) -> float:
        return accuracy(network(crop_box(y, scenes.box) * 2 - 1), scenes.sprite, top)

    values: Values = {"fill_true_composites_top1": share(x)}
    for cfg in (4.0, 1.5, 3.0, 5.0):
        y = fill_all(pipe, x, mask, texts, cfg, steps, seed=1)
        values[f"fill_top1_cfg{cfg:g}"] = share(y)
        values[f"fill_top5_cfg{cfg:g}"] = share(y, 5)
        log.info("%s", json.dumps(values))
    # the same holes with other prompts: does the picture follow the words?
    parts = [texts[i : i + 8] for i in range(0, count, 8)]
    swapped = [text for part in parts for text in part[1:] + part[:1]]
    y = fill_all(pipe, x, mask, swapped, 4.0, steps, seed=1)
    values["fill_wrong_prompt_top1"] = share(y)
    values["fill_chance"] = 1 / len(names)
    return values


def measure(assets: Path, work: Path, weights: Path, out: Path, count: int, steps: int) -> None:
    """Write out/metrics.json; `count` is the number of removals, the rest follows from it."""
    pipe = load_pipeline(weights)
    bank = SceneBank(assets, "cpu", 6, 384, seed=HELD_OUT)
    bank.backgrounds.drop_photos()
    values = measure_vae(pipe, bank, 24)
    half = count // 2
    for task, n in (("remove", count), ("extend", half), ("extend_free", half)):
        values |= measure_task(pipe, bank, task, n, steps)
        log.info("%s", json.dumps(values))
    fills = max(2 * count, 40)
    values |= measure_fill(pipe, bank, work, fills, steps)
    counts = {"remove": count, "extend": half, "fill": fills}
    rounded = {name: round(value, 4) for name, value in values.items()}
    report = {**rounded, "n": counts, "steps": steps}
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=1) + "\n")
