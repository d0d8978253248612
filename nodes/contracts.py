"""The contracts between the rooms: the request, the result, and what a backend is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

NEGATIVE_PROMPT = "nsfw"
REMOVE_PROMPT = "remove"
EXTEND_PROMPT = "high-definition, perfect composition"
ACCELERATIONS = ("none", "regular", "high")
ACCELERATION = "regular"
PRECISIONS = ("auto", "file", "fp8", "fp8 fast")
ATTENTIONS = ("default", "fastest")
AUTO, NONE = "auto", "none"  # in a LocalSpec: the file that fits best; no file
MAX_SEED = 2**64 - 1
MAX_IMAGES = 16  # of one pair of picture and mask in an edit
MEGAPIXEL = 1024 * 1024  # pixels
FROM_CACHE = "from cache"  # the note of a result that was cached from an earlier run


class EditTask(str, Enum):
    """What the artist asks for. Fill, remove and text inpaint a mask; extend outpaints."""

    FILL = "fill"
    REMOVE = "remove"
    EXTEND = "extend"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class EditRecipe:
    """What the artist asks for, as text and numbers: everything but the pixels. Defaults are the
    OneReward authors' own recipe.
    """

    task: EditTask
    prompt: str
    negative_prompt: str = NEGATIVE_PROMPT
    seed: int = 0
    num_inference_steps: int = 28
    guidance_scale: float = 1.0
    true_cfg: float = 4.0
    acceleration: str = ACCELERATION
    num_images: int = 1

    def on(self, image: Tensor, mask: Tensor, *, seed: int, num_images: int) -> EditRequest:
        """The same recipe on these pixels, with this seed, that many times."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(EditRecipe)}
        fields |= {"seed": seed, "num_images": num_images}
        return EditRequest(**fields, image=image, mask=mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class EditRequest(EditRecipe):
    """One call to a backend, complete: a backend reads nothing else.

    A field a backend cannot honour raises InputError; it is never dropped.

    Attributes:
        image: float [1, h, w, 3] in 0..1, h and w multiples of 16.
        mask: float [1, h, w], 1 = change, binary.
    """

    image: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class EditResult:
    """What a backend returns.

    Attributes:
        images: float [num_images, h, w, 3] in 0..1, the size of the request's image.
        seeds: one per image; image i was made with the request's seed + i.
        has_nsfw_concepts: one flag per image; all False where the backend does not look. A flagged
            image holds nothing to use.
        timings: seconds per stage, in order.
        prompt: the prompt the service says it used.
        request_id: the remote service's name for the call, if there was one.
        billed_units: what the service says it billed, in its own units.
        cost: US dollars spent now: 0 if it cost nothing, None if the price is unknown.
        session_cost: US dollars spent since the program started, this call included.
        notes: what else the user should know, such as FROM_CACHE.
    """

    images: Tensor
    seeds: tuple[int, ...]
    has_nsfw_concepts: tuple[bool, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    prompt: str | None = None
    request_id: str | None = None
    billed_units: float | None = None
    cost: float | None = None
    session_cost: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The sizes a backend works well at, which the canvas plans its crops by, and how it runs.

    Attributes:
        max_pixels: the largest crop, in pixels as the model sees it.
        min_side: the smallest crop side, in pixels of the source.
        max_aspect: longest side over shortest, as far as the picture allows.
        remote: the work is done on another machine: run() only waits, and may be called from
            several threads.
        parallel_jobs: how many run() calls may be under way at once.
        images_per_run: the most images one run() should make; None for any number.
        prompt_embeddings: "embedding:name" in a prompt is looked up, as ComfyUI does.
        note: what the user must know of its pictures wherever the backend is named; short.
    """

    max_pixels: int
    min_side: int
    max_aspect: float
    remote: bool = False
    parallel_jobs: int = 1
    images_per_run: int | None = None
    prompt_embeddings: bool = False
    note: str = ""


# FLUX.1-Fill was trained up to a megapixel; every backend that runs it, fal's too, is given this.
FLUX_CAPABILITIES = Capabilities(max_pixels=MEGAPIXEL, min_side=512, max_aspect=4.0)


class ProgressSink(Protocol):
    """Where a long run reports how far it is, and learns that the user cancelled it."""

    def step(self, value: int, total: int, preview: Tensor | None = None) -> None:
        """Step `value` of `total` is done; `preview` is float [h, w, 3] in 0..1."""

    def status(self, text: str) -> None:
        """One line for the user, about what happens now."""

    def check_interrupted(self) -> None:
        """Raise the host's interruption exception if the user pressed Cancel."""


class Backend(Protocol):
    """Something that can paint a masked crop."""

    @property
    def name(self) -> str:
        """What the user reads, such as "preview model"."""

    @property
    def capabilities(self) -> Capabilities:
        """The sizes this backend works well at."""

    def check(self, recipe: EditRecipe) -> None:
        """Raise InputError for a recipe this backend cannot honour. Loads and sends nothing."""

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        """Raise if the edit as a whole breaks a limit, such as a spend cap. Called once, with every
        request of the edit, before the first run.
        """

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """Paint the masked pixels of one crop."""


@dataclass(frozen=True)
class BackendSpec:
    """Names a backend in plain values; this is what travels on an ONEREWARD_BACKEND socket, never
    a live pipeline, a key or a URL.
    """

    kind: str


@dataclass(frozen=True)
class FalSpec(BackendSpec):
    """fal, or another server that speaks its protocol, and how to talk to it.

    Attributes:
        server: "fal", or a name in servers.json.
        output_format: "png" or "jpeg".
        private: the service keeps neither the pictures nor the prompt, as far as it lets us choose.
        enable_safety_checker: the service looks at what it made.
        on_flagged: "raise", or "return input" for an image that was refused.
        run_cap: US dollars one run of a node may cost; 0 for no cap.
        session_cap: US dollars all runs may cost until the program ends; 0 for no cap.
        parallel_jobs: how many jobs may be under way at once.
        start_deadline: seconds until a job must have started; 0 for no deadline.
        deadline: seconds until a job must have finished.
        priority: "normal" or "low".
    """

    kind: str = "fal"
    server: str = "fal"
    output_format: str = "png"
    private: bool = False
    enable_safety_checker: bool = True
    on_flagged: str = "raise"
    run_cap: float = 5.0
    session_cap: float = 20.0
    parallel_jobs: int = 4
    start_deadline: int = 0
    deadline: int = 900
    priority: str = "normal"


@dataclass(frozen=True)
class LocalSpec(BackendSpec):
    """A FLUX.1-Fill model of the user's own, on this machine's GPU. Files are named as ComfyUI's
    menus name them, below its model folders.

    Attributes:
        transformer: a file of diffusion_models, or a folder of diffusers; "auto" for the OneReward
            file that is there.
        t5xxl: a file of text_encoders; "auto" for the one that is there, or the folder's own.
        clip_l: the same.
        vae: a file of vae, or "auto".
        lora: a file of loras, or "none".
        lora_strength: how much of the LoRA is added.
        precision: one of PRECISIONS. "file" keeps the weights as their file has them; "fp8" holds
            them in 8 bits; "auto" does so only where they do not fit the card otherwise. "fp8 fast"
            computes in 8 bits, too, where the card can.
        compile: the transformer's blocks are compiled, once a session and class of sizes.
        attention: one of ATTENTIONS: torch's own choice, or what is measured to be the fastest.
    """

    kind: str = "local"
    transformer: str = AUTO
    t5xxl: str = AUTO
    clip_l: str = AUTO
    vae: str = AUTO
    lora: str = NONE
    lora_strength: float = 1.0
    precision: str = "auto"
    compile: bool = False
    attention: str = "default"


@dataclass(frozen=True, eq=False)
class ModelSpec(BackendSpec):
    """Models that ComfyUI's own loaders made, to be sampled by ComfyUI. They stay ComfyUI's: it
    owns their memory, and its loaders' nodes their settings.

    Attributes:
        model, clip, vae: what travels on ComfyUI's MODEL, CLIP and VAE sockets.
    """

    kind: str = "model"
    model: Any = None
    clip: Any = None
    vae: Any = None
