"""Compares our pipeline with OneReward's own pipeline file, on the preview model.

git clone https://github.com/bytedance/OneReward
python tests/benchmarks/reference_parity.py --pipeline OneReward/src/pipeline_flux_fill_with_cfg.py

Prints the largest difference of the final latents for each case, and fails above 1e-5. The file
is ByteDance's (Apache-2.0); it is loaded from where you put it and is not part of this pack.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import conftest  # noqa: F401  (loads the pack as onereward_pack)

from fakes.backend import RecordingProgress
from fakes.tiny import make_request
from onereward_pack.local_backend.pipeline.components import Components
from onereward_pack.local_backend.pipeline.onereward import Conditions, OneRewardPipeline
from onereward_pack.local_backend.pipeline.preview_components import load_preview_model
from onereward_pack.nodes.contracts import EditRequest

TOLERANCE = 1e-5
CASES: dict[str, dict[str, Any]] = {
    "256x256, cfg 4": {"height": 256, "width": 256},
    "256x256, cfg 1": {"height": 256, "width": 256, "true_cfg": 1.0},
    "192x320, cfg 2.5, guidance 3.5, seed 7": {
        "height": 192,
        "width": 320,
        "true_cfg": 2.5,
        "guidance_scale": 3.5,
        "seed": 7,
    },
}


def load_reference(path: Path, components: Components) -> Any:
    """The authors' FluxFillCFGPipeline around the same components."""
    spec = spec_from_file_location("onereward_reference", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not a Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    pipeline = module.FluxFillCFGPipeline(**components.pipeline_arguments())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def reference_latents(reference: Any, request: EditRequest, text_length: int) -> Tensor:
    height, width = request.image.shape[1:3]
    latents: Tensor = reference(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        image=request.image.permute(0, 3, 1, 2),
        mask_image=request.mask[:, None],
        height=height,
        width=width,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        true_cfg=request.true_cfg,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        max_sequence_length=text_length,
        output_type="latent",
    ).images
    return latents


@torch.no_grad()
def our_latents(pipeline: OneRewardPipeline, request: EditRequest) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(request.seed)
    text = pipeline.encode_prompt(request, RecordingProgress())
    posterior = pipeline.encode_masked_image(request)
    latents, image_ids = pipeline.prepare_latents(request, generator)
    masked_image = pipeline.prepare_mask_latents(request, posterior, generator)
    conditions = Conditions(text, masked_image, image_ids, pipeline.prepare_guidance(request))
    return pipeline.denoise(latents, conditions, request, RecordingProgress())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", type=Path, required=True, help="the authors' pipeline file")
    parser.add_argument("--steps", type=int, default=28)
    args = parser.parse_args()

    components = load_preview_model()
    pipeline = OneRewardPipeline(components, torch.device("cpu"))
    reference = load_reference(args.pipeline, components)
    worst = 0.0
    for name, changes in CASES.items():
        request = make_request(num_inference_steps=args.steps, **changes)
        expected = reference_latents(reference, request, pipeline.prompts.text_length(request))
        difference = (our_latents(pipeline, request) - expected).abs().max().item()
        print(f"{name}: max abs latent difference {difference:.2e} (std {expected.std():.2f})")
        worst = max(worst, difference)
    if not worst <= TOLERANCE:
        raise SystemExit(f"differs by {worst:.2e}, more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
