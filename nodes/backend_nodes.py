"""The nodes that choose where an edit runs."""

from __future__ import annotations

from comfy_api.latest import io

from .backends import PREVIEW
from .sockets import CATEGORY, BackendSocket


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
            outputs=[
                BackendSocket.Output(
                    "backend",
                    display_name="backend",
                    tooltip="Connect to the backend input of a OneReward node.",
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(PREVIEW)
