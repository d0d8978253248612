"""A worker: runs paint requests on one of the local backends, as a stream of events."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....nodes.canvas.masks import PLAIN_LEVEL, fit_mask
from ....nodes.canvas.options import CanvasOptions
from ....nodes.contracts import Backend, EditRecipe, EditTask
from ....nodes.edit.run import edit
from ....nodes.errors import InputError, LocalBackendError
from ....nodes.image_io import encode_jpeg, encode_png
from ...backends.flux import LocalBackend
from ...backends.preview import PreviewBackend
from ...checkpoints.select import find_models
from ...pipeline.validation import SIDE_MULTIPLE
from .. import errors
from ..messages import Done, Event, Failed, LogLine, PaintRequest, Started
from ..settings import Settings
from ..storage.decode import read_picture

if TYPE_CHECKING:
    from torch import Tensor


# A mask on the wire is used as it is: its sender has grown it, or wants it so. The seam
# of a cut picture is hidden in a few pixels beside it.
CANVAS = CanvasOptions(grow=0, blend=8, clean=False)


class Stopped(Exception):
    """The job was cancelled, or its client hung up: its run ends at the next step."""


class Worker:
    """Paints one job at a time.

    Attributes:
        name: what paints, for the operator.

    Raises ModelNotFoundError, CheckpointError if the settings name a folder without a model.
    """

    def __init__(self, settings: Settings) -> None:
        self._backend = _choose_backend(settings)
        self.name = self._backend.name
        self._place = f"{socket.gethostname()}:{os.getpid()}"
        self._thread = ThreadPoolExecutor(1, "onereward-worker")
        self._broken = ""

    def check(self) -> None:
        """Raises RuntimeError if the device can be used no more, until the program starts anew."""
        if self._broken:
            raise RuntimeError(self._broken)

    async def events(self, request: PaintRequest) -> AsyncGenerator[Event, None]:
        """The job's events, Done or Failed at the end. Closing the iterator stops the sampler at
        its next step and waits for that.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        sink = _Sink(lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        run = loop.run_in_executor(self._thread, self._paint, request, sink)
        run.add_done_callback(self._look_at)
        run.add_done_callback(lambda _: events.put_nowait(None))
        try:
            yield Started(self._place)
            while (event := await events.get()) is not None:
                yield event
            yield run.result()
        finally:
            sink.stop()
            await asyncio.wait({run})

    def _look_at(self, run: asyncio.Future[Done | Failed]) -> None:
        """Notes a broken device, also after the client has hung up."""
        error = None if run.cancelled() else run.exception()
        if error is not None and "CUDA error" in str(error):
            self._broken = f"The GPU failed: {str(error).splitlines()[0]}"

    def _paint(self, request: PaintRequest, sink: _Sink) -> Done | Failed:
        image = read_picture(request.image, "image_url", request.max_pixels)
        mask = read_picture(request.mask, "mask_url", request.max_pixels)
        if isinstance(image, Failed):
            return image
        if isinstance(mask, Failed):
            return mask
        try:
            mask, _ = fit_mask(mask, *image.shape[1:3])
        except InputError as error:
            return _refused("mask_url", error)
        recipe, start = _recipe(request.fields), time.perf_counter()
        try:
            images = paint(image, mask, recipe, self._backend, sink)
        except InputError as error:
            return _refused("", error)
        except LocalBackendError as error:
            return Failed(errors.platform(500, "internal_error", str(error)))
        seconds = time.perf_counter() - start
        return _done(images, request.fields["output_format"], recipe.seed, seconds)


def paint(
    image: Tensor, mask: Tensor, recipe: EditRecipe, backend: Backend, progress: _Sink
) -> Tensor:
    """float [num_images, h, w, 3]. A picture that fits the model is given to it as it is, as the
    nodes' crops are, so that what comes back is what the model made on their own machine; any
    other picture is cut and stitched, and stays as it was but for CANVAS's blend beside the mask.
    """
    height, width = image.shape[1:3]
    fits = not (height % SIDE_MULTIPLE or width % SIDE_MULTIPLE)
    binary = (mask >= PLAIN_LEVEL).float()
    if fits and height * width <= backend.capabilities.max_pixels and binary.any():
        backend.check(recipe)
        request = recipe.on(image, binary, seed=recipe.seed, num_images=recipe.num_images)
        return backend.run(request, progress).images
    return edit(image, mask, recipe, CANVAS, backend, progress).images


class LocalPool:
    """One worker in this process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._free = asyncio.Lock()

    @property
    def capacity(self) -> int:
        """No job is taken before its turn, as one of a higher priority may come."""
        return 1

    async def paint(self, request: PaintRequest) -> AsyncGenerator[Event, None]:
        """See WorkerPool."""
        async with self._free, aclosing(self._worker.events(request)) as events:
            async for event in events:
                yield event


class _Sink:
    """A ProgressSink that turns into events, and whose `stop` ends the run at its next step."""

    def __init__(self, send: Callable[[Event], object]) -> None:
        self._send, self._stopped = send, threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        self._send(LogLine(f"step {value} of {total}"))

    def status(self, text: str) -> None:
        self._send(LogLine(text))

    def check_interrupted(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def _choose_backend(settings: Settings) -> Backend:
    if settings.models is None:
        return PreviewBackend()
    files = find_models(settings.models)
    name = str(files.transformer.relative_to(settings.models))
    chosen = replace(files, precision=settings.precision, compile=settings.compile)
    return LocalBackend(chosen, name)


def _recipe(fields: Mapping[str, Any]) -> EditRecipe:
    """fal's fields as an EditRecipe."""
    return EditRecipe(
        task=EditTask.FILL,
        prompt=fields["prompt"] or "",
        negative_prompt=fields["negative_prompt"],
        seed=fields["seed"],
        num_inference_steps=fields["num_inference_steps"],
        guidance_scale=fields["guidance_scale"],
        true_cfg=fields["true_cfg"],
        acceleration=fields["acceleration"],
        num_images=fields["num_images"],
    )


def _refused(name: str, error: InputError) -> Failed:
    """What the model or the canvas does not take; `name` of the field, empty for all."""
    entry = errors.entry(name, "value_error", f"Value error, {error}", None)
    return Failed(errors.refused([entry]))


def _done(images: Tensor, output_format: str, seed: int, seconds: float) -> Done:
    encode = encode_jpeg if output_format == "jpeg" else _png
    height, width = images.shape[1:3]
    return Done(
        images=tuple(encode(picture) for picture in images[..., :3]),
        content_type=f"image/{output_format}",
        width=width,
        height=height,
        seed=seed,
        timings={"inference": seconds},
    )


def _png(picture: Tensor) -> bytes:
    return encode_png(picture, fast=True)
