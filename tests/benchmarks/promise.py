"""The pack's promise, counted: nothing outside the blend changes, all that was painted is new.

    python tests/benchmarks/promise.py [--cases 500] [--peer FOLDER --comfyui FOLDER]

The peer is ComfyUI-Inpaint-CropAndStitch at its defaults, which needs a ComfyUI to import.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parent.parent
SIDES = (512, 64, 16, 4, 1)
PAINT = 0.77  # a grey that the random pictures hardly ever have


def square(side: int, height: int = 1024, width: int = 1024) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    mask[:, top : top + side, left : left + side] = 1
    return mask


def ours_replaced(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The picture after a model has painted the whole crop in one grey, seam correction off."""
    canvas = "onereward_pack.nodes.canvas"
    plan_crops = import_module(f"{canvas}.crop_plan").plan_crops
    options = import_module(f"{canvas}.options").CanvasOptions(grow=0, seam=0.0)
    stitch = import_module(f"{canvas}.stitch")
    limits = import_module("onereward_pack.nodes.contracts").Capabilities(
        max_pixels=1024 * 1024, min_side=512, max_aspect=4.0
    )
    out = image[0].clone()
    for crop in plan_crops(mask[0], options, limits).crops:
        stitch.paste(out, crop, torch.full((*crop.size, 3), PAINT), 0.0)
    return out[None]


def peer_replaced(image: torch.Tensor, mask: torch.Tensor, module: Any) -> torch.Tensor:
    crop, stitch = module.InpaintCropImproved(), module.InpaintStitchImproved()
    required = crop.INPUT_TYPES()["required"].items()
    defaults = {n: s[1]["default"] for n, s in required if len(s) > 1 and "default" in s[1]}
    defaults |= {"output_target_width": 1024, "output_target_height": 1024}
    defaults |= {"device_mode": "cpu (compatible)"}
    stitcher, cropped, _ = crop.inpaint_crop(image, mask=mask, **defaults)
    result: torch.Tensor = stitch.inpaint_stitch(stitcher, torch.full_like(cropped, PAINT))[0]
    return result


def replaced(image: torch.Tensor, mask: torch.Tensor) -> float:
    """Share of the painted pixels that hold the model's value, to an 8-bit step."""
    painted = image[mask.bool()]
    return float(((painted - PAINT).abs() < 0.5 / 255).all(-1).float().mean())


def random_cases(count: int) -> tuple[int, int]:
    """(values changed outside the blend, painted pixels not opaque) over random edits."""
    cases = import_module("nodes.edit.test_run")
    backend, progress = cases.ColourBackend, cases.RecordingProgress
    outside = missed = 0
    for case in range(count):
        rng = random.Random(case)
        height, width = rng.randint(1, 200), rng.randint(1, 200)
        image = cases.picture(1, height, width, rng.choice([3, 4]))
        recipe = replace(cases.RECIPE, num_images=rng.choice([1, 2]))
        if rng.random() < 0.2:
            to = rng.choice(["left 40", "top 9, bottom 70"])
            done = cases.extend(image, to, "center", 8, recipe, None, backend(), progress())
            sides = cases.margins(cases.parse_extend(to), "center", height, width)
            rows = slice(sides.top, sides.top + height)
            columns = slice(sides.left, sides.left + width)
            result, blend = done.images[:, rows, columns], done.mask[:, rows, columns]
        else:
            mask = cases.random_mask(rng, 1, height, width)
            options = cases.CanvasOptions(
                grow=rng.choice([0, 8]),
                blend=rng.choice([0, 16]),
                target=rng.choice(["auto", "96"]),
            )
            done = cases.edit(image, mask, recipe, options, backend(), progress())
            result, blend = done.images, done.mask
            missed += int((blend[(mask >= 0.1).expand_as(blend)] < 1).sum())
        kept = (blend == 0)[..., None].expand_as(result)
        outside += int((result != image.expand_as(result))[kept].sum())
    return outside, missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--peer", default="", help="folder of ComfyUI-Inpaint-CropAndStitch")
    parser.add_argument("--comfyui", default="", help="folder of a ComfyUI, for the peer")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    import_module("conftest")
    outside, missed = random_cases(options.cases)
    print(f"{options.cases} random edits: {outside} values changed outside the blend,")
    print(f"{missed} painted pixels not replaced in full\n")
    module = None
    if options.peer:
        sys.path[:0] = [options.comfyui, options.peer]
        import_module("comfy.cli_args").args.cpu = True
        module = import_module("inpaint_cropandstitch")
    print("painted square   replaced in full: ours" + ("      peer" if module else ""))
    for side in SIDES:
        image, mask = torch.rand(1, 1024, 1024, 3), square(side)
        row = f"{side:11} px {replaced(ours_replaced(image, mask), mask):22.0%}"
        if module:
            row += f"{replaced(peer_replaced(image, mask, module), mask):10.0%}"
        print(row)


if __name__ == "__main__":
    main()
