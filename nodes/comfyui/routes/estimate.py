"""POST /onereward/plan: what an edit would do, before it is paid for or waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from aiohttp import web

from ...backends import auto_backend, auto_spec, resolve_backend, resolve_fal
from ...config.preferences import load
from ...contracts import Backend, BackendSpec, FalSpec
from ...errors import OneRewardError
from ...estimate.estimator import Foresight, NotYet, at_fault, make_plan
from ...estimate.request import backend_spec, plan_request
from .. import model_folders
from ..user_folder import user_folder
from .security import json_body, refusal

AT_ONCE = 2  # plans of huge pictures take memory
SILENCE = 30.0  # seconds until a service that told no price is asked again

_TURNS = asyncio.Semaphore(AT_ONCE)
_SILENT: dict[str, tuple[float, str]] = {}  # by server: until when, and what was said of it


async def answer(request: web.Request) -> web.Response:
    """What the edit in the request would do: its crops, size, price and time. Runs and loads no
    model, uploads nothing, and costs nothing.

    The body and the reply are JSON; plan_request and make_plan say what is in them. What is wrong
    is answered by 400 with {"error": words, "input": the node's input at fault}; what only a run
    can tell, by 409.
    """
    body = await json_body(request, this_machine_only=False)
    try:
        async with _TURNS:
            return web.json_response(await asyncio.to_thread(_plan, body))
    except OneRewardError as error:
        status = 409 if isinstance(error, NotYet) else 400
        return refusal(error, status, getattr(error, "input", None))


def _plan(body: Mapping[str, Any]) -> dict[str, Any]:
    with torch.inference_mode():
        folder = user_folder()
        request = plan_request(body, load(folder).canvas)
        spec, note = backend_spec(body), ""
        with at_fault("backend"):
            if spec is None:
                spec, note = auto_backend(folder, *auto_spec(model_folders))
            backend, foresee = _resolve(spec)
        return make_plan(request, backend, spec.kind, foresee, [note])


def _resolve(spec: BackendSpec) -> tuple[Backend, Foresight | None]:
    """The backend, as a run would have it, and what it says of money if it costs any."""
    folder = user_folder()
    if not isinstance(spec, FalSpec):
        return resolve_backend(spec, folder, model_folders), None
    fal = resolve_fal(spec, folder)

    def foresee(pixels: Sequence[int]) -> tuple[float | None, str]:
        until, said = _SILENT.get(spec.server, (0.0, ""))
        if time.monotonic() < until:
            return None, said
        price, said = fal.foresee(pixels)
        if price is None:
            _SILENT[spec.server] = time.monotonic() + SILENCE, said
        return price, said

    return fal, foresee
