"""A ComfyUI of its own process with a card of any size, and a tiny FLUX.1-Fill for it.

For programs that are called with two folders, of ComfyUI's source and for models, and then with
ComfyUI's own options: importing this takes them and lets ComfyUI's modules be imported, whose
top-level names, such as `nodes`, are not for tests.

ComfyUI makes room on any device but `torch.device("cpu")`. Here it gets "cpu:0", which is not the
same to it and no other to torch, so that its own code for GPUs runs, on a card whose size the case
sets and whose use is what tensors really take. The numbers are a thousandth of a real card's.
"""

from __future__ import annotations

import importlib.util
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
COMFYUI, FOLDER = (Path(sys.argv.pop(1)) for _ in range(2))
sys.path[0] = str(COMFYUI)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()  # so that --cpu counts
spec = importlib.util.spec_from_file_location("pack_loader", TESTS / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))
sys.path.append(str(TESTS))

import comfy.model_management as management  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from fakes.layouts import write_clip, write_t5, write_transformer, write_vae  # noqa: E402
from fakes.tiny import make_request  # noqa: E402
from fakes.tiny_flux import flux_components, tiny_flux_fill  # noqa: E402
from onereward_pack.local_backend.backends.flux import LocalBackend  # noqa: E402
from onereward_pack.local_backend.checkpoints.model_paths import ModelPaths  # noqa: E402
from onereward_pack.local_backend.offload.comfy_memory import ComfyMemory, PartPatcher  # noqa: E402
from onereward_pack.local_backend.offload.model_part import ModelPart  # noqa: E402
from onereward_pack.local_backend.offload.placement import FluxPlacement  # noqa: E402
from onereward_pack.local_backend.offload.residency import Residency  # noqa: E402
from onereward_pack.local_backend.pipeline.onereward import OneRewardPipeline  # noqa: E402
from onereward_pack.local_backend.pipeline.pipeline_cache import PIPELINE_CACHE  # noqa: E402
from onereward_pack.nodes.contracts import EditRequest  # noqa: E402
from torch import Tensor, nn  # noqa: E402

MB = 10**6
PARTS = ("transformer", "t5", "clip", "vae")
WIDTH = 256  # so that the transformer is larger than the vocabularies
EVERYTHING = 200 * MB
# bytes for our parts and their work, each a little more than the plan's
RESIDENT, ON_DEMAND, STREAMED = 68 * MB, 54 * MB, 47 * MB
RESERVED = ceil(management.extra_reserved_memory())


class Card:
    """What ComfyUI takes for its GPU. `most`: the most that was ever held just after a load."""

    device = torch.device("cpu:0")

    def __init__(self) -> None:
        self.size, self.most = EVERYTHING, 0
        self.parts: weakref.WeakSet[ModelPart] = weakref.WeakSet()
        self._free, self._load = management.get_free_memory, ComfyMemory.load
        management.get_torch_device = lambda: self.device
        management.get_free_memory = self.get_free_memory
        ComfyMemory.load = lambda memory, parts, work: self.load(memory, parts, work)
        # 0.8 GiB, which a small picture does not need, and here that much more than ours need
        management.minimum_inference_memory = lambda: 30 * MB + RESERVED

    def held(self) -> int:
        others = (m.model for m in management.current_loaded_models)
        models = sum(m.loaded_size() for m in others if m and not isinstance(m, PartPatcher))
        return models + sum(really_held(part) for part in self.parts)

    def get_free_memory(self, device: torch.device, torch_free_too: bool = False) -> Any:
        if device != self.device:
            return self._free(device, torch_free_too)
        free = self.size - self.held()
        return (free, 0) if torch_free_too else free

    def load(
        self, memory: ComfyMemory, parts: Sequence[tuple[ModelPart, Residency]], work: int
    ) -> None:
        """The memory's own, watched."""
        self.parts.update(part for part, _ in parts)
        self._load(memory, parts, work)
        self.most = max(self.most, self.held() + work)


CARD = Card()


def really_held(part: ModelPart) -> int:
    """Bytes of the tensors in a part's module, in its streamed blocks' buffers, and kept."""
    buffers = part.streamer._buffers if part.streamer else []
    streamed = {buffer.untyped_storage().data_ptr() for buffer in buffers}
    tensors = [*part.module.parameters(), *part.module.buffers()]
    tensors = [t for t in tensors if not t.is_meta and t.dtype != torch.int64]
    single = {t.data_ptr(): t for t in tensors if t.untyped_storage().data_ptr() not in streamed}
    kept = [stored.data for stored in part._held.values()]
    return sum(tensor.nbytes for tensor in (*single.values(), *buffers, *kept))


