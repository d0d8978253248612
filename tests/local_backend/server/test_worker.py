"""The server's worker with the preview model: what comes back, what is refused, and stopping."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import zlib
from contextlib import aclosing
from typing import Any

import pytest
import torch
from onereward_pack.local_backend.backends.preview import PreviewBackend
from onereward_pack.local_backend.server.messages import (
    Done,
    Event,
    Failed,
    LogLine,
    PaintRequest,
    Started,
)
from onereward_pack.local_backend.server.schemas import check_input
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.local_backend.server.workers.worker import LocalPool, Worker
from onereward_pack.nodes.contracts import EditRecipe, EditTask
from onereward_pack.nodes.image_io import decode_image, encode_png
from PIL import Image
from torch import Tensor

LIMIT = 1_000_000


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(Settings())


def picture(height: int, width: int) -> Tensor:
    """float [1, h, w, 3] of 8-bit values."""
    noise = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(3)).permute(0, 3, 1, 2)
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return smooth.permute(0, 2, 3, 1).mul(255).round().div(255)


def square(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


def work_on(image: Tensor, mask: Tensor, **fields: Any) -> PaintRequest:
    files = encode_png(image[0]), encode_png(mask[0])
    return work_of(*files, **fields)


def work_of(image: bytes, mask: bytes, **fields: Any) -> PaintRequest:
    body = {"image_url": "", "mask_url": "", "output_format": "png", "seed": 5,
            "num_inference_steps": 2, "prompt": "a red balloon", **fields}  # fmt: skip
    return PaintRequest("job", check_input(body, 8).model_dump(), image, mask, LIMIT)


def events_of(worker: Worker, work: PaintRequest) -> list[Event]:
    async def collect() -> list[Event]:
        return [event async for event in LocalPool(worker).paint(work)]

    return asyncio.run(collect())


def last(worker: Worker, work: PaintRequest) -> Done:
    done = events_of(worker, work)[-1]
    assert isinstance(done, Done), done
    return done


def refusal(worker: Worker, work: PaintRequest) -> dict[str, Any]:
    started, failed = events_of(worker, work)
    assert isinstance(started, Started) and isinstance(failed, Failed)
    assert failed.answer.status == 422
    (entry,) = failed.answer.body["detail"]
    return dict(entry)


def test_a_crop_that_fits_the_model_comes_back_as_the_local_backend_makes_it(
    worker: Worker,
) -> None:
    image, mask = picture(256, 256), square(256, 256)
    recipe = EditRecipe(
        task=EditTask.FILL, prompt="a red balloon", num_inference_steps=2, num_images=2
    )
    here = PreviewBackend().run(
        recipe.on(image, mask, seed=5, num_images=2),
        type("Quiet", (), {"step": lambda *_: None, "status": lambda *_: None,
                           "check_interrupted": lambda _: None})(),
    )  # fmt: skip
    done = last(worker, work_on(image, mask, num_images=2))
    assert list(done.images) == [encode_png(one, fast=True) for one in here.images]
    assert (done.width, done.height, done.seed, done.content_type) == (256, 256, 5, "image/png")
    assert done.timings["inference"] > 0


def test_steps_are_told_as_they_are_done(worker: Worker) -> None:
    work = work_on(picture(256, 256), square(256, 256), num_inference_steps=3)
    started, *lines, _ = events_of(worker, work)
    assert isinstance(started, Started) and started.worker
    told = [line.message for line in lines if isinstance(line, LogLine)]
    assert told == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]


@pytest.mark.parametrize("size", [(500, 700), (100, 90), (256, 250)])
def test_any_other_picture_stays_as_it_was_but_for_a_thin_blend(
    worker: Worker, size: tuple[int, int]
) -> None:
    image, mask = picture(*size), square(*size)
    done = last(worker, work_on(image, mask))
    made = decode_image(done.images[0])
    assert made.shape == image.shape and (done.height, done.width) == size
    far = torch.nn.functional.max_pool2d(mask[None], 17, 1, 8)[0] == 0
    assert far.any() and torch.equal(made[far], image[far])
    assert not torch.equal(made[mask > 0], image[mask > 0])


def test_an_empty_mask_gives_the_picture_back(worker: Worker) -> None:
    image = picture(256, 256)
    done = last(worker, work_on(image, torch.zeros(1, 256, 256)))
    assert torch.equal(decode_image(done.images[0]), image)


def test_a_jpeg_is_made_unless_png_is_asked_for(worker: Worker) -> None:
    done = last(worker, work_on(picture(256, 256), square(256, 256), output_format="jpeg"))
    assert done.content_type == "image/jpeg"
    with Image.open(io.BytesIO(done.images[0])) as made:
        assert (made.format, made.size) == ("JPEG", (256, 256))


def test_a_broken_picture_is_refused_by_its_field(worker: Worker) -> None:
    good = encode_png(picture(64, 64)[0])
    for files, name in (((b"not a picture", good), "image_url"), ((good, good[:50]), "mask_url")):
        entry = refusal(worker, work_of(*files))
        assert (entry["loc"], entry["type"]) == (["body", name], "image_load_error")
        assert "PNG" in entry["ctx"]["supported_formats"]


@pytest.mark.parametrize("side", [2000, 60_000])
def test_a_picture_that_says_it_is_huge_is_not_decoded(worker: Worker, side: int) -> None:
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + encode_png(picture(16, 16)[0])[33:]
    good = encode_png(picture(64, 64)[0])
    for files, name in (((bomb, good), "image_url"), ((good, bomb), "mask_url")):
        entry = refusal(worker, work_of(*files))
        assert (entry["loc"], entry["type"]) == (["body", name], "image_too_large")
        assert entry["ctx"] == {"max_pixels": LIMIT} and str(LIMIT) in entry["msg"]


def test_a_mask_of_another_shape_is_refused_with_both_sizes(worker: Worker) -> None:
    entry = refusal(worker, work_on(picture(64, 64), square(64, 128)))
    assert (entry["loc"], entry["type"]) == (["body", "mask_url"], "value_error")
    assert "128x64" in entry["msg"] and "64x64" in entry["msg"]


def test_a_prompt_the_model_cannot_read_is_refused_in_words(worker: Worker) -> None:
    work = work_on(picture(256, 256), square(256, 256), prompt="balloon " * 5000)
    entry = refusal(worker, work)
    assert (entry["loc"], entry["type"]) == (["body"], "value_error") and "token" in entry["msg"]


def test_closing_the_events_stops_the_sampler_within_a_step(worker: Worker) -> None:
    async def stop() -> float:
        work = work_on(picture(256, 256), square(256, 256), num_inference_steps=900)
        async with aclosing(LocalPool(worker).paint(work)) as events:
            async for event in events:
                if event == LogLine("step 2 of 900"):
                    break
            start = time.perf_counter()
        return time.perf_counter() - start

    assert asyncio.run(stop()) < 3
    assert last(worker, work_on(picture(256, 256), square(256, 256))).seed == 5


def test_a_gpu_that_fails_makes_the_worker_unfit(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Worker(Settings())
    broken.check()

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(PreviewBackend, "run", fail)
    with pytest.raises(RuntimeError):
        events_of(broken, work_on(picture(256, 256), square(256, 256)))
    with pytest.raises(RuntimeError, match="The GPU failed: CUDA error: an illegal memory access"):
        broken.check()
