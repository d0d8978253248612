"""The nodes of fal: the backend that runs edits there, and Collect, which fetches a result."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..backends import check_server, resolve_fal, server_choices
from ..contracts import BackendSpec, FalSpec
from ..edit.report import result_lines
from ..errors import InputError
from .execution import in_thread, user_folder
from .io_types import CATEGORY, BackendSocket, advanced, backend_output
from .progress import NodeProgress

LOG = logging.getLogger("onereward")


class OneRewardFalBackend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardFalBackend",
            display_name="OneReward Fal Backend",
            category=CATEGORY,
            description=(
                "Runs edits on fal (fal-ai/onereward), or on a server of yours that speaks its "
                "protocol. Needs a key, and costs money per megapixel of the crop; only the crop "
                "is sent. A job is not paid for twice while its result is kept."
            ),
            inputs=[
                io.Combo.Input(
                    "server",
                    options=_servers(),
                    default="fal",
                    tooltip="Where to: fal, or a name from servers.json in user/__onereward. "
                    "Default fal.",
                ),
                io.Combo.Input(
                    "output_format",
                    options=["png", "jpeg"],
                    default="png",
                    tooltip="What the result travels as. png is exact; jpeg is smaller and shifts "
                    "every pixel a little. Default png.",
                ),
                io.Boolean.Input(
                    "private",
                    default=False,
                    tooltip="On: fal is told to store neither request nor result, and pictures up "
                    "to about 2 MP travel inside the messages. A lost result can be fetched for "
                    "about 6 minutes only. Default off.",
                ),
                io.Boolean.Input(
                    "safety_checker",
                    default=True,
                    tooltip="The service looks at what it made and refuses some of it. Default on.",
                ),
                io.Combo.Input(
                    "on_flagged",
                    options=["raise", "return input"],
                    default="raise",
                    tooltip="When the checker refuses an image: stop with an error, or go on with "
                    "the input there and the flagged output true. Never a black picture. Default "
                    "raise. Extend always stops.",
                ),
                io.Float.Input(
                    "run_cap",
                    default=5.0,
                    min=0.0,
                    max=10000.0,
                    step=0.5,
                    tooltip="The most one run of a node may cost, in US dollars, default 5. Looked "
                    "at before anything is sent; in a large extension before each step. 0 = no "
                    "cap.",
                ),
                advanced(
                    io.Float.Input(
                        "session_cap",
                        default=20.0,
                        min=0.0,
                        max=10000.0,
                        step=0.5,
                        tooltip="The most all runs may cost until ComfyUI ends, jobs under way "
                        "included, in US dollars, default 20. 0 = no cap.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "parallel_jobs",
                        default=4,
                        min=1,
                        max=32,
                        tooltip="How many jobs of a node may be under way at once, default "
                        "4. What the account does not allow waits in fal's queue.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "start_deadline",
                        default=0,
                        min=0,
                        max=3600,
                        tooltip="Seconds until a job must have started; fal drops it then, free of "
                        "charge. Default 0 = no deadline.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "deadline",
                        default=900,
                        min=10,
                        max=86400,
                        tooltip="Seconds until a job must be finished, default 900; it is "
                        "cancelled then. If it finished all the same, the next run collects it.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "priority",
                        options=["normal", "low"],
                        default="normal",
                        tooltip="The place in fal's queue, which all users of the model share. "
                        "Default normal.",
                    )
                ),
            ],
            outputs=[backend_output()],
        )

    @classmethod
    def validate_inputs(cls, server: str | None) -> bool | str:
        """True if there is such a server, else a text that names servers.json. ComfyUI alone would
        only say that the menu lacks it, as it does for a graph from somebody else.
        """
        if server is None:  # wired, so not known yet
            return True
        try:
            check_server(server, user_folder())
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, server: str, output_format: str, private: bool, safety_checker: bool,
        on_flagged: str, run_cap: float, session_cap: float, parallel_jobs: int,
        start_deadline: int, deadline: int, priority: str,
    ) -> io.NodeOutput:  # fmt: skip
        return io.NodeOutput(
            FalSpec(
                server=server, output_format=output_format, private=private,
                enable_safety_checker=safety_checker, on_flagged=on_flagged, run_cap=run_cap,
                session_cap=session_cap, parallel_jobs=parallel_jobs,
                start_deadline=start_deadline, deadline=deadline, priority=priority,
            )
        )  # fmt: skip


class OneRewardCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OneRewardCollect",
            display_name="OneReward Collect",
            category=CATEGORY,
            description=(
                "Fetches the result of a job that was sent before, by its request id: from the "
                "journal, or from fal as long as fal keeps it. Sends no new job. Gives the crop as "
                "the model made it; running the same graph again pastes it into the picture."
            ),
            inputs=[
                io.String.Input(
                    "request_id",
                    default="",
                    placeholder="764cabcf-b745-4b3e-ae38-1200304cf45b",
                    tooltip="The job's id, from a report, an error, or fal's dashboard.",
                ),
                BackendSocket.Input(
                    "backend",
                    optional=True,
                    tooltip="From OneReward Fal Backend, for another server than fal.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image",
                    display_name="image",
                    tooltip="The crop, or all images of the job, as a batch.",
                ),
                io.Int.Output("seed", display_name="seed", tooltip="The seed the service used."),
                io.String.Output(
                    "report", display_name="report", tooltip="Request id, cost, times."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def execute(cls, request_id: str, backend: BackendSpec | None = None) -> io.NodeOutput:
        spec = backend or FalSpec()
        if not isinstance(spec, FalSpec):
            raise InputError(
                f'The backend is "{spec.kind}", which has no request ids. Connect OneReward Fal '
                "Backend, or nothing."
            )
        fal, progress = resolve_fal(spec, user_folder()), NodeProgress(cls.hidden.unique_id)
        found = await in_thread(progress, lambda: fal.collect(request_id.strip(), progress))
        return io.NodeOutput(found.images, found.seeds[0], result_lines({"job": found}))


def _servers() -> list[str]:
    """The names to choose from. A broken servers.json must not take every node's menu away: it is
    reported where it is used.
    """
    try:
        return server_choices(user_folder())
    except InputError as error:
        LOG.warning("%s", error)
        return ["fal"]
