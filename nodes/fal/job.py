"""One job: queue submit, status polling, result and cancel, without ever paying twice.

    written down -> sent -> accepted -> queued -> running -> completed -> fetched -> retained

Every arrow is in the journal, so that the same job, asked for again after a crash, a cancel or a
time-out, goes on from where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from ..contracts import EditRequest, FalSpec, ProgressSink
from ..errors import (
    JournalError,
    OneRewardError,
    RemoteError,
    RemoteTimeoutError,
    SubmissionUnknownError,
)
from . import schemas
from .cancellation import Cancellation
from .client import FalClient, unknown_submission
from .error_mapping import is_cancelled
from .job_pictures import PictureMissingError
from .job_result import JobResult, most_pixels
from .job_states import RESULT, Entry, State
from .job_store import Journal
from .pricing import Price, billed_cost, cost_of
from .progress import NoProgress, StepProgress, status_text
from .schemas import Status, Submission
from .spend_limits import limits_of
from .transfers import fetch, picture_url

LOG = logging.getLogger("onereward")
# Seconds between two questions: a twentieth of the time so far, within these bounds.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
SETTLING = 2.0  # seconds to learn what became of a cancelled job
FETCHING = 20.0  # seconds to fetch the result of a job that was finished when cancelled


class JobRunner:
    """Runs one job. Not for several threads at once.

    Args:
        run: names this run of a node, for its spend limit.
        price: None if the service does not tell.
    """

    def __init__(
        self, client: FalClient, journal: Journal, spec: FalSpec, run: str, price: Price | None
    ) -> None:
        self._client, self._journal, self._spec = client, journal, spec
        self._run, self._price = run, price

    def run(self, request: EditRequest, progress: ProgressSink) -> JobResult:
        """The job's result: from the journal, from the service where it is under way, or new.

        Raises:
            InputError: a spend limit would be passed; nothing was sent.
            RemoteError: see `may_be_billed`, and the journal has the rest.
        """
        cancellation = Cancellation(progress, self._spec.deadline)
        key = schemas.job_key(request, self._spec, self._client.server)
        while True:
            cancellation.check()
            begun = self._begin(key, request)
            if isinstance(begun, int):
                job = self._send(begun, request, progress, cancellation)
                return self._finish(begun, job, progress, cancellation, self._pixels(request))
            if begun.state in RESULT:
                try:
                    return self._from_cache(begun)
                except PictureMissingError as error:  # fetched again, which is free of charge
                    LOG.warning("%s", error)
            if begun.state in RESULT or begun.state is State.SENT:
                found = self._resume(begun, request, progress, cancellation)
                if found is not None:
                    return found
            elif begun.being_sent:
                progress.status("waiting for the same job of another node")
                cancellation.sleep(FIRST_PAUSE)
            else:
                raise _unknown(begun)

    def collect(self, request_id: str, progress: ProgressSink) -> JobResult:
        """The result of a job by its request id, from the journal or from the service.

        Raises:
            RemoteError: the service does not have it, or it failed.
        """
        server = self._client.server.queue_url
        entry = self._journal.find_request(request_id, server)
        if entry is not None and entry.state in RESULT:
            try:
                return self._from_cache(entry)
            except PictureMissingError as error:  # the service may still have it, free of charge
                LOG.warning("%s", error)
        number = entry.id if entry else self._journal.adopt(request_id, server)
        cancellation = Cancellation(progress, self._spec.deadline)
        try:
            job = self._client.job(request_id)
            found = self._finish(number, job, progress, cancellation, None, may_stop=False)
        except OneRewardError:
            if entry is None:
                self._write_down(self._journal.drop, number)
            raise
        if entry is None and len(found.images) == 1:
            about = _about(found.seed, *found.images[0].shape[:2])
            self._journal.answer_unknown(number, about, found.prompt)
        return found

    def _begin(self, key: str, request: EditRequest) -> int | Entry:
        estimate = self._price.of(self._pixels(request)) if self._price else None
        about = _about(request.seed, *request.image.shape[1:3])
        limits = limits_of(self._spec)
        server = self._client.server.queue_url
        return self._journal.begin(key, server, self._run, estimate, limits, about, request.prompt)

    def _send(
        self, number: int, request: EditRequest, progress: ProgressSink, cancellation: Cancellation
    ) -> Submission:
        try:
            progress.status("sending")
            private = self._spec.private
            urls = [
                picture_url(self._client, pixels, private, cancellation)
                for pixels in (request.image[0], request.mask[0])
            ]
            body = schemas.payload(request, self._spec, *urls)
            cancellation.check()
            job = self._client.submit(body, schemas.headers(self._spec), cancellation)
        except SubmissionUnknownError as error:
            self._write_down(self._journal.unknown, number, error.request_id)
            raise
        except BaseException:
            if self._client.may_have_accepted:  # a fault of our own; the job may be paid for
                self._write_down(self._journal.unknown, number, None)
            else:  # refused, never sent, or taken back
                self._write_down(self._journal.drop, number)
            raise
        name = self._client.server.name
        LOG.info("%s request %s, seed %d", name, job.request_id, request.seed)
        self._write_down(self._journal.sent, number, job.request_id)
        return job

    def _write_down(self, write: Callable[..., None], *entry: object) -> None:
        """What became of a send. Where the journal cannot be written, the journal itself owes the
        entry, and the run goes on: the job may be paid for.
        """
        try:
            write(*entry)
        except JournalError as error:
            LOG.error("What became of a job could not be written down yet: %s", error)

    def _resume(
        self, entry: Entry, request: EditRequest, progress: ProgressSink, cancellation: Cancellation
    ) -> JobResult | None:
        """The result of a job sent before; None if it had been cancelled, so that it is free to be
        sent again.
        """
        assert entry.request_id is not None
        job = self._client.job(entry.request_id)
        try:
            pixels, notes = self._pixels(request), ("resumed",)
            return self._finish(entry.id, job, progress, cancellation, pixels, notes=notes)
        except RemoteError as error:
            if is_cancelled(error):
                return None
            raise

    def _finish(
        self, number: int, job: Submission, progress: ProgressSink, cancellation: Cancellation,
        pixels: int | None, *, notes: tuple[str, ...] = (), may_stop: bool = True,
    ) -> JobResult:  # fmt: skip
        try:
            status = self._wait(job, progress, cancellation)
            progress.status("fetching the result")
            return self._fetch(number, job, status, cancellation, pixels, notes)
        except RemoteTimeoutError as error:
            if error.status is None:  # our deadline, not the service's
                error.request_id, error.may_be_billed = job.request_id, True
                if may_stop:
                    self._stop(number, job, pixels)
            self._note(number, error)
            raise
        except OneRewardError as error:
            self._note(number, error)
            raise
        except BaseException:  # the host's interruption
            if may_stop:
                self._stop(number, job, pixels)
            raise

    def _wait(self, job: Submission, progress: ProgressSink, cancellation: Cancellation) -> Status:
        seen, steps = 0, StepProgress(progress)
        while True:
            status = steps.take(self._client.status(job, cancellation))
            for line in status.logs[seen:]:
                LOG.info("%s: %s", job.request_id, line)
            seen = len(status.logs)
            if status.completed:
                return status
            progress.status(status_text(status, cancellation.elapsed))
            cancellation.sleep(min(max(FIRST_PAUSE, cancellation.elapsed / 20), LONGEST_PAUSE))

    def _fetch(
        self, number: int, job: Submission, status: Status, cancellation: Cancellation,
        pixels: int | None, notes: tuple[str, ...] = (),
    ) -> JobResult:  # fmt: skip
        output = self._client.result(job, cancellation, failed=status.failed)
        fetched = [
            fetch(self._client, file, job.request_id, most_pixels(pixels), cancellation)
            for file, flagged in zip(output.images, output.has_nsfw_concepts, strict=True)
            if not flagged
        ]
        images = [image for _, image in fetched]
        cost = cost_of(self._price, output, pixels)
        made = JobResult.of(job.request_id, output, images, cost, notes)
        try:
            state = State.DONE if images else State.FLAGGED
            files = [data for data, _ in fetched]
            self._journal.retain(number, state, files, made.cost, made.meta(), job.request_id)
        except JournalError as error:  # the picture is here all the same
            LOG.warning("%s", error)
            return replace(made, notes=(*notes, "not kept: the journal cannot be written"))
        return made

    def _stop(self, number: int, job: Submission, pixels: int | None) -> None:
        """Cancel a job on the service; if it finished all the same, keep what it made. Runs after
        the user has turned away, so it takes little time and raises nothing of its own.
        """
        answer = self._client.cancel(job)
        try:
            self._settle(number, job, pixels, free=answer == 200)
            LOG.warning("Request %s finished before it was cancelled; kept.", job.request_id)
        except OneRewardError as error:
            if not is_cancelled(error):
                outcome = "asked to stop" if answer in (200, 202) else "could not be stopped"
                LOG.warning("Request %s was %s; it may be billed.", job.request_id, outcome)

    def _settle(self, number: int, job: Submission, pixels: int | None, *, free: bool) -> None:
        """Learn what became of a cancelled job; `free` if it was taken out of the queue."""
        quiet = NoProgress()
        try:
            status = self._wait(job, quiet, Cancellation(quiet, SETTLING))
            self._fetch(number, job, status, Cancellation(quiet, FETCHING), pixels)
        except OneRewardError as error:
            self._note(number, error, free=free)
            raise

    def _note(self, number: int, error: OneRewardError, *, free: bool = False) -> None:
        """Write down how a job ended, if it did: a failure that may pass leaves it open."""
        if not (isinstance(error, RemoteError) and error.job_over):
            return
        if error.status == 404:  # free itself, which says nothing about the job
            self._journal.end(number, State.LOST, None)
            return
        state = State.CANCELLED if is_cancelled(error) else State.FAILED
        billed = billed_cost(self._price, error.billed_units)
        self._journal.end(number, state, billed, may_be_billed=error.may_be_billed and not free)

    def _from_cache(self, entry: Entry) -> JobResult:
        assert entry.request_id is not None
        files = self._journal.images(entry.id)
        if entry.state is State.DONE and not files:
            raise PictureMissingError(
                "The pictures of this job have just been dropped. Run it again."
            )
        return JobResult.cached(entry.request_id, entry.meta, files)

    def _pixels(self, request: EditRequest) -> int:
        return request.image.shape[1] * request.image.shape[2]


def _about(seed: int | None, height: int, width: int) -> str:
    return f"seed {seed}, {width}x{height}"


def _unknown(entry: Entry) -> SubmissionUnknownError:
    return unknown_submission(
        "The answer was lost, or the program ended while it was being sent.", entry.request_id
    )
