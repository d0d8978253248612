"""fal as a Backend: key, price and spend limits around the job runner, tensors after it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..canvas.image_ops import resize
from ..contracts import (
    ACCELERATIONS,
    FLUX_CAPABILITIES,
    MEGAPIXEL,
    EditRecipe,
    EditRequest,
    EditResult,
    FalSpec,
    ProgressSink,
)
from ..errors import ContentPolicyError, InputError, RemoteError
from .cancellation import Cancellation
from .client import FalClient
from .endpoints import Server
from .job import JobRunner
from .job_result import JobResult
from .job_store import Journal
from .pricing import Price, ask_price
from .progress import NoProgress
from .schemas import check_request_id, job_key
from .spend_limits import check_limit, how_to_lift, limits_of

CHOICES = {
    "output_format": ("png", "jpeg"),
    "on_flagged": ("raise", "return input"),
    "priority": ("normal", "low"),
}
KEY_TEST_LIMIT = 30.0  # seconds
PRICE_AGE = 3600.0  # seconds a price is believed
PLAN_LIMIT = 3.0  # seconds a plan waits for a price
ASPECT_TOLERANCE = 0.02


class FalBackend:
    """A Backend that paints on fal, or on a server that speaks its protocol. For one edit.

    Args:
        server: where to.
        find_key: gives the key, or None for a server that wants none; called before the first
            exchange, and not for a plan or an empty mask.
        folder: where the journal lies.

    Raises:
        InputError: the spec holds a value that is no choice.
    """

    def __init__(
        self, spec: FalSpec, server: Server, find_key: Callable[[], str | None], folder: Path
    ) -> None:
        for name, choices in CHOICES.items():
            if getattr(spec, name) not in choices:
                raise InputError(f'{name} is "{getattr(spec, name)}". Use {" or ".join(choices)}.')
        self.name = server.name
        self.capabilities = replace(
            FLUX_CAPABILITIES, remote=True, parallel_jobs=spec.parallel_jobs, images_per_run=1
        )
        self._spec, self._server = spec, server
        self._find_key, self._folder = find_key, folder
        self._run_id = uuid.uuid4().hex
        self._price: Price | None = None

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self._folder)

    def _client(self) -> FalClient:
        return FalClient(self._server, self._find_key())

    def check(self, recipe: EditRecipe) -> None:
        """Raises InputError for an acceleration the endpoint does not know."""
        if recipe.acceleration not in ACCELERATIONS:
            raise InputError(
                f'acceleration is "{recipe.acceleration}". Use one of {", ".join(ACCELERATIONS)}.'
            )

    def admit(self, requests: Iterable[EditRequest], progress: ProgressSink) -> None:
        """Says what the edit will cost; raises if that passes a spend limit. Nothing is uploaded.

        Raises:
            CredentialsError: there is no key. One that the service does not know shows when a
                price is asked for, once an hour, or when the job is sent.
            InputError: a limit would be passed, or cannot be kept because the price is unknown.
        """
        self._price = self._ask_price(progress)
        pixels = [
            request.image.shape[1] * request.image.shape[2]
            for request in requests
            if self._journal.find(job_key(request, self._spec, self._server)) is None
        ]
        jobs = "1 new job" if len(pixels) == 1 else f"{len(pixels)} new jobs"
        size = f"{jobs}, {sum(pixels) / MEGAPIXEL:.2f} MP"
        if self._price is None:
            self._refuse_unknown_price(bool(pixels))
            progress.status(f"{self.name}: {size}, price unknown")
            return
        estimate = sum(self._price.of(each) for each in pixels)
        self._check_limits(estimate)
        cost = f"about ${estimate:.3f}" if estimate else "free"
        progress.status(f"{self.name}: {size}, {cost}")

    def estimate_price(self, pixels: Sequence[int]) -> tuple[float | None, str]:
        """What new jobs of so many pixels each would cost, about, in US dollars, None if that is
        unknown; and why they would be refused, or nothing. Sends no job: at most once an hour the
        price is asked for, and a service that does not answer is soon given up.

        Raises:
            CredentialsError: there is no key, or the service does not know it.
        """
        price = self._ask_price(NoProgress(), PLAN_LIMIT)
        estimate = None if price is None else sum(price.of(each) for each in pixels)
        try:
            if estimate is None:
                self._refuse_unknown_price(bool(pixels))
            else:
                self._check_limits(estimate)
        except InputError as error:
            return estimate, str(error)
        return estimate, ""

    def run(self, request: EditRequest, progress: ProgressSink) -> EditResult:
        """Paints the masked pixels of one crop; see JobRunner.

        Raises:
            ContentPolicyError: the result was flagged, unless the spec wants the input then.
        """
        start = time.perf_counter()
        with closing(self._client()) as client:
            result = self._runner(client).run(request, progress)
        if not result.images:
            if self._spec.on_flagged == "raise":
                raise _flagged(result)
            same = request.image.expand(request.num_images, -1, -1, -1)
            return self._result(result, same, request.seed, time.perf_counter() - start)
        images, notes = self._pictures(result, request)
        notes |= _other_than_asked(result, request)
        return self._result(result, images, request.seed, time.perf_counter() - start, *notes)

    def collect(self, request_id: str, progress: ProgressSink) -> EditResult:
        """The result of a job by its request id, as the service made it: the crop alone.

        Raises:
            InputError: the text is no request id.
            RemoteError: the service does not have it, it failed, or it was flagged.
        """
        check_request_id(request_id)
        self._price = self._ask_price(progress)
        start = time.perf_counter()
        with closing(self._client()) as client:
            result = self._runner(client).collect(request_id, progress)
        if not result.images:
            raise _flagged(result)
        if len({image.shape for image in result.images}) > 1:
            raise RemoteError(
                "The job's images have several sizes, so they are no batch. Fetch them from the "
                "service's own page.",
                request_id=result.request_id,
                may_be_billed=True,
            )
        left_out = sum(result.has_nsfw_concepts)
        notes = [f"{left_out} flagged images left out"] if left_out else []
        notes += ["its seed is not known"] if result.seed is None else []
        notes += [f'prompt "{result.prompt}"'] if result.prompt else []
        seconds = time.perf_counter() - start
        return self._result(result, torch.stack(result.images), 0, seconds, *notes)

    def test_key(self) -> str:
        """A sentence for the user: the key works, and the price. Costs nothing and starts nothing.

        Raises:
            CredentialsError: there is no key, or the service does not know it.
            RemoteError: the service cannot be reached, or refuses the account.
        """
        cancellation = Cancellation(NoProgress(), KEY_TEST_LIMIT)
        key = self._find_key()
        with closing(FalClient(self._server, key)) as client:
            client.test_key(cancellation)
            price = ask_price(client, cancellation)
        cost = "unknown" if price is None else f"${price.unit_price:g} per {price.unit}"
        return f"{self.name} {'knows the key' if key else 'answers'}. Price: {cost}."

    def _runner(self, client: FalClient) -> JobRunner:
        return JobRunner(client, self._journal, self._spec, self._run_id, self._price)

    def _check_limits(self, estimate: float) -> None:
        limits = limits_of(self._spec)
        check_limit("run", self._journal.spent(run=self._run_id), estimate, limits.run)
        check_limit("session", self._journal.spent(), estimate, limits.session)

    def _ask_price(self, progress: ProgressSink, limit: float | None = None) -> Price | None:
        known = self._journal.price(self._server.queue_url, PRICE_AGE)
        if known is not None:
            return Price(*known)
        with closing(self._client()) as client:
            price = ask_price(client, Cancellation(progress, limit or self._spec.deadline))
        if price is not None:
            self._journal.set_price(self._server.queue_url, price.unit_price, price.unit)
        return price

    def _refuse_unknown_price(self, new_jobs: bool) -> None:
        limited = self._spec.run_cap or self._spec.session_cap
        if self._server.priced and limited and new_jobs:
            raise InputError(
                f"The price could not be read from {self.name}, so the spend cap cannot be kept. "
                f"Try again later, or {how_to_lift(self._spec)} to run at an unknown price. "
                "Nothing was sent."
            )

    def _pictures(self, result: JobResult, request: EditRequest) -> tuple[Tensor, set[str]]:
        """float [num_images, h, w, 3] in the request's size, and what had to be done for that."""
        height, width = request.image.shape[1:3]
        pictures: list[Tensor] = []
        notes: set[str] = set()
        for picture in result.images:
            if picture.shape[:2] != (height, width):
                notes.add(_resized(result.request_id, picture, height, width))
                picture = resize(picture, (height, width)).clamp(0, 1)
            pictures.append(picture)
        if len(pictures) != request.num_images:
            raise RemoteError(
                f"{self.name} made {len(pictures)} images where {request.num_images} were asked "
                "for. OneReward Collect can fetch them.",
                request_id=result.request_id,
                may_be_billed=True,
            )
        return torch.stack(pictures), notes

    def _result(
        self, result: JobResult, images: Tensor, asked_seed: int, seconds: float, *notes: str
    ) -> EditResult:
        seed = asked_seed if result.seed is None else result.seed
        return EditResult(
            images=images,
            seeds=tuple(seed + i for i in range(len(images))),
            has_nsfw_concepts=(not result.images,) * len(images),
            timings={self.name: seconds, **result.timings},
            prompt=result.prompt,
            request_id=result.request_id,
            billed_units=result.billed_units,
            cost=result.cost,
            session_cost=self._journal.spent(),
            notes=(*result.notes, *notes),
        )


