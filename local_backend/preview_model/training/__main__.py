"""Runs the stages: python -m local_backend.preview_model.training <stage> --help."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .assets import EMOJI_FONT, TEXT_FONT, build_assets
from .classifier import train_classifier
from .demo_scenes import make_demo_scenes
from .export import export
from .metrics import measure
from .sheets import draw_sheets
from .timing import time_sampling
from .tokenizers import build_tokenizers
from .train_model import ModelOptions, train_model
from .train_vae import SEED, VaeOptions, train_vae

WEIGHTS = Path(__file__).resolve().parent.parent


def _device(name: str) -> torch.device:
    return torch.device(name)


def _default_device() -> str:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def _add_assets_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--assets", type=Path, default=Path("assets.npz"), help="file of the assets stage"
    )


def _add_work_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", type=Path, default=Path("work"), help="folder of tokenizers and raw weights"
    )


def _add_weights_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="exported folder (the pack's own)"
    )
    parser.add_argument("--steps", type=int, default=28, help="sampling steps (28)")


def _add_smoke_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps, to try the stage")


def _add_run_options(parser: argparse.ArgumentParser, batch: int) -> None:
    """Options that both trainings share."""
    _add_assets_option(parser)
    _add_work_option(parser)
    _add_smoke_option(parser)
    parser.add_argument(
        "--device", type=_device, default=_default_device(), help="where to train (the GPU)"
    )
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="wall-clock budget in seconds (600)"
    )
    parser.add_argument("--batch", type=int, default=batch, help=f"scenes in a batch ({batch})")
    parser.add_argument(
        "--no-compile", dest="compile", action="store_false", help="do without torch.compile"
    )


def _add_assets(parser: argparse.ArgumentParser) -> None:
    _add_assets_option(parser)
    parser.add_argument(
        "--emoji-font", type=Path, default=EMOJI_FONT, help="Noto Color Emoji's .ttf"
    )
    parser.add_argument("--text-font", type=Path, default=TEXT_FONT, help="DejaVu Sans Bold's .ttf")
    parser.add_argument(
        "--photos", type=Path, help="folder with scikit-image's sample photos (none)"
    )
    parser.set_defaults(
        run=lambda a: build_assets(a.assets, a.emoji_font, a.text_font, a.photos, SEED)
    )


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    _add_assets_option(parser)
    _add_work_option(parser)
    parser.set_defaults(run=lambda a: build_tokenizers(a.assets, a.work))


def _run_vae(a: argparse.Namespace) -> None:
    train_vae(VaeOptions(a.assets, a.work, a.device, a.seconds, a.batch, a.compile, a.smoke))


def _add_vae(parser: argparse.ArgumentParser) -> None:
    _add_run_options(parser, batch=48)
    parser.set_defaults(run=_run_vae)


def _run_model(a: argparse.Namespace) -> None:
    options = ModelOptions(
        assets=a.assets,
        work=a.work,
        out=a.out or a.work,
        device=a.device,
        seconds=a.seconds,
        batch=a.batch,
        rate=a.lr,
        ema=a.ema,
        reuse=a.reuse,
        schedule=(a.schedule[0], a.schedule[1]),
        init=a.init,
        resume=a.resume,
        text=a.text,
        cfg=a.cfg,
        muon=not a.adamw,
        compile=a.compile,
        smoke=a.smoke,
    )
    train_model(options)


def _add_model(parser: argparse.ArgumentParser) -> None:
    _add_run_options(parser, batch=256)
    add = parser.add_argument
    add("--out", type=Path, help="where to write the raw weights (the --work folder)")
    add("--lr", type=float, default=1.5e-3, help="highest learning rate (0.0015)")
    add("--ema", type=float, default=0.9995, help="decay of the running average (0.9995)")
    add("--reuse", type=int, default=4, help="training steps per chunk of new scenes (4)")
    add(
        "--schedule",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("FROM", "TO"),
        help="part of the learning-rate schedule this run covers (0 1)",
    )
    add("--init", type=Path, help="folder with model_raw and model_ema to continue from")
    add(
        "--resume", action="store_true", help="with --init: go on where that run's schedule stopped"
    )
    add("--text", action="store_true", help="last stage: half the scenes are known words")
    add("--cfg", type=float, default=4.0, help="true CFG of the contact sheet (4)")
    add("--adamw", action="store_true", help="AdamW for all weights, without Muon")
    parser.set_defaults(run=_run_model)


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_work_option(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("weights"), help="folder to write (weights)"
    )
    parser.set_defaults(run=lambda a: export(a.work, a.out))


def _add_classifier(parser: argparse.ArgumentParser) -> None:
    _add_assets_option(parser)
    _add_work_option(parser)
    _add_smoke_option(parser)
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="wall-clock budget in seconds (240)"
    )
    parser.set_defaults(run=lambda a: train_classifier(a.assets, a.work, a.seconds, a.smoke))


def _add_samples_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("samples"), help="folder to write (samples)"
    )


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    _add_assets_option(parser)
    _add_work_option(parser)
    _add_weights_options(parser)
    _add_samples_option(parser)
    parser.add_argument("--count", type=int, default=24, help="removals to measure (24)")
    parser.set_defaults(run=lambda a: measure(a.assets, a.work, a.weights, a.out, a.count, a.steps))


def _add_sheets(parser: argparse.ArgumentParser) -> None:
    _add_assets_option(parser)
    _add_weights_options(parser)
    _add_samples_option(parser)
    parser.set_defaults(run=lambda a: draw_sheets(a.assets, a.weights, a.out, a.steps))


def _add_time(parser: argparse.ArgumentParser) -> None:
    _add_weights_options(parser)
    parser.set_defaults(run=lambda a: time_sampling(a.weights, a.steps))


def _add_demo_scenes(parser: argparse.ArgumentParser) -> None:
    _add_assets_option(parser)
    folder = WEIGHTS.parent / "cli" / "demo_scenes"
    parser.add_argument("--out", type=Path, default=folder, help="folder to write (the pack's own)")
    parser.set_defaults(run=lambda a: make_demo_scenes(a.assets, a.out))


STAGES = {
    "assets": (_add_assets, "draw the sprites (needs the two fonts)"),
    "tokenizer": (_add_tokenizer, "build the CLIP and T5 tokenizers"),
    "vae": (_add_vae, "train the VAE"),
    "model": (_add_model, "train transformer and text encoders"),
    "export": (_add_export, "write a FluxFillPipeline folder"),
    "classifier": (_add_classifier, "train the network that names what was drawn"),
    "metrics": (_add_metrics, "measure the exported model on held-out scenes"),
    "sheets": (_add_sheets, "draw contact sheets of the exported model"),
    "time": (_add_time, "time the exported model on this CPU"),
    "demo-scenes": (_add_demo_scenes, "paint the demo's pictures and masks"),
}


def make_parser() -> argparse.ArgumentParser:
    """One subcommand per stage, each with the options it reads."""
    parser = argparse.ArgumentParser(
        prog="python -m local_backend.preview_model.training", description=__doc__
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, (add_options, text) in STAGES.items():
        add_options(stages.add_parser(name, help=text, description=text))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage, logging to stdout."""
    args = make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    args.run(args)


if __name__ == "__main__":
    main()
