"""What `serve run local_backend.server.app:deployment` loads: one Ray Serve application.

Ray imports this module by that name, in every process of the cluster, so the rest of the server is
reached through the pack's package, as on the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from importlib import import_module
from typing import Any

from ray import serve

from ..__main__ import PACKAGE, register

register()
SERVER = f"{PACKAGE}.local_backend.server"


class Worker:
    """A replica: one worker, one job at a time."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        chosen = import_module(f"{SERVER}.settings").Settings(**settings)
        self._worker = import_module(f"{SERVER}.workers.worker").Worker(chosen)
        # Serve calls a cancelled job done before it has let go of the device
        self._device = asyncio.Lock()

    async def run(self, request: Any) -> AsyncIterator[Any]:
        """The events of one messages.PaintRequest."""
        async with self._device, aclosing(self._worker.events(request)) as events:
            async for event in events:
                yield event

    async def check_health(self) -> None:
        """Raises RuntimeError if the device is broken; Serve then replaces the replica."""
        self._worker.check()


@serve.ingress()
class Head:
    """An HTTP head. A new one goes on with the jobs of the store."""

    def __init__(self, settings: Mapping[str, Any], workers: Any, capacity: int) -> None:
        self._settings, self._workers, self._capacity = settings, workers, capacity

    def __serve_build_asgi_app__(self) -> Any:
        chosen = import_module(f"{SERVER}.settings").Settings(**self._settings)
        pool = import_module(f"{SERVER}.workers.ray_pool").RayPool(self._workers, self._capacity)
        head = import_module(f"{SERVER}.http.app_factory")
        self._head = head.Head(chosen, pool)
        return head.make_app(self._head)

    async def check_health(self) -> None:
        """Raises RuntimeError if the queue stands still; Serve then replaces the head."""
        self._head.check()


def deployment(args: dict[str, Any]) -> Any:
    """The application with these settings (settings.Settings); lists are split at commas.

    Raises:
        InputError: one line for each wrong setting.
    """
    cluster = import_module(f"{SERVER}.workers.cluster")
    plan = cluster.plan(args)
    workers = serve.deployment(**plan.workers)(Worker).bind(plan.settings)
    head = serve.deployment(**plan.heads)(Head)
    return head.bind(plan.settings, workers, plan.capacity)
