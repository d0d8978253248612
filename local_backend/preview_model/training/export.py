"""The export stage: the standard diffusers folder that FluxFillPipeline.from_pretrained loads."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load, save_file

from .models import SCHEDULER_CONFIG, Denoiser, load_denoiser, load_vae
from .tokenizers import caption_ids

CLIP_PREFIX = "text_model."

log = logging.getLogger("onereward")

MODEL_INDEX = {
    "_class_name": "FluxFillPipeline",
    "_diffusers_version": "0.32.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _load_as_float32(folder: Path) -> None:
    """Transformers 5 would load fp16 weights as fp16, beside diffusers' float32 default."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")


def name_for_all_versions(weights: Path) -> None:
    """CLIP's weights under the names that every version of transformers reads. From 5.6 on it
    leaves their prefix out when it writes, and older versions would fill all with random numbers.
    """
    tensors = load(weights.read_bytes())  # not mapped: the file is written over
    named = {CLIP_PREFIX + name.removeprefix(CLIP_PREFIX): tensors[name] for name in tensors}
    save_file(named, weights, metadata={"format": "pt"})


def export(work: Path, out: Path) -> None:
    """Write fp16 weights, configs and tokenizers of the runs in `work` to the folder `out`."""
    ids = caption_ids(work, [""], torch.device("cpu"))
    model = Denoiser(ids.clip_size, ids.t5_size, ids.clip_start, ids.clip_end)
    load_denoiser(model, work / "model_ema.safetensors")
    model = model.half()
    out.mkdir(parents=True, exist_ok=True)
    load_vae(work, "cpu").half().save_pretrained(out / "vae")
    model.transformer.save_pretrained(out / "transformer")
    model.text_encoder.save_pretrained(out / "text_encoder")
    model.text_encoder_2.save_pretrained(out / "text_encoder_2")
    for name in ("text_encoder", "text_encoder_2"):
        _load_as_float32(out / name)
    name_for_all_versions(out / "text_encoder" / "model.safetensors")
    FlowMatchEulerDiscreteScheduler(**SCHEDULER_CONFIG).save_pretrained(out / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(work / name, out / name, dirs_exist_ok=True)
    (out / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    for path in sorted(out.rglob("*")):
        if path.is_file():
            log.info("%10d %s", path.stat().st_size, path.relative_to(out))
