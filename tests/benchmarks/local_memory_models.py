"""Random FLUX.1-Fill models held in the machine's memory, and the plain pipeline around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux_fill import calculate_shift
from fakes.reference import decode, fill_pipeline
from fakes.tiny_flux import FLUX_ASSETS, TinyFlux, flux_components, tiny_flux_fill
from onereward_pack.local_backend import flux as flux_module
from onereward_pack.local_backend.checkpoints.models import ModelFile
from onereward_pack.local_backend.checkpoints.stored import Stored
from onereward_pack.local_backend.checkpoints.weights import ModuleWeights, WeightInfo
from onereward_pack.local_backend.components import Components
from onereward_pack.nodes.contracts import EditRequest
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

SPREAD = 0.02  # of the random weights
_TEXT_TOKENS = 512
# What the files that most people have are stored in.
_STORED_IN = {
    "transformer": torch.bfloat16,
    "text_encoder": torch.float16,
    "text_encoder_2": torch.float16,
    "vae": torch.float32,
}


@dataclass(frozen=True, eq=False)
class HeldModel:
    """A model's settings, as a maker of an empty module, and its weights by parameter."""

    make: Callable[[], nn.Module]
    weights: Mapping[str, Tensor]

    def file(self) -> ModelFile:
        """What opening a file with these weights gives; a new module each time."""
        weights = self.weights
        sizes = {
            name: WeightInfo(tuple(weight.shape), weight.nbytes, False)
            for name, weight in weights.items()
        }
        stored = ModuleWeights(sizes, lambda n: Stored(weights[n], tuple(weights[n].shape)))
        return ModelFile(empty(self.make), stored)

    def module(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The plain module with its weights on a device."""
        module = empty(self.make)
        state = {name: weight.to(device).to(dtype) for name, weight in self.weights.items()}
        module.load_state_dict(state, strict=False, assign=True)
        module.requires_grad_(False).to(device)
        assert not any(parameter.is_meta for parameter in module.parameters())
        return module


Models = dict[str, HeldModel]  # by diffusers' names of the parts


def empty(make: Callable[[], nn.Module]) -> nn.Module:
    """The module on the meta device, frozen."""
    with init_empty_weights(include_buffers=False):
        module = make()
    return module.eval().requires_grad_(False)


def shapes_only() -> Models:
    """The full-size models without any weights, by FLUX.1-Fill's published settings."""
    return {
        name: HeldModel(make, _empty_weights(make, _STORED_IN[name]))
        for name, make in _makers(_published).items()
    }


def full_models(device: torch.device, seed: int = 0) -> Models:
    """The full-size models with normal random weights, made on a device and kept on the host."""
    generator = torch.Generator(device).manual_seed(seed)
    models = shapes_only()
    return {
        name: HeldModel(model.make, _random_weights(model.weights, device, generator))
        for name, model in models.items()
    }


def tiny_models() -> Models:
    """The tiny models, stored in the same types."""
    flux = tiny_flux_fill(width=256)  # so that the transformer is larger than the vocabularies
    modules = {name: getattr(flux, name) for name in _STORED_IN}
    makers = _makers(lambda name: _settings(modules[name]))
    return {
        name: HeldModel(
            makers[name],
            {key: value.to(_STORED_IN[name]) for key, value in module.named_parameters()},
        )
        for name, module in modules.items()
    }


@contextmanager
def opened_from_memory(models: Models) -> Iterator[None]:
    """Whatever file the pack is told to open inside, it gets these models."""
    openers = {
        "open_transformer": "transformer",
        "open_clip": "text_encoder",
        "open_t5": "text_encoder_2",
        "open_vae": "vae",
    }
    with patch.multiple(
        flux_module,
        **{opener: lambda _, part=part: models[part].file() for opener, part in openers.items()},
    ):
        yield


def resident_components(models: Models, device: torch.device, dtype: torch.dtype) -> Components:
    """Plain modules, all of them on the device, with FLUX.1's tokenizers and schedule."""
    return flux_components(TinyFlux(**{n: m.module(device, dtype) for n, m in models.items()}))


@torch.inference_mode(False)
@torch.no_grad()
def paint_plainly(
    components: Components, request: EditRequest, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """diffusers' Fill pipeline with both prompts in one call a step, and nothing else.

    Returns: packed latents, float32 on the CPU, and the seconds of each stage.
    """
    flux = fill_pipeline(components)
    times = [now(device)]
    timesteps = _set_timesteps(flux.scheduler, request, device)
    latents, picture, conditions = _prepared(flux, request, timesteps[:1], device)
    times.append(now(device))
    for time in timesteps:
        velocity = components.transformer(
            hidden_states=torch.cat([latents, picture], dim=2).repeat(2, 1, 1),
            timestep=time.expand(2).to(latents.dtype) / 1000,
            return_dict=False,
            **conditions,
        )[0]
        away, towards = velocity.chunk(2)
        guided = away + request.true_cfg * (towards - away)
        latents = flux.scheduler.step(guided, time, latents, return_dict=False)[0]
    times.append(now(device))
    decode(components, latents, *request.image.shape[1:3]).to("cpu", torch.float32)
    times.append(now(device))
    seconds = dict(zip(("encode", "denoise", "decode"), np.diff(times).tolist(), strict=True))
    return latents.to("cpu", torch.float32), seconds


def _prepared(
    flux: Any, request: EditRequest, first: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Packed noise, the packed picture with its mask, and what else the transformer is told.

    Args:
        first: [1], the first time.
    """
    texts = [
        flux.encode_prompt(text, None, device=device, max_sequence_length=_TEXT_TOKENS)
        for text in (request.negative_prompt, request.prompt)
    ]
    dtype = flux.transformer.dtype
    generator = torch.Generator("cpu").manual_seed(request.seed)
    place = (*request.image.shape[1:3], dtype, device, generator)
    image = flux.image_processor.preprocess(request.image.permute(0, 3, 1, 2))
    latents, image_ids = flux.prepare_latents(image, first, 1, 16, *place)
    hole = request.mask[:, None]
    masked_image = (image * (1 - hole)).to(device, dtype)
    mask, masked_image = flux.prepare_mask_latents(hole, masked_image, 1, 16, 1, *place)
    conditions = {
        "guidance": torch.full([2], request.guidance_scale, device=device),
        "encoder_hidden_states": torch.cat([text[0] for text in texts]),
        "pooled_projections": torch.cat([text[1] for text in texts]),
        "txt_ids": texts[0][2],
        "img_ids": image_ids,
    }
    return latents, torch.cat([masked_image, mask], dim=2), conditions


def now(device: torch.device) -> float:
    """Seconds, all that the device was asked for having been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def _set_timesteps(
    scheduler: FlowMatchEulerDiscreteScheduler, request: EditRequest, device: torch.device
) -> Tensor:
    steps, config = request.num_inference_steps, scheduler.config
    mu = calculate_shift(
        request.mask[0].numel() // 256,
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu, device=device)
    scheduler.set_begin_index(0)
    timesteps: Tensor = scheduler.timesteps
    return timesteps


def _published(name: str) -> dict[str, Any]:
    path = FLUX_ASSETS / name / "config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


def _settings(module: Any) -> dict[str, Any]:
    """A diffusers or a transformers module's."""
    config = module.config
    return dict(config.to_dict() if hasattr(config, "to_dict") else config)


def _makers(settings: Callable[[str], dict[str, Any]]) -> dict[str, Callable[[], nn.Module]]:
    def t5() -> nn.Module:
        model = T5EncoderModel(T5Config.from_dict(settings("text_encoder_2")))
        model.set_input_embeddings(model.shared)  # making it on the meta device unties them
        return model

    return {
        "transformer": lambda: FluxTransformer2DModel.from_config(settings("transformer")),
        "vae": lambda: AutoencoderKL.from_config(settings("vae")),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig.from_dict(settings("text_encoder"))),
        "text_encoder_2": t5,
    }


def _empty_weights(make: Callable[[], nn.Module], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: torch.empty(parameter.shape, dtype=dtype, device="meta")
        for name, parameter in empty(make).named_parameters()
    }


def _random_weights(
    shapes: Mapping[str, Tensor], device: torch.device, generator: torch.Generator
) -> dict[str, Tensor]:
    weights = {}
    for name, like in shapes.items():
        weight = torch.empty(like.shape, dtype=like.dtype, device=device)
        weight.normal_(0, SPREAD, generator=generator)
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and "norm" in owner.rpartition(".")[2]:
            weight += 1  # norms are centred on one, so that nothing fades away layer by layer
        weights[name] = weight.cpu()
    return weights
