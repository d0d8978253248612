"""Cost of planning, cutting and stitching a crop of a very large picture, beside a peer.

    python tests/benchmarks/canvas.py [--side 8192] [--runs 3] [--peer FOLDER --comfyui FOLDER]

The peer is ComfyUI-Inpaint-CropAndStitch, which needs a ComfyUI to import. Every row runs in a
process of its own, so that its peak memory belongs to it alone.
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024


def picture_and_mask(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, side, side)
    top, half = side // 2, 256
    mask[:, top - half : top + half, top - half : top + half] = 1
    return image, mask


def ours(image: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Seconds of each stage: an edit whose model gives the crop back."""
    sys.path.insert(0, str(TESTS))
    import_module("conftest")
    canvas = "onereward_pack.nodes.canvas"
    options = import_module(f"{canvas}.options").CanvasOptions()
    plan_crops = import_module(f"{canvas}.crop_plan").plan_crops
    stitch = import_module(f"{canvas}.stitch")
    copy_pictures = import_module(f"{canvas}.image_ops").copy_pictures
    contracts = import_module("onereward_pack.nodes.contracts")
    limits = contracts.Capabilities(max_pixels=1024 * 1024, min_side=512, max_aspect=4.0)
    clock = [time.perf_counter()]
    plan = plan_crops(mask[0], options, limits)
    clock.append(time.perf_counter())
    (crop,) = plan.crops
    seen, _ = stitch.cut(image[0], crop)
    clock.append(time.perf_counter())
    out = copy_pictures(image, [0])
    clock.append(time.perf_counter())
    stitch.paste(out[0], crop, seen[0], options.seam)
    clock.append(time.perf_counter())
    names = ("plan", "cut", "copy", "paste")
    stages = {n: b - a for n, a, b in zip(names, clock, clock[1:], strict=False)}
    return {"total": clock[-1] - clock[0], **stages}


def peer(image: torch.Tensor, mask: torch.Tensor, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the peer's crop and stitch nodes at their defaults, holes left unfilled."""
    sys.path[:0] = [options.comfyui, options.peer]
    import_module("comfy.cli_args").args.cpu = True
    module = import_module("inpaint_cropandstitch")
    crop_node, stitch_node = module.InpaintCropImproved(), module.InpaintStitchImproved()
    defaults = {
        name: spec[1]["default"]
        for name, spec in crop_node.INPUT_TYPES()["required"].items()
        if len(spec) > 1 and "default" in spec[1]
    }
    defaults |= {"mask_fill_holes": False, "output_target_width": 1024}
    defaults |= {"output_target_height": 1024, "device_mode": "cpu (compatible)"}
    start = time.perf_counter()
    stitcher, cropped, _ = crop_node.inpaint_crop(image, mask=mask, **defaults)
    middle = time.perf_counter()
    stitch_node.inpaint_stitch(stitcher, cropped)
    end = time.perf_counter()
    return {"total": end - start, "crop": middle - start, "stitch": end - middle}


def find_holes() -> dict[str, float]:
    """Seconds to look for pinholes in a 4096 x 4096 ring."""
    sys.path.insert(0, str(TESTS))
    import_module("conftest")
    find: Callable[..., object] = import_module(
        "onereward_pack.nodes.canvas.morphology"
    ).small_holes
    axis = torch.arange(4096) - 2048
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    ring = (radius < 1500) & (radius > 400)
    within = torch.ones_like(ring)
    start = time.perf_counter()
    find(ring, 64, within)
    return {"total": time.perf_counter() - start}


def measure(case: str, options: argparse.Namespace) -> None:
    if case == "holes":
        results = [find_holes() for _ in range(5)]
        print(min(r["total"] for r in results), 0, 0)
        return
    image, mask = picture_and_mask(options.side)
    # A small picture first: imports and first calls are not the work that is measured.
    small = image[:, :1024, :1024].clone(), torch.zeros(1, 1024, 1024)
    small[1][:, 400:600, 400:600] = 1
    run = ours if case == "ours" else functools.partial(peer, options=options)
    run(*small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stages = run(image, mask)
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    detail = ", ".join(f"{k} {v:.3f}" for k, v in stages.items() if k != "total")
    print(stages["total"], extra, detail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8192, help="of the square picture, px")
    parser.add_argument("--peer", default="", help="folder of ComfyUI-Inpaint-CropAndStitch")
    parser.add_argument("--comfyui", default="", help="folder of a ComfyUI, for the peer")
    parser.add_argument("--runs", type=int, default=3, help="processes per row")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        measure(options.case, options)
        return
    copy = options.side**2 * 12 / MIB
    print(f"picture {options.side}x{options.side}, one copy is {copy:.0f} MiB, 512x512 painted")
    print(f"{'':12}{'seconds':>9}{'extra MiB':>11}{'copies':>8}  stages of the last run")
    for case in ("ours", "peer", "holes") if options.peer else ("ours", "holes"):
        command = [sys.executable, __file__, "--case", case, "--side", str(options.side)]
        command += ["--peer", options.peer, "--comfyui", options.comfyui]
        rows = [
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" ", 2)
            for _ in range(options.runs)
        ]
        seconds = statistics.median(float(r[0]) for r in rows)
        extra = max(float(r[1]) for r in rows) / MIB
        label = "holes 4096" if case == "holes" else case
        print(f"{label:12}{seconds:9.3f}{extra:11.0f}{extra / copy:8.2f}  {rows[-1][2].strip()}")


if __name__ == "__main__":
    main()