def _flagged(result: JobResult) -> ContentPolicyError:
    return ContentPolicyError(
        "The safety checker flagged the result, so there is no picture. Change the prompt or the "
        'seed, or set on_flagged to "return input" on OneReward Fal Backend.',
        request_id=result.request_id,
        error_type="flagged",
        may_be_billed=result.cost != 0,
    )


def _other_than_asked(result: JobResult, request: EditRequest) -> set[str]:
    """What the service says it used where that is not what it was sent."""
    notes = set()
    if result.seed not in (None, request.seed):
        notes.add(f"the service used seed {result.seed}")
    if result.prompt not in (None, "", request.prompt):
        notes.add(f'the service used the prompt "{result.prompt}"')
    return notes


def _resized(request_id: str, picture: Tensor, height: int, width: int) -> str:
    """A note on a result of another size; RemoteError if it has another shape."""
    h, w = picture.shape[:2]
    if abs((w / h) / (width / height) - 1) > ASPECT_TOLERANCE:
        raise RemoteError(
            f"The result is {w}x{h} for a crop of {width}x{height}: another shape, which cannot be "
            "put back. OneReward Collect can fetch it; another target on OneReward Canvas, such "
            "as 1024x1024, may avoid it.",
            request_id=request_id,
            may_be_billed=True,
        )
    return f"came back at {w}x{h}, resized to {width}x{height}"
