"""The nodes that run an edit on this machine: the preview model, files, or ComfyUI's loaders."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..backends import PREVIEW, find_files
from ..contracts import ATTENTIONS, AUTO, NONE, PRECISIONS, LocalSpec, ModelSpec
from . import model_folders
from .io_types import CATEGORY, advanced, backend_output
from .model_folders import choices
from .progress import NodeProgress


class OneRewardPreviewBackend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardPreviewBackend",
            display_name="OneReward Preview Backend",
            category=CATEGORY,
            description=(
                "Runs edits on the small model that ships with the pack: about 3 seconds on a CPU, "
                "no download, no key. It draws simple objects and scenes, to try a workflow with. "
                "It is a demonstrator and not OneReward."
            ),
            inputs=[],
            outputs=[backend_output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(PREVIEW)


class OneRewardLocalBackend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardLocalBackend",
            display_name="OneReward Local Backend",
            category=CATEGORY,
            description=(
                "Runs edits on your own GPU, from 8 GB: OneReward, or another FLUX.1-Fill, with "
                "the files you have in ComfyUI's model folders. No key, no cost, nothing is sent. "
                "Files are recognised by what is in them, not by their names."
            ),
            inputs=[
                io.Combo.Input(
                    "transformer",
                    options=[AUTO, *choices("transformer")],
                    default=AUTO,
                    tooltip="OneReward or another FLUX.1-Fill: a file of diffusion_models "
                    "(bf16, fp16, fp8, GGUF), or a folder of diffusers. auto: the one that is "
                    "there; of several one named OneReward, of these the largest. Default auto.",
                ),
                io.Combo.Input(
                    "t5xxl",
                    options=[AUTO, *choices("text_encoder")],
                    default=AUTO,
                    tooltip="The T5-XXL text encoder, a file of text_encoders. auto: the diffusers "
                    "folder's own, else the one that is there; of several one named t5xxl, of "
                    "these the largest. Default auto.",
                ),
                io.Combo.Input(
                    "clip_l",
                    options=[AUTO, *choices("text_encoder")],
                    default=AUTO,
                    tooltip="The CLIP-L text encoder, a file of text_encoders. auto: the diffusers "
                    "folder's own, else the one that is there; of several one named clip_l. "
                    "Default auto.",
                ),
                io.Combo.Input(
                    "vae",
                    options=[AUTO, *choices("vae")],
                    default=AUTO,
                    tooltip="FLUX.1's VAE, a file of vae, usually ae.safetensors. auto: the "
                    "diffusers folder's own, else the one that is there; of several one named ae. "
                    "Default auto.",
                ),
                io.Combo.Input(
                    "lora",
                    options=[NONE, *choices("lora")],
                    default=NONE,
                    tooltip="A FLUX LoRA, a file of loras, such as the authors' own for removing "
                    "objects. Default none.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How much of the LoRA is added, a factor, default 1. Negative takes "
                    "it away; 0 is without it.",
                ),
                advanced(
                    io.Combo.Input(
                        "precision",
                        options=list(PRECISIONS),
                        default=PRECISIONS[0],
                        tooltip="How the weights are held. file: as the file has them. fp8: in 8 "
                        "bits, half the memory of 16. auto: in 8 bits only where they do not fit "
                        "the card otherwise. fp8 fast: computes in 8 bits, too, on cards that can "
                        "(NVIDIA from the RTX 40 on): faster, above all with compile, and less "
                        "like the original. Default auto.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "compile",
                        default=False,
                        optional=True,
                        tooltip="Compiles the transformer: the same picture but for rounding, 1.3 "
                        "times as fast a step on an H100. Costs 20 to 60 seconds once per session "
                        "and class of sizes. Needs Triton and a C compiler. Default off.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "attention",
                        options=list(ATTENTIONS),
                        default=ATTENTIONS[0],
                        optional=True,
                        tooltip="default: the attention that torch chooses. fastest: torch's kinds "
                        "are timed once on your card, in under a second, and the fastest is "
                        "taken. Default default.",
                    )
                ),
            ],
            outputs=[backend_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, transformer: str | None = None, t5xxl: str | None = None, clip_l: str | None = None,
        vae: str | None = None, lora: str | None = None,
    ) -> bool:  # fmt: skip
        """Leaves a name that the menus lack, as in a graph from somebody else, to execute(), which
        says once what to do. ComfyUI repeats an error of this method for each input named here.
        """
        return True

    @classmethod
    def execute(
        cls, transformer: str, t5xxl: str, clip_l: str, vae: str, lora: str, lora_strength: float,
        precision: str, compile: bool = False, attention: str = ATTENTIONS[0],
    ) -> io.NodeOutput:  # fmt: skip
        spec = LocalSpec(
            transformer=transformer, t5xxl=t5xxl, clip_l=clip_l, vae=vae, lora=lora,
            lora_strength=lora_strength, precision=precision, compile=compile,
            attention=attention,
        )  # fmt: skip
        # Now, so that an error in a file is raised at the node that names it.
        NodeProgress(cls.hidden.unique_id).status(find_files(spec, model_folders).summary)
        return io.NodeOutput(spec)


class OneRewardModelBackend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardModelBackend",
            display_name="OneReward Model Backend",
            category=CATEGORY,
            description=(
                "Runs edits on a OneReward or FLUX.1-Fill model that ComfyUI's own loaders loaded, "
                "so that its GGUF, nunchaku, LoRA and compile nodes work. ComfyUI samples it, with "
                "OneReward's recipe."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A OneReward or FLUX.1-Fill model, from Load Diffusion Model or a "
                    "node after it.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="FLUX.1's text encoders, from DualCLIPLoader: clip_l and t5xxl, type "
                    "flux.",
                ),
                io.Vae.Input("vae", tooltip="FLUX.1's VAE, from Load VAE: ae.safetensors."),
            ],
            outputs=[backend_output()],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any) -> io.NodeOutput:
        return io.NodeOutput(ModelSpec(model=model, clip=clip, vae=vae))
