"""The figures of the preview model's README are a floor, on the very scenes they were taken on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes.backend import RecordingProgress
from onereward_pack.local_backend.backends.preview import PreviewBackend
from onereward_pack.local_backend.preview_model.training.metrics import psnr_in
from onereward_pack.nodes.contracts import EditRequest, EditTask
from onereward_pack.nodes.image_io import decode_image, decode_mask

FOLDER = Path(__file__).resolve().parents[1] / "data" / "held_out"


def mean_psnr(task: str) -> float:
    """Mean PSNR in dB inside the masks, 28 steps, true CFG 4."""
    backend, values = PreviewBackend(), []
    for i, prompt in enumerate(json.loads((FOLDER / "prompts.json").read_text("utf-8"))[task]):
        image = decode_image((FOLDER / f"{task}-{i:02}.jpg").read_bytes())
        mask = decode_mask((FOLDER / f"{task}-{i:02}.png").read_bytes())
        request = EditRequest(task=EditTask(task), prompt=prompt, seed=i, image=image, mask=mask)
        painted = backend.run(request, RecordingProgress()).images
        pair = (painted.permute(0, 3, 1, 2), image.permute(0, 3, 1, 2), mask[None])
        values.append(psnr_in(*pair))
    return float(torch.cat(values).mean())


@pytest.mark.parametrize(("task", "readme"), [("remove", 24.6), ("extend", 21.2)])
def test_the_pack_paints_as_well_as_the_readme_says(task: str, readme: float) -> None:
    assert mean_psnr(task) >= readme
