"""The authors' algorithm the plain way: diffusers' own modules, all of them on the device."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline, calculate_shift
from torch import Tensor

from ...nodes.contracts import EditRequest, EditResult, ProgressSink
from ..checkpoints.load import ModelFile
from ..offload.devices import synchronize
from ..offload.flux_parts import FluxFiles
from ..pipeline.components import Components
from ..pipeline.flux_components import with_assets


def plain_components(opened: FluxFiles, device: torch.device, dtype: torch.dtype) -> Components:
    """The models of these files on the device, every weight unpacked to `dtype`."""
    return with_assets(
        transformer=_filled(opened.transformer, device, dtype),
        vae=_filled(opened.vae, device, dtype),
        text_encoder=_filled(opened.clip, device, dtype),
        text_encoder_2=_filled(opened.t5, device, dtype),
    )


def _filled(file: ModelFile, device: torch.device, dtype: torch.dtype) -> Any:
    names = [name for name, _ in file.module.named_parameters()]
    state = {
        name: stored.dense(dtype).to(device)
        for name, stored in ((name, file.weights.read(name)) for name in names)
    }
    file.module.load_state_dict(state, strict=False, assign=True)
    return file.module.requires_grad_(False).to(device)


class Reference:
    """diffusers' Fill pipeline with true CFG, both prompts in one call a step, and nothing else. It
    paints what OneRewardPipeline paints at the level "none", from the same noise.
    """

    def __init__(self, components: Components, device: torch.device) -> None:
        """The components lie on the device."""
        self._device, self._text_lengths = device, components.text_lengths
        self._flux: Any = FluxFillPipeline(**components.pipeline_arguments())

    @torch.inference_mode(False)
    @torch.no_grad()
    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """The first image of a request with true CFG, whatever the request's acceleration."""
        marks = [self._now()]
        timesteps = self._timesteps(request)
        conditions = self._encode(request)
        latents, picture = self._prepare(request, timesteps[:1])
        marks.append(self._now())
        for index, time in enumerate(timesteps):
            progress.check_interrupted()
            velocity = self._velocity(latents, picture, time, conditions, request.true_cfg)
            latents = self._flux.scheduler.step(velocity, time, latents, return_dict=False)[0]
            progress.step(index + 1, len(timesteps))
        marks.append(self._now())
        image = self._decode(latents, request)
        marks.append(self._now())
        return EditResult(
            images=image,
            seeds=(request.seed,),
            has_nsfw_concepts=(False,),
            timings=dict(
                zip(("encode", "denoise", "decode"), np.diff(marks).tolist(), strict=True)
            ),
        )

    def _timesteps(self, request: EditRequest) -> Tensor:
        scheduler, steps = self._flux.scheduler, request.num_inference_steps
        config = scheduler.config
        mu = calculate_shift(
            request.mask[0].numel() // 256,
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        sigmas = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=mu, device=self._device)
        scheduler.set_begin_index(0)
        timesteps: Tensor = scheduler.timesteps
        return timesteps

    def _encode(self, request: EditRequest) -> dict[str, Tensor | None]:
        prompts = (request.negative_prompt, request.prompt)
        tokens = max(len(self._flux.tokenizer_2(prompt).input_ids) for prompt in prompts)
        length = next(length for length in self._text_lengths if length >= tokens)
        texts = [
            self._flux.encode_prompt(p, None, device=self._device, max_sequence_length=length)
            for p in prompts
        ]
        guided = self._flux.transformer.config.guidance_embeds
        guidance = torch.full([2], request.guidance_scale, device=self._device)
        return {
            "guidance": guidance if guided else None,
            "encoder_hidden_states": torch.cat([text[0] for text in texts]),
            "pooled_projections": torch.cat([text[1] for text in texts]),
            "txt_ids": texts[0][2],
        }

    def _prepare(self, request: EditRequest, first: Tensor) -> tuple[Tensor, Tensor]:
        """Packed noise, and the packed picture with its mask; remembers where the tokens are."""
        flux, dtype = self._flux, self._flux.transformer.dtype
        channels = flux.vae.config.latent_channels
        generator = torch.Generator("cpu").manual_seed(request.seed)
        place = (*request.image.shape[1:3], dtype, self._device, generator)
        image = flux.image_processor.preprocess(request.image.permute(0, 3, 1, 2))
        latents, self._image_ids = flux.prepare_latents(image, first, 1, channels, *place)
        hole = request.mask[:, None]
        masked_image = (image * (1 - hole)).to(self._device, dtype)
        mask, masked_image = flux.prepare_mask_latents(hole, masked_image, 1, channels, 1, *place)
        return latents, torch.cat([masked_image, mask], dim=2)

    def _velocity(
        self,
        latents: Tensor,
        picture: Tensor,
        time: Tensor,
        conditions: dict[str, Tensor | None],
        true_cfg: float,
    ) -> Tensor:
        velocity = self._flux.transformer(
            hidden_states=torch.cat([latents, picture], dim=2).repeat(2, 1, 1),
            timestep=time.expand(2).to(latents.dtype) / 1000,
            img_ids=self._image_ids,
            return_dict=False,
            **conditions,
        )[0]
        away, towards = velocity.chunk(2)
        guided: Tensor = away + true_cfg * (towards - away)
        return guided

    def _decode(self, latents: Tensor, request: EditRequest) -> Tensor:
        vae = self._flux.vae
        height, width = request.image.shape[1:3]
        latents = FluxFillPipeline._unpack_latents(latents, height, width, 8)
        latents = latents / vae.config.scaling_factor + vae.config.shift_factor
        image: Tensor = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return image.to("cpu", torch.float32).contiguous()

    def _now(self) -> float:
        synchronize(self._device)
        return perf_counter()
