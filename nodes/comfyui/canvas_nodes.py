"""Canvas options, a plan to look at before paying, and a proof afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ..backends import auto_backend, auto_spec, resolve_backend
from ..canvas import options as limits
from ..canvas.options import ALPHA_CHOICES, KEEP_ALPHA, REGION_CHOICES, CanvasOptions
from ..canvas.overlay import draw_plan
from ..canvas.proof import prove
from ..contracts import BackendSpec, EditTask
from ..edit.plan import BatchSize, default_canvas, plan_edit
from ..edit.report import crop_lines
from ..edit.run import check_image
from . import model_folders
from .execution import chosen_canvas, user_folder
from .io_types import CATEGORY, BackendSocket, CanvasSocket, advanced, image_input, mask_input

if TYPE_CHECKING:
    from torch import Tensor

MASKED_TASKS = [task.value for task in EditTask if task is not EditTask.EXTEND]


class OneRewardCanvas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardCanvas",
            display_name="OneReward Canvas",
            category=CATEGORY,
            description=(
                "How mask, crop and seam are treated. All sizes are in pixels of the source "
                "picture, whatever size the model works at."
            ),
            inputs=[
                io.Int.Input(
                    "grow",
                    default=8,
                    min=limits.MIN_GROW,
                    max=limits.MAX_GROW,
                    tooltip="Grows the painted area, in px, default 8; negative shrinks it. 12 is "
                    "better for Remove: objects have soft edges and shadows.",
                ),
                io.Int.Input(
                    "blend",
                    default=16,
                    min=0,
                    max=limits.MAX_BLEND,
                    tooltip="Width of the soft edge in px, default 16. It lies outside the painted "
                    "area, which is replaced in full. 0 = hard edge.",
                ),
                io.Float.Input(
                    "context",
                    default=1.5,
                    min=1.0,
                    max=limits.MAX_CONTEXT,
                    step=0.1,
                    tooltip="How much of the picture around the mask the model sees, as a factor "
                    "of the mask's size, default 1.5, and at least 64 px.",
                ),
                io.String.Input(
                    "target",
                    default="auto",
                    tooltip="The size the model works at. auto: never more pixels than the backend "
                    "is good for. 1.5 MP: another limit. 1024: longest side in px. 1024x768: "
                    "exactly. native: no resizing. Default auto.",
                ),
                io.Combo.Input(
                    "regions",
                    options=list(REGION_CHOICES),
                    default=REGION_CHOICES[0],
                    tooltip="per region: masks far apart get a crop each, so each keeps its full "
                    "resolution. one crop: one box round all. Default per region.",
                ),
                io.Float.Input(
                    "seam",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Seam correction, a factor, default 1: the colour drift seen around "
                    "the mask is taken out of the result, varying in space. 0 = off.",
                ),
                io.Boolean.Input(
                    "clean",
                    default=True,
                    tooltip="Cleans the mask, default on: values from 0.1 count as painted, and "
                    "pinholes of a brush are filled: holes of at most 64 px that lie within grow + "
                    "blend. Off: values from 0.5 count, every hole stays.",
                ),
                io.Boolean.Input(
                    "invert",
                    default=False,
                    tooltip="Repaints what is not masked, default off. No hole is filled then.",
                ),
                advanced(
                    io.Combo.Input(
                        "alpha",
                        options=list(ALPHA_CHOICES),
                        default=KEEP_ALPHA,
                        optional=True,
                        tooltip="Of a picture with alpha. keep: alpha stays as it is, so an edit "
                        "of a transparent place does not show. from blend: what is repainted "
                        "becomes opaque. Default keep.",
                    )
                ),
            ],
            outputs=[
                CanvasSocket.Output(
                    "canvas",
                    display_name="canvas",
                    tooltip="Connect to the canvas input of a OneReward node.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, grow: int, blend: int, context: float, target: str, regions: str, seam: float,
        clean: bool, invert: bool, alpha: str = KEEP_ALPHA,
    ) -> io.NodeOutput:  # fmt: skip
        return io.NodeOutput(
            CanvasOptions(grow, blend, context, target, regions, seam, clean, invert, alpha)
        )


class OneRewardPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardPlan",
            display_name="OneReward Plan",
            category=CATEGORY,
            description=(
                "Draws what an edit would do and runs no model: the painted area (red), pinholes "
                "that are filled (orange), the area replaced in full (yellow), the edge of the "
                "blend (white) and the crops (blue) with the size the model sees."
            ),
            inputs=[
                image_input(),
                mask_input(),
                io.Combo.Input(
                    "task",
                    options=MASKED_TASKS,
                    default=MASKED_TASKS[0],
                    tooltip="Whose defaults to show when no canvas is connected, default fill.",
                ),
                CanvasSocket.Input(
                    "canvas", optional=True, tooltip="The canvas options to show the effect of."
                ),
                BackendSocket.Input(
                    "backend", optional=True, tooltip="The backend whose sizes to plan for."
                ),
            ],
            outputs=[
                io.Image.Output(
                    "plan",
                    display_name="plan",
                    tooltip="The picture with the plan drawn on it, at most 1024 px.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="The crops and their sizes, in words."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, image: Tensor, mask: Tensor, task: str, canvas: CanvasOptions | None = None,
        backend: BackendSpec | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        check_image(image)
        options = chosen_canvas(canvas) or default_canvas(EditTask(task))
        folder = user_folder()
        spec = backend or auto_backend(folder, *auto_spec(model_folders))[0]
        capabilities = resolve_backend(spec, folder, model_folders).capabilities
        stage = plan_edit(BatchSize.of(image), mask, options, capabilities).stages[0]
        plans = stage.crop_plans
        drawn = draw_plan([image[picture] for picture, _ in stage.pairs], plans)
        lines = [line for plan in plans for line in (*plan.notes, *crop_lines(plan))]
        return io.NodeOutput(drawn, "\n".join(lines), ui=ui.PreviewImage(drawn, cls=cls))


class OneRewardProof(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardProof",
            display_name="OneReward Proof",
            category=CATEGORY,
            description=(
                "Measures an edit: the largest change outside the blend (0 is the promise), the "
                "step in colour across the seam before and after, and the times."
            ),
            inputs=[
                io.Image.Input("before", tooltip="The picture that went into the task node."),
                io.Image.Input("after", tooltip="The image output of the task node."),
                io.Mask.Input("mask", tooltip="The mask output of the task node: the blend used."),
                io.String.Input(
                    "report",
                    optional=True,
                    force_input=True,
                    tooltip="The report output of the task node; its times are shown here too.",
                ),
                io.Mask.Input(
                    "painted",
                    optional=True,
                    tooltip="The mask you painted, the one that went into the task node. With it "
                    "the measure is independent of the edit: nothing may change further than grow "
                    "+ blend from what you painted.",
                ),
                CanvasSocket.Input(
                    "canvas",
                    optional=True,
                    tooltip="With painted: the canvas of the task node, for its grow and blend.",
                ),
                io.Combo.Input(
                    "task",
                    options=MASKED_TASKS,
                    default=MASKED_TASKS[0],
                    optional=True,
                    tooltip="With painted: whose defaults to measure by when no canvas is "
                    "connected, default fill.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "difference",
                    display_name="difference",
                    tooltip="Absolute change per pixel; black = untouched.",
                ),
                io.Float.Output(
                    "max_difference",
                    display_name="max difference outside",
                    tooltip="Largest absolute change where the blend is 0, or with painted "
                    "outside of grow + blend of it, on the 0..1 scale.",
                ),
                io.String.Output("proof", display_name="proof", tooltip="The measurements."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, before: Tensor, after: Tensor, mask: Tensor, report: str = "",
        painted: Tensor | None = None, canvas: CanvasOptions | None = None,
        task: str = MASKED_TASKS[0],
    ) -> io.NodeOutput:  # fmt: skip
        check_image(before)
        check_image(after)
        options = chosen_canvas(canvas) or default_canvas(EditTask(task))
        proof = prove(before, after, mask, painted, options)
        text = "\n".join(filter(None, [proof.text, report]))
        return io.NodeOutput(proof.difference, proof.max_difference, text, ui=ui.PreviewText(text))
