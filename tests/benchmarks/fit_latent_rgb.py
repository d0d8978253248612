"""Fits the preview model's latent-to-RGB map by least squares over painted pictures.

python tests/benchmarks/fit_latent_rgb.py            prints how good the map is
python tests/benchmarks/fit_latent_rgb.py --write    and stores it next to the VAE
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401  (makes onereward_pack importable)
from diffusers import AutoencoderKL
from onereward_pack.local_backend.pipeline.preview_components import PREVIEW_FOLDER
from onereward_pack.local_backend.preview_model.training.painter import Painter
from onereward_pack.local_backend.preview_model.training.vocabulary import BACKGROUNDS

PER_CLASS = 6
SIZE = 256


def paint(seed: int) -> Tensor:
    """Every background class, half of the pictures with their colours swapped: [n, 3, h, w]."""
    generator = torch.Generator().manual_seed(seed)
    painter = Painter(SIZE, "cpu", generator)
    pictures = torch.cat([painter.paint(name, PER_CLASS) for name in BACKGROUNDS])
    pictures[::2] = pictures[::2].roll(1, dims=1)
    pictures[::3] = 1 - pictures[::3]
    return pictures


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Normalised latents as the transformer sees them, one row per latent pixel: [rows, 16]."""
    latents = torch.cat([vae.encode(part * 2 - 1).latent_dist.mode() for part in pictures.split(8)])
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return latents.permute(0, 2, 3, 1).flatten(0, 2)


def shrink(pictures: Tensor) -> Tensor:
    """The colour a latent pixel should show, one row each: [rows, 3]."""
    return functional.avg_pool2d(pictures, 8).permute(0, 2, 3, 1).flatten(0, 2)


def with_ones(rows: Tensor) -> Tensor:
    return torch.cat((rows, torch.ones(len(rows), 1)), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(PREVIEW_FOLDER / "vae", local_files_only=True)

    train, held_out = paint(seed=0), paint(seed=1)
    solution = torch.linalg.lstsq(with_ones(encode(vae, train)), shrink(train)).solution
    error = with_ones(encode(vae, held_out)) @ solution - shrink(held_out)
    psnr = -10 * torch.log10(error.square().mean()).item()
    print(f"{len(train)} pictures; held-out PSNR {psnr:.1f} dB at 1/8 size")

    if args.write:
        rows = [[round(value, 5) for value in row] for row in solution.tolist()]
        text = json.dumps({"weight": rows[:-1], "bias": rows[-1]}).replace("], [", "],\n  [")
        (PREVIEW_FOLDER / "vae" / "latent_rgb.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
