"""The inputs and outputs that several nodes share, so that a name means one thing everywhere."""

from __future__ import annotations

from typing import TypeVar

from comfy_api.latest import io

from ..contracts import ACCELERATION, ACCELERATIONS, MAX_IMAGES, MAX_SEED, NEGATIVE_PROMPT
from ..edit.recipes import CUSTOM, PRESETS

CATEGORY = "OneReward"
STEPS, CFG = (1, 100), (1.0, 20.0)  # least and most
BackendSocket = io.Custom("ONEREWARD_BACKEND")
CanvasSocket = io.Custom("ONEREWARD_CANVAS")

BATCHES = "Batches: 1 picture with 1 mask, 1 with N, N with 1, or N with N."


Widget = TypeVar("Widget", bound=io.Input)


def advanced(widget: Widget) -> Widget:
    """The same input, under "advanced" in front ends that know it. Set after the fact, because the
    schema classes take the word as an argument only since ComfyUI 0.10.
    """
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


def image_input() -> io.Image.Input:
    return io.Image.Input(
        "image", tooltip=f"The picture or batch to edit, RGB or RGBA, any size in pixels. {BATCHES}"
    )


def mask_input() -> io.Mask.Input:
    return io.Mask.Input(
        "mask",
        tooltip="What to repaint: 1 (white) = change, 0 = keep. The same size as the picture. "
        f"An empty mask gives the picture back untouched. {BATCHES}",
    )


def prompt_input(tooltip: str, placeholder: str) -> io.String.Input:
    return io.String.Input(
        "prompt",
        multiline=True,
        default="",
        placeholder=placeholder,
        dynamic_prompts=True,
        tooltip=tooltip,
    )


def sampling_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="Start of the random numbers, a whole number, default 0. Output image i uses "
            "seed + i. The same seed on the same machine gives the same picture.",
        ),
        io.Int.Input(
            "steps",
            default=28,
            min=STEPS[0],
            max=STEPS[1],
            tooltip="Denoising steps, default 28. 50 is the authors' quality setting; time grows "
            "in proportion.",
        ),
        io.Float.Input(
            "cfg",
            default=4.0,
            min=CFG[0],
            max=CFG[1],
            step=0.1,
            tooltip="True classifier-free guidance, a factor, default 4. Higher follows the prompt "
            "more closely. 1 switches the negative prompt off and halves the time.",
        ),
        io.Int.Input(
            "num_images",
            default=1,
            min=1,
            max=MAX_IMAGES,
            tooltip="Variations per picture, a count, default 1; they come out as one batch, "
            "picture by picture.",
        ),
    ]


def connected_inputs() -> list[io.Input]:
    """What most graphs leave unconnected: sockets instead of widgets keep the node small."""
    return [
        CanvasSocket.Input(
            "canvas",
            optional=True,
            tooltip="From OneReward Canvas: how mask, crop and seam are treated. Unconnected: the "
            "task's defaults (grow 8 px, Remove 12 px; blend 16 px).",
        ),
        BackendSocket.Input(
            "backend",
            optional=True,
            tooltip="Where the edit runs. Unconnected: OneReward on your own GPU if its files are "
            "in ComfyUI's model folders, else fal if a key is set, else the small preview model "
            "that ships with the pack. The node says which.",
        ),
        io.String.Input(
            "negative_prompt",
            optional=True,
            default=NEGATIVE_PROMPT,
            force_input=True,
            tooltip="What to steer away from, in words; default nsfw, as the authors trained it.",
        ),
        io.Float.Input(
            "guidance",
            optional=True,
            default=1.0,
            min=0.0,
            max=100.0,
            force_input=True,
            tooltip="The model's own guidance embedding, a number; default 1, as the authors use "
            "it together with cfg 4. Plain FLUX Fill wants 30 with cfg 1.",
        ),
    ]


def acceleration_input() -> io.Combo.Input:
    return advanced(
        io.Combo.Input(
            "acceleration",
            optional=True,
            options=list(ACCELERATIONS),
            default=ACCELERATION,
            tooltip="How much the picture may differ for speed, default regular, as on fal. none: "
            "every step in full. On this machine regular runs the model at half of the steps and "
            "on the masked part alone at most of these, high at fewer still; fal does not say "
            "what its levels do. A Model Backend always runs in full.",
        )
    )


def preset_input() -> io.Combo.Input:
    return io.Combo.Input(
        "preset",
        optional=True,
        options=list(PRESETS),
        default=CUSTOM,
        tooltip="Steps, cfg and guidance in one choice, in place of the inputs of these names. "
        + " ".join(f"{name}: {preset.text}." for name, preset in PRESETS.items() if preset)
        + " custom: the inputs themselves. Default custom.",
    )


def backend_output() -> io.Output:
    return BackendSocket.Output(
        "backend",
        display_name="backend",
        tooltip="Connect to the backend input of a OneReward node.",
    )


def edit_outputs() -> list[io.Output]:
    return [
        io.Image.Output(
            "edited",
            display_name="image",
            tooltip="The edited batch. Where the mask output is 0 it equals the input bit for bit.",
        ),
        io.Mask.Output(
            "mask_used",
            display_name="mask",
            tooltip="The blend used: 1 = all new, 0 = untouched, one mask per image.",
        ),
        io.Int.Output(
            "seed_used", display_name="seed", tooltip="Seed of the first image; image i has + i."
        ),
        io.String.Output(
            "report",
            display_name="report",
            tooltip="What was done, crop by crop: how the model fits your card, or request ids and "
            "cost; and the times.",
        ),
        io.Boolean.Output(
            "flagged",
            display_name="flagged",
            tooltip="True if the service refused an image, which is the input then; the report "
            "says which. Only with on_flagged on OneReward Fal Backend.",
        ),
    ]
