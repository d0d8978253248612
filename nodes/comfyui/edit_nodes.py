"""The four task nodes: ComfyUI's inputs in, one edit (inpaint or outpaint), a batch out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..canvas.extend import ANCHORS
from ..canvas.options import CanvasOptions
from ..contracts import ACCELERATION, NEGATIVE_PROMPT, Backend, BackendSpec, EditTask, ProgressSink
from ..edit.recipes import CUSTOM, make_recipe, preset_line, text_prompt
from ..edit.run import Edit, edit, extend
from ..estimate.inputs import remember_run
from .execution import chosen_canvas, run_node
from .io_types import (
    CATEGORY,
    acceleration_input,
    advanced,
    connected_inputs,
    edit_outputs,
    image_input,
    mask_input,
    preset_input,
    prompt_input,
    sampling_inputs,
)
from .ui_output import ui_output

if TYPE_CHECKING:
    from torch import Tensor


class OneRewardFill(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardFill",
            display_name="OneReward Fill",
            category=CATEGORY,
            description=(
                "Paints what the prompt says into the mask. Every pixel outside the mask and its "
                "soft edge stays as it is, bit for bit."
            ),
            inputs=[
                image_input(),
                mask_input(),
                prompt_input("What should appear in the mask, in plain words.", "a red balloon"),
                *sampling_inputs(),
                *connected_inputs(),
                acceleration_input(),
                preset_input(),
            ],
            outputs=edit_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(
        cls, image: Tensor, mask: Tensor, prompt: str, seed: int, steps: int, cfg: float,
        num_images: int, canvas: CanvasOptions | None = None, backend: BackendSpec | None = None,
        negative_prompt: str = NEGATIVE_PROMPT, guidance: float = 1.0,
        acceleration: str = ACCELERATION, preset: str = CUSTOM,
    ) -> io.NodeOutput:  # fmt: skip
        recipe = make_recipe(
            EditTask.FILL, prompt=prompt, seed=seed, steps=steps, cfg=cfg, num_images=num_images,
            negative_prompt=negative_prompt, guidance=guidance,
            acceleration=acceleration, preset=preset,
        )  # fmt: skip
        run = partial(edit, image, mask, recipe, chosen_canvas(canvas))
        return await _run(cls.hidden.unique_id, image, mask, backend, run, preset)


class OneRewardRemove(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardRemove",
            display_name="OneReward Remove",
            category=CATEGORY,
            description=(
                "Takes away what the mask covers and continues the background. Paint over the "
                "object and its shadow. Needs no prompt."
            ),
            inputs=[
                image_input(),
                mask_input(),
                *sampling_inputs(),
                *connected_inputs(),
                acceleration_input(),
                preset_input(),
            ],
            outputs=edit_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(
        cls, image: Tensor, mask: Tensor, seed: int, steps: int, cfg: float, num_images: int,
        canvas: CanvasOptions | None = None, backend: BackendSpec | None = None,
        negative_prompt: str = NEGATIVE_PROMPT, guidance: float = 1.0,
        acceleration: str = ACCELERATION, preset: str = CUSTOM,
    ) -> io.NodeOutput:  # fmt: skip
        recipe = make_recipe(
            EditTask.REMOVE, prompt="", seed=seed, steps=steps, cfg=cfg, num_images=num_images,
            negative_prompt=negative_prompt, guidance=guidance,
            acceleration=acceleration, preset=preset,
        )  # fmt: skip
        run = partial(edit, image, mask, recipe, chosen_canvas(canvas))
        return await _run(cls.hidden.unique_id, image, mask, backend, run, preset)


class OneRewardExtend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardExtend",
            display_name="OneReward Extend",
            category=CATEGORY,
            description=(
                "Makes the picture larger and paints the new area. The source stays as it is, bit "
                "for bit, except for the overlap. Large extensions run in several steps."
            ),
            inputs=[
                image_input(),
                prompt_input(
                    "What the new area shows. Empty: the authors' fixed prompt, which continues "
                    "the picture.",
                    "empty = continue the picture",
                ),
                io.String.Input(
                    "extend_to",
                    default="16:9",
                    tooltip="How far. An aspect: 16:9 or 2.39:1. A size in px: 1920x1080. A "
                    "factor: 1.5x. Pixels on all sides: 256. Pixels per side: left 256, right "
                    "128. Default 16:9.",
                ),
                io.Combo.Input(
                    "anchor",
                    options=list(ANCHORS),
                    default="center",
                    tooltip="Where the old picture sits on the new canvas, default center. Not "
                    "used for pixels per side.",
                ),
                advanced(
                    io.Int.Input(
                        "overlap",
                        default=24,
                        min=0,
                        max=256,
                        tooltip="Source pixels next to the new area that fade into it, in px, "
                        "default 24. 0 keeps every source pixel, with a hard edge.",
                    )
                ),
                *sampling_inputs(),
                *connected_inputs(),
                acceleration_input(),
                preset_input(),
            ],
            outputs=edit_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(
        cls, image: Tensor, prompt: str, extend_to: str, anchor: str, overlap: int, seed: int,
        steps: int, cfg: float, num_images: int, canvas: CanvasOptions | None = None,
        backend: BackendSpec | None = None, negative_prompt: str = NEGATIVE_PROMPT,
        guidance: float = 1.0, acceleration: str = ACCELERATION, preset: str = CUSTOM,
    ) -> io.NodeOutput:  # fmt: skip
        recipe = make_recipe(
            EditTask.EXTEND, prompt=prompt, seed=seed, steps=steps, cfg=cfg,
            num_images=num_images, negative_prompt=negative_prompt, guidance=guidance,
            acceleration=acceleration, preset=preset,
        )  # fmt: skip
        canvas = chosen_canvas(canvas)
        run = partial(extend, image, extend_to, anchor, overlap, recipe, canvas)
        return await _run(cls.hidden.unique_id, image, None, backend, run, preset)


class OneRewardText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardText",
            display_name="OneReward Text",
            category=CATEGORY,
            description=(
                "Writes words into the mask, one line of the text per line in the picture. Paint "
                "the mask as wide as the words need."
            ),
            inputs=[
                image_input(),
                mask_input(),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="",
                    placeholder="SALE",
                    tooltip="The words to write, one line each, spelled and capitalised as they "
                    "should appear.",
                ),
                io.String.Input(
                    "scene",
                    default="",
                    placeholder="on a red sign",
                    tooltip="What carries the words or how they look, in plain words; default "
                    "none.",
                ),
                *sampling_inputs(),
                *connected_inputs(),
                acceleration_input(),
                preset_input(),
            ],
            outputs=edit_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(
        cls, image: Tensor, mask: Tensor, text: str, scene: str, seed: int, steps: int,
        cfg: float, num_images: int, canvas: CanvasOptions | None = None,
        backend: BackendSpec | None = None, negative_prompt: str = NEGATIVE_PROMPT,
        guidance: float = 1.0, acceleration: str = ACCELERATION, preset: str = CUSTOM,
    ) -> io.NodeOutput:  # fmt: skip
        recipe = make_recipe(
            EditTask.TEXT, prompt=text_prompt(text, scene), seed=seed, steps=steps, cfg=cfg,
            num_images=num_images, negative_prompt=negative_prompt, guidance=guidance,
            acceleration=acceleration, preset=preset,
        )  # fmt: skip
        run = partial(edit, image, mask, recipe, chosen_canvas(canvas))
        return await _run(cls.hidden.unique_id, image, mask, backend, run, preset)


async def _run(
    node_id: str, image: Tensor, mask: Tensor | None, backend: BackendSpec | None,
    run: Callable[[Backend, ProgressSink], Edit], preset: str,
) -> io.NodeOutput:  # fmt: skip
    done = await run_node(node_id, backend, run)
    remember_run(node_id, image, mask)
    report = "\n".join(filter(None, [done.report, preset_line(preset)]))
    outputs = done.images, done.mask, done.seeds[0], report, any(done.flagged)
    return io.NodeOutput(*outputs, ui=ui_output(image, done))
