"""The local backend: the user's own FLUX.1-Fill, OneReward or another, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ...nodes.contracts import (
    FLUX_CAPABILITIES,
    EditRecipe,
    EditRequest,
    EditResult,
    ProgressSink,
)
from ...nodes.errors import LocalBackendError
from ..acceleration.block_compile import explain
from ..checkpoints.model_paths import ModelPaths
from ..offload.device_memory import is_out_of_memory, shared_memory
from ..offload.devices import compute_dtype, holds_fp8, pick_device
from ..offload.flux_parts import FluxFiles, flux_parts, open_files
from ..offload.placement import FluxPlacement
from ..pipeline.flux_components import flux_components
from ..pipeline.onereward import OneRewardPipeline
from ..pipeline.pipeline_cache import PIPELINE_CACHE
from ..pipeline.validation import check_pixels, check_recipe


class LocalBackend:
    """A Backend that paints with the user's own FLUX.1-Fill: OneReward, or another."""

    capabilities = FLUX_CAPABILITIES

    def __init__(
        self,
        files: ModelPaths,
        transformer: str,
        opened: Callable[[ModelPaths], FluxFiles] = open_files,
    ) -> None:
        """`transformer`: what the user calls it; `opened`: how the files are opened."""
        self._files, self._opened = files, opened
        self.name = f"{transformer} on this machine"

    def check(self, recipe: EditRecipe) -> None:
        """Raises InputError for a recipe the pipeline cannot honour. Loads nothing."""
        check_recipe(recipe)

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        """Any number of jobs may run: they cost nothing but time."""

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """Paints the masked pixels of one crop; see OneRewardPipeline. Where the device's memory
        runs out, the picture is begun again with the next smaller plan.

        Raises:
            InputError: the request breaks a rule.
            ModelNotFoundError, CheckpointError: a file is missing, or not what it should be.
            LocalBackendError: the device is too small, or the blocks cannot be compiled.
        """
        check_recipe(request)
        check_pixels(request)
        with PIPELINE_CACHE.pipeline(self._files.models(), self._build) as pipeline:
            placement = pipeline.placement
            assert isinstance(placement, FluxPlacement)
            while True:
                try:
                    placement.adapt(self._files)
                    return replace(pipeline(request, progress), notes=placement.notes)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        explain(error)
                        raise
                # outside the except block: the error's traceback holds the tensors of the run
                placement.step_down(progress)

    def _build(self) -> OneRewardPipeline:
        device = pick_device()
        parts = flux_parts(self._opened(self._files), compute_dtype(device))
        if not holds_fp8(device) and (
            parts.transformer.weights.has_fp8 or parts.t5.weights.has_fp8
        ):
            raise LocalBackendError(
                f"The transformer or T5 is stored in fp8, which {device.type} devices cannot hold. "
                "Choose bf16, fp16 or GGUF files."
            )
        placement = FluxPlacement(parts, shared_memory(device))
        return OneRewardPipeline(flux_components(parts), device, placement)