class Sink:
    """A ProgressSink that keeps the texts, and interrupts a run when it has been found in a state
    that number of times.
    """

    def __init__(self, state: Callable[[], bool] | None = None, times: int = 1) -> None:
        self.texts: list[str] = []
        self._state, self._times = state, times

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        pass

    def status(self, text: str) -> None:
        self.texts.append(text)

    def check_interrupted(self) -> None:
        self._times -= self._state is not None and self._state()
        if self._times == 0:
            raise management.InterruptProcessingException


def transformer(seed: int) -> Path:
    folder = FOLDER / f"{seed}"
    folder.mkdir()
    return write_transformer(folder, tiny_flux_fill(seed, WIDTH).transformer, "bfl", "float32").path


FLUX = tiny_flux_fill(width=WIDTH)
FILES = ModelPaths(
    transformer=transformer(0),
    text_encoder=write_clip(FOLDER, FLUX.text_encoder, "float32").path,
    text_encoder_2=write_t5(FOLDER, FLUX.text_encoder_2, "float32").path,
    vae=write_vae(FOLDER, FLUX.vae).path,
    precision="file",
)
REFERENCE = OneRewardPipeline(flux_components(FLUX), torch.device("cpu"))


def expected(request: EditRequest) -> Tensor:
    """What the same models paint that nobody moves."""
    known = (request.prompt, request.num_images)
    if known not in PICTURES:
        PICTURES[known] = REFERENCE(request, Sink()).images
    return PICTURES[known]


PICTURES: dict[tuple[str, int], Tensor] = {}
ASKED = make_request(num_inference_steps=2)
PICTURE = expected(ASKED)


@torch.inference_mode()  # as ComfyUI runs nodes
def paint(request: EditRequest = ASKED, sink: Sink | None = None, of: ModelPaths = FILES) -> Tensor:
    return LocalBackend(of, "tiny").run(request, sink or Sink()).images


def right(**changes: Any) -> bool:
    request = replace(ASKED, **changes)
    return torch.equal(paint(request), expected(request))


def placement() -> FluxPlacement:
    return PIPELINE_CACHE._pipeline.placement


def part(name: str) -> ModelPart:
    return getattr(placement()._parts, name)


def plan_words() -> str:
    return placement().plan.summary(placement()._sizes, placement()._parts.stored)


def loads() -> dict[str, int]:
    return {name: part(name).loads for name in PARTS}


def listed() -> list[str]:
    """Which of our parts ComfyUI counts."""
    patchers = [loaded.model for loaded in management.current_loaded_models]
    ours = [p.part for p in patchers if isinstance(p, PartPatcher)]
    return [name for name in PARTS for p in ours if p is part(name)]


def wrong_books() -> list[str]:
    """Parts of which ComfyUI knows another size than they have, or that are half loaded."""
    wrong = []
    for p in CARD.parts:
        known = [m for m in management.current_loaded_models if getattr(m.model, "part", None) is p]
        held, name = really_held(p), type(p.module).__name__
        if len(known) != (1 if p.residency else 0):
            wrong.append(f"{name} is listed {len(known)} times, and its residency is {p.residency}")
        sizes = [s for m in known for s in (m.model_memory(), m.model_loaded_memory())]
        if any(size != held for size in (*sizes, p.device_bytes)):
            wrong.append(f"{name} holds {held}, and {sizes}, {p.device_bytes} are known")
        if (
            p.residency and abs(p.required_bytes(p.residency) - held) > held / 1000
        ):  # buffers are aligned
            wrong.append(f"{name} holds {held}, and was to hold {p.required_bytes(p.residency)}")
    return wrong


class Other(nn.Module):
    """A model of another node, of 4 MB layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1000, 1000, False) for _ in range(size // (4 * MB)))


def other(size: int) -> ModelPatcher:
    return ModelPatcher(Other(size), CARD.device, torch.device("cpu"))


def fresh(size: int = EVERYTHING) -> None:
    """Nothing is loaded, and the card has this size."""
    PIPELINE_CACHE.unload()
    management.unload_all_models()
    CARD.size, CARD.most = size, 0
