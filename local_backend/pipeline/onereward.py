"""OneReward's sampler: FLUX.1-Fill with true CFG and the FlowMatch Euler scheduler.

True CFG runs the negative prompt, too, and so differs from FLUX's distilled guidance. One
EditRequest goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.flux.pipeline_flux_fill import (
    FluxFillPipeline,
    calculate_shift,
    retrieve_timesteps,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ...nodes.contracts import EditRequest, EditResult, ProgressSink
from ..acceleration.adaln_table import ModulationInputs, scaled_time
from ..acceleration.levels import LEVELS, Level
from ..acceleration.step_runner import accelerated_steps
from ..offload.devices import StageTimer
from ..offload.placement import Placement, Resident
from .components import Components
from .prompt_encoding import PromptCache, PromptEmbeds


@dataclass(frozen=True, eq=False)
class Conditions:
    """All that the transformer is conditioned on besides the latents and the time.

    Attributes:
        masked_image_latents: packed [1, tokens, 320]: the picture without its hole, and the mask.
        image_ids: [tokens, 3].
        guidance: float32 [branches], or None for a transformer without that embedding.
    """

    text: PromptEmbeds
    masked_image_latents: Tensor
    image_ids: Tensor
    guidance: Tensor | None


class OneRewardPipeline:
    """Paints the masked pixels of a picture, as OneReward's authors sample.

    The components lie on `device` and are not changed by a run, so an interrupted run leaves
    nothing behind. Not for two threads at once.
    """

    def __init__(
        self,
        components: Components,
        device: torch.device,
        placement: Placement | None = None,
        levels: Mapping[str, Level] = LEVELS,
    ) -> None:
        """Without a placement, the components lie on the device already, and stay there.

        Args:
            levels: what each request's `acceleration` means.
        """
        self.device, self.levels = device, levels
        self.placement = placement or Resident(device, components.transformer.dtype)
        self.scheduler_config = components.scheduler_config
        self.latent_rgb = components.latent_rgb
        self.transformer = components.transformer
        self.vae = components.vae
        self._flux = FluxFillPipeline(**components.pipeline_arguments())
        self.prompts = PromptCache(self._flux, components.text_lengths, device)

    # Results and cached prompts must be ordinary tensors, also when ComfyUI's inference mode is on.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """Runs a request that passed check_recipe and check_pixels.

        Image i is made with the seed request.seed + i, one after another. Progress counts the
        steps of all images.

        Raises:
            InputError: a prompt has more tokens than the model reads.
        """
        timings = dict.fromkeys(("encode", "denoise", "decode"), 0.0)
        seeds = tuple(range(request.seed, request.seed + request.num_images))
        images = []

        self.placement.arrange(request, progress)
        with StageTimer(timings, "encode", self.device):
            text = self.encode_prompt(request, progress)
            with self.placement.vae(progress):
                masked_image = self.encode_masked_image(request)
        for number, seed in enumerate(seeds):
            generator = torch.Generator("cpu").manual_seed(seed)
            with StageTimer(timings, "denoise", self.device):
                latents, image_ids = self.prepare_latents(request, generator)
                conditions = Conditions(
                    text,
                    self.prepare_mask_latents(request, masked_image, generator),
                    image_ids,
                    self.prepare_guidance(request),
                )
                latents = self.denoise(latents, conditions, request, progress, number)
            with StageTimer(timings, "decode", self.device), self.placement.vae(progress):
                images.append(self.decode(latents, request))

        return EditResult(
            images=torch.cat(images),
            seeds=seeds,
            has_nsfw_concepts=(False,) * len(seeds),
            timings=timings,
        )

    def encode_prompt(self, request: EditRequest, progress: ProgressSink) -> PromptEmbeds:
        """Both prompts, negative first; the positive one alone where CFG is off."""
        return self.prompts.encode(request, self.placement.text_encoders, progress)

    def encode_masked_image(self, request: EditRequest) -> DiagonalGaussianDistribution:
        """What the VAE makes of the picture with a mid-grey hole."""
        image = request.image.permute(0, 3, 1, 2).float() * 2 - 1
        masked_image = image * (1 - request.mask[:, None].float())
        encoded = self.vae.encode(masked_image.to(self.device, self.vae.dtype))
        posterior: DiagonalGaussianDistribution = encoded.latent_dist
        return posterior

    def prepare_latents(
        self, request: EditRequest, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Packed noise [1, tokens, 64] and its image ids [tokens, 3]."""
        height, width = (side // self._flux.vae_scale_factor for side in request.image.shape[1:3])
        shape = (1, self.vae.config["latent_channels"], height, width)
        draw = partial(randn_tensor, shape, generator=generator, device=self.device)
        # The authors' pipeline first samples the unmasked picture's latents, to noise them fully.
        # Drawing the same numbers in vain gives their picture for their seed.
        draw(dtype=self.vae.dtype)
        noise = draw(dtype=self.transformer.dtype)
        latents = self._flux._pack_latents(noise, *shape)
        image_ids = self._flux._prepare_latent_image_ids(
            1, height // 2, width // 2, self.device, self.transformer.dtype
        )
        return latents, image_ids

    def prepare_mask_latents(
        self,
        request: EditRequest,
        masked_image: DiagonalGaussianDistribution,
        generator: torch.Generator,
    ) -> Tensor:
        """Packed [1, tokens, 320]: a sample of the masked picture's latents, then the mask."""
        height, width = request.image.shape[1:3]
        mask, masked_image_latents = self._flux.prepare_mask_latents(
            request.mask[:, None],
            masked_image.sample(generator),
            1,
            self.vae.config["latent_channels"],
            1,
            height,
            width,
            self.transformer.dtype,
            self.device,
            generator,
        )
        return torch.cat((masked_image_latents, mask), dim=-1)

    def prepare_guidance(self, request: EditRequest) -> Tensor | None:
        """The distilled guidance, one per branch; not to be confused with true CFG."""
        if not self.transformer.config["guidance_embeds"]:
            return None
        branches = 2 if request.true_cfg > 1 else 1
        return torch.full([branches], request.guidance_scale, device=self.device)

    def denoise(
        self,
        latents: Tensor,
        conditions: Conditions,
        request: EditRequest,
        progress: ProgressSink,
        number: int = 0,
    ) -> Tensor:
        """From packed noise to packed latents, image `number` of the request."""
        steps = request.num_inference_steps
        scheduler = self.new_scheduler()
        self.set_timesteps(scheduler, steps, latents.shape[1])
        advance: Callable[..., Any] = scheduler.step  # its types know no tensor but a FloatTensor
        modulation = ModulationInputs(
            scheduler.timesteps.tolist(),
            conditions.guidance,
            conditions.text.pooled_prompt_embeds,
        )
        way = partial(
            accelerated_steps,
            self.levels[request.acceleration],
            scheduler.sigmas.tolist(),
            request.mask,
            transformer=self.transformer,
            text=conditions.text.prompt_embeds,
            kv_cache_format=self.placement.kv_cache_format,
        )
        with self.placement.transformer(modulation, progress) as select, way() as steps_taken:
            for index, timestep in enumerate(scheduler.timesteps):
                progress.check_interrupted()  # the user may cancel before each step
                select(index)
                velocity = steps_taken.velocity(
                    index,
                    partial(self.predict_velocity, latents, timestep, conditions, request.true_cfg),
                )
                preview = self.preview(latents - scheduler.sigmas[index] * velocity, request)
                latents = advance(velocity, timestep, latents, return_dict=False)[0]
                progress.step(number * steps + index + 1, steps * request.num_images, preview)
        return latents

    def new_scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """A scheduler remembers its place in a run; so every run gets its own."""
        scheduler: FlowMatchEulerDiscreteScheduler
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler_config)
        return scheduler

    def set_timesteps(
        self, scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int
    ) -> None:
        """FLUX's schedule: evenly spaced times, shifted towards noise for larger pictures."""
        config = scheduler.config
        mu = calculate_shift(
            tokens,
            config["base_image_seq_len"],
            config["max_image_seq_len"],
            config["base_shift"],
            config["max_shift"],
        )
        sigmas: list[float] = np.linspace(1.0, 1 / steps, steps).tolist()
        retrieve_timesteps(scheduler, steps, self.device, sigmas=sigmas, mu=mu)
        scheduler.set_begin_index(0)

    def predict_velocity(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditions: Conditions,
        true_cfg: float,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """The transformer's answer, guided away from the negative prompt where CFG is on.

        Args:
            tokens: int64 [m], those it is asked about; None for all.
        """
        text = conditions.text
        branches = text.prompt_embeds.shape[0]
        inputs = torch.cat((latents, conditions.masked_image_latents), dim=2)
        image_ids = conditions.image_ids
        if tokens is not None:
            inputs, image_ids = inputs[:, tokens], image_ids[tokens]
        velocity: Tensor = self.transformer(
            hidden_states=inputs.repeat(branches, 1, 1),
            timestep=scaled_time(timestep, branches, latents),
            guidance=conditions.guidance,
            pooled_projections=text.pooled_prompt_embeds,
            encoder_hidden_states=text.prompt_embeds,
            txt_ids=text.text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        if branches == 1:
            return velocity
        negative, positive = velocity.chunk(2)
        return negative + true_cfg * (positive - negative)

    def preview(self, latents: Tensor, request: EditRequest) -> Tensor | None:
        """Packed, finished latents as a small picture [h/8, w/8, 3], if there is a map for it."""
        if self.latent_rgb is None:
            return None
        return self.latent_rgb.picture(self._unpack(latents, request))

    def decode(self, latents: Tensor, request: EditRequest) -> Tensor:
        """Packed latents to a picture, float32 [1, h, w, 3] in 0..1 on the CPU."""
        config = self.vae.config
        latents = self._unpack(latents, request) / config["scaling_factor"] + config["shift_factor"]
        decoded = self.vae.decode(latents, return_dict=False)[0]
        image: Tensor = self._flux.image_processor.postprocess(decoded, output_type="pt")
        return image.permute(0, 2, 3, 1).to("cpu", torch.float32).contiguous()

    def _unpack(self, latents: Tensor, request: EditRequest) -> Tensor:
        height, width = request.image.shape[1:3]
        scale = self._flux.vae_scale_factor
        unpacked: Tensor = self._flux._unpack_latents(latents, height, width, scale)
        return unpacked
