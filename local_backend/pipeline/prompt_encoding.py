"""The prompt cache: text embeddings of the last prompts, so that the text encoders seldom run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from cachetools import LRUCache
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from torch import Tensor

from ...nodes.contracts import EditRequest, ProgressSink
from ...nodes.errors import InputError

_CACHED_PROMPTS = 16  # 4 MB each, on the host


@dataclass(frozen=True, eq=False)
class PromptEmbeds:
    """One row per branch: the negative and the positive prompt, or the positive one alone.

    Attributes:
        prompt_embeds: T5's [branches, length, channels].
        pooled_prompt_embeds: CLIP's [branches, channels].
        text_ids: [length, 3], zeros.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    text_ids: Tensor

    def on(self, device: torch.device) -> PromptEmbeds:
        """The same on a device."""
        return PromptEmbeds(
            self.prompt_embeds.to(device),
            self.pooled_prompt_embeds.to(device),
            self.text_ids.to(device),
        )


class PromptCache:
    """Encodes prompts with a pipeline's tokenizers and text encoders, and caches the embeddings."""

    def __init__(
        self, flux: FluxFillPipeline, text_lengths: tuple[int, ...], device: torch.device
    ) -> None:
        """`text_lengths`: the numbers of T5 tokens the transformer knows, ascending."""
        self._flux, self._lengths, self._device = flux, text_lengths, device
        self._cache: LRUCache[tuple[str, int], PromptEmbeds] = LRUCache(_CACHED_PROMPTS)

    def encode(
        self,
        request: EditRequest,
        text_encoders: Callable[[ProgressSink], AbstractContextManager[None]],
        progress: ProgressSink,
    ) -> PromptEmbeds:
        """Both prompts, negative first; the positive one alone where CFG is off.

        Args:
            text_encoders: has both encoders on the device inside; called only for new prompts.

        Raises:
            InputError: a prompt has more tokens than the model reads.
        """
        length = self.text_length(request)
        prompts = [request.prompt]
        if request.true_cfg > 1:
            prompts.insert(0, request.negative_prompt)
        keys = [(prompt, length) for prompt in prompts]
        # read first, so that the new one evicts none of them
        rows = {key: self._cache[key] for key in keys if key in self._cache}
        missing = [key for key in keys if key not in rows]
        if missing:
            with text_encoders(progress):
                for key in missing:
                    self._cache[key] = rows[key] = self._embed(*key)
        return self._joined([rows[key] for key in keys])

    def text_length(self, request: EditRequest) -> int:
        """The smallest of the model's text lengths that holds both prompts uncut."""
        counts = {
            name: len(self._flux.tokenizer_2(prompt).input_ids)
            for name, prompt in (
                ("prompt", request.prompt),
                ("negative prompt", request.negative_prompt),
            )
        }
        limit = self._lengths[-1]
        for name, count in counts.items():
            if count > limit:
                raise InputError(
                    f"The {name} has {count} tokens; the model reads at most {limit}. Shorten it."
                )
        return next(length for length in self._lengths if length >= max(counts.values()))

    def _joined(self, branches: list[PromptEmbeds]) -> PromptEmbeds:
        rows = [branch.on(self._device) for branch in branches]
        return PromptEmbeds(
            torch.cat([row.prompt_embeds for row in rows]),
            torch.cat([row.pooled_prompt_embeds for row in rows]),
            rows[0].text_ids,
        )

    def _embed(self, prompt: str, length: int) -> PromptEmbeds:
        embeds = self._flux.encode_prompt(
            prompt, prompt_2=None, device=self._device, max_sequence_length=length
        )
        return PromptEmbeds(*embeds).on(torch.device("cpu"))
