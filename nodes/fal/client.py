"""Client of fal's queue API: submit, status, result and cancel, one method each.

A submit is sent once, questions are asked as often as needed, a cancel goes at any time.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

from requests import Session

from ..errors import OneRewardError, RemoteError, SubmissionUnknownError
from .cancellation import TICK, Cancellation, in_background
from .endpoints import ENDPOINT, Server
from .error_mapping import error_of
from .retry import SUBMIT, ask_idempotent, is_transient, poll_retry
from .schemas import (
    Output,
    Status,
    Submission,
    read_output,
    read_status,
    read_submission,
    submission_at,
)
from .transport import (
    REQUEST_ID,
    ConnectionLost,
    KeyAuth,
    NoAuth,
    Oversized,
    Reply,
    Upload,
    exchange,
    hide,
    new_session,
)

LOG = logging.getLogger("onereward")
SUBMIT_TIMEOUT = (10.0, 60.0)
STATUS_TIMEOUT = (10.0, 30.0)
RESULT_TIMEOUT = (10.0, 120.0)
CANCEL_TIMEOUT = (5.0, 10.0)
LARGEST_RESULT = 64 << 20  # bytes; a data URI of a 1 MP PNG is about 4 MB
SHORTEST_SECRET = 8  # characters; a shorter key is found everywhere
FINAL = (401, 402, 403, 404, 422, 499)  # asking for a result again does not change these
ENDED = (400, 404, 422, 499, *range(500, 600))  # a result that says so is a job that is over


class FalClient:
    """Speaks with one server for one job. Not for several threads at once.

    Args:
        key: None for a server that wants none.

    Attributes:
        may_have_accepted: the last submit got an answer that is no refusal.
    """

    may_have_accepted = False

    def __init__(self, server: Server, key: str | None) -> None:
        self.server = server
        self._auth = KeyAuth(key) if key else NoAuth()
        self._session = new_session(server.ca)

    def close(self) -> None:
        self._session.close()

    def submit(
        self, body: Mapping[str, Any], headers: Mapping[str, str], cancellation: Cancellation
    ) -> Submission:
        """Send a job. It is sent again only if the service cannot have accepted it.

        Raises:
            SubmissionUnknownError: it was sent and no usable answer came.
            CredentialsError, RemoteError: it was not accepted.
        """
        data = json.dumps(body).encode()
        try:
            reply = SUBMIT.run(lambda: self._post(data, headers, cancellation), cancellation)
        except Oversized as large:
            raise unknown_submission(str(large.args[0]), None) from None
        except ConnectionLost as lost:
            if lost.sent:
                raise unknown_submission(str(lost.args[0]), lost.request_id) from None
            raise
        return self._accepted(reply)

    def status(self, job: Submission, cancellation: Cancellation) -> Status:
        """Where the job is, with its log lines so far."""

        def again(reply: Reply) -> bool:
            return not reply.ok and (not reply.from_app or is_transient(reply))

        url = job.status_url + ("&" if "?" in job.status_url else "?") + "logs=1"
        reply = self._ask(job, url, STATUS_TIMEOUT, cancellation, again)
        if not reply.ok:
            raise self._error(reply, job, over=reply.status == 404)
        status = read_status(reply, job.request_id)
        return replace(status, logs=tuple(hide(line, self._secret) for line in status.logs))

    def result(self, job: Submission, cancellation: Cancellation, *, failed: bool) -> Output:
        """What a completed job made; raises the error it ended with.

        Args:
            failed: the status said so. If it did not, a failing answer is the queue's own trouble
                and is asked again: the result may be there, and is paid for.
        """

        def again(reply: Reply) -> bool:
            if reply.ok or (reply.from_app and reply.status in FINAL):
                return False
            return not reply.from_app or not failed or reply.status in (408, 425, 429)

        reply = self._ask(job, job.response_url, RESULT_TIMEOUT, cancellation, again)
        if not reply.ok:
            raise self._error(reply, job, over=reply.status in ENDED)
        output = read_output(reply, job.request_id)
        return replace(output, prompt=hide(output.prompt or "", self._secret) or None)

    def cancel(self, job: Submission) -> int:
        """Ask the service to stop a job. The HTTP status of its answer: 200 for a job taken out of
        the queue, 202 for one that may still finish, 4xx for one that is over or gone; 0 for none.
        """
        for _ in range(2):
            # A connection of its own: the session's may be in use by a call that was left behind.
            with new_session(self.server.ca) as session:
                try:
                    reply = self._exchange(session, "PUT", job.cancel_url, timeout=CANCEL_TIMEOUT)
                except RemoteError as error:
                    LOG.warning("Could not cancel request %s: %s", job.request_id, error)
                    continue
            if not is_transient(reply):
                return reply.status
        return 0

    def test_key(self, cancellation: Cancellation) -> None:
        """Ask about a job that does not exist: a service that knows the key answers 404.

        Raises:
            CredentialsError, RemoteError: it answers something else.
        """
        nobody = self.job(str(uuid.uuid4()))
        reply = self.get(nobody.status_url, cancellation, timeout=STATUS_TIMEOUT)
        if not reply.ok and reply.status != 404:
            raise error_of(reply, server=self.server.name)

    def get(self, url: str, cancellation: Cancellation, *, timeout: tuple[float, float]) -> Reply:
        """A GET with the key, of a URL on the service itself."""
        return ask_idempotent(
            lambda: self._exchange(self._session, "GET", url, timeout=timeout), cancellation
        )

    def post(
        self,
        url: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        cancellation: Cancellation,
    ) -> Reply:
        """A POST with the key that starts nothing, such as asking where to upload."""
        return ask_idempotent(
            lambda: self._exchange(
                self._session, "POST", url, timeout=SUBMIT_TIMEOUT,
                headers={"Content-Type": "application/json", **headers},
                data=json.dumps(body).encode(),
            ),
            cancellation,
        )  # fmt: skip

    @property
    def _secret(self) -> str:
        """What must not be shown, should the service repeat it; empty if there is nothing."""
        key = self._auth.key if isinstance(self._auth, KeyAuth) else ""
        return key if len(key) >= SHORTEST_SECRET else ""

    def job(self, request_id: str) -> Submission:
        """A job by its id alone."""
        return submission_at(self.server, request_id)

    def _exchange(self, session: Session, method: str, url: str, **options: Any) -> Reply:
        reply = exchange(session, method, url, auth=self._auth, **options)
        # Only an answer that ends as text is touched: a short key may be a word of the protocol.
        return reply if reply.ok else reply.without(self._secret)

    def _post(self, data: bytes, headers: Mapping[str, str], cancellation: Cancellation) -> Reply:
        """One submit. Cancel takes the body back as long as it is not all out; after that the
        answer is waited for, because only it names the job to cancel.
        """
        upload = Upload(data)
        outcome = in_background(lambda: self._post_alone(upload, headers))
        while not outcome.done():
            try:
                wait([outcome], timeout=TICK)
                cancellation.check()
            except BaseException:  # an interruption or the deadline
                if upload.abort():
                    raise
        reply = outcome.result()
        self.may_have_accepted = reply.ok
        return reply

    def _post_alone(self, upload: Upload, headers: Mapping[str, str]) -> Reply:
        # On the connection of an earlier request, a reset would look like an accepted job.
        # The new one serves the questions that follow.
        self._session.close()
        return self._exchange(
            self._session, "POST", f"{self.server.queue_url}/{ENDPOINT}", timeout=SUBMIT_TIMEOUT,
            headers=headers, data=upload,
        )  # fmt: skip

    def _accepted(self, reply: Reply) -> Submission:
        if reply.ok:
            job = read_submission(reply, self.server)
            if job is None:
                raise unknown_submission("The answer names no job.", reply.headers.get(REQUEST_ID))
            return job
        if reply.status >= 500 and reply.status != 503:
            raise unknown_submission(
                str(error_of(reply, server=self.server.name).args[0]), reply.headers.get(REQUEST_ID)
            )
        raise error_of(reply, server=self.server.name)

    def _ask(
        self,
        job: Submission,
        url: str,
        timeout: tuple[float, float],
        cancellation: Cancellation,
        again: Callable[[Reply], bool],
    ) -> Reply:
        """A GET, which is idempotent, repeated while `again` holds for its answer."""

        def ask() -> Reply:
            return self._exchange(
                self._session, "GET", url, timeout=timeout, max_bytes=LARGEST_RESULT
            )

        try:
            reply = poll_retry(again).run(lambda: cancellation.call(ask), cancellation)
            if not again(reply):
                return reply
            trouble = error_of(reply, server=self.server.name).args[0]
        except Oversized as large:
            raise RemoteError(
                f"{large.args[0]} OneReward Collect can try again to fetch the job.",
                request_id=job.request_id, may_be_billed=True,
            ) from None  # fmt: skip
        except ConnectionLost as lost:
            trouble = lost.args[0]
        raise RemoteError(
            f"Asking {self.server.name} about the job kept failing: {trouble} Running the same "
            "again, with the same seed, goes on from there.",
            request_id=job.request_id, may_be_billed=True,
        )  # fmt: skip

    def _error(self, reply: Reply, job: Submission, *, over: bool) -> OneRewardError:
        """What an app's own answer about an accepted job means."""
        if reply.status == 404:
            error: OneRewardError = RemoteError(
                f"{self.server.name} no longer has this job: results are kept for minutes to an "
                "hour. Running the same again sends it as a new job.",
                status=404, request_id=job.request_id, error_type="NOT_FOUND", may_be_billed=True,
            )  # fmt: skip
        else:
            error = error_of(reply, server=self.server.name, request_id=job.request_id)
        if isinstance(error, RemoteError):
            error.job_over, error.billed_units = over, reply.billed_units
            error.may_be_billed = error.may_be_billed or not over
        return error


def unknown_submission(reason: str, request_id: str | None) -> SubmissionUnknownError:
    """What to do about a job that was sent and may or may not have been accepted."""
    return SubmissionUnknownError(
        f"A job was sent, and it is not known whether it was accepted: {reason} It is not sent "
        "again on its own. Look at the service's own list of requests (fal: "
        "https://fal.ai/dashboard/requests). If the job is there, give its id to OneReward Collect "
        "and run this again; if not, change the seed and run again.",
        request_id=request_id,
        may_be_billed=True,
    )
