"""What can go wrong, as one tree. A message says what was wrong, with the value, and what to do.

OneRewardError
|-- InputError                  a picture, mask, size, setting or spend cap (also a ValueError)
|-- CredentialsError            no key, a broken key file, or a key that the service refuses
|-- JournalError                the record of paid jobs cannot be read or written
|-- RemoteError                 a service; carries status, request_id, error_type, may_be_billed
|   |-- RemoteTimeoutError      it did not start or finish in time
|   |-- SubmissionUnknownError  sent, but no answer came: it may run and be billed
|   |-- RateLimitError          too many requests
|   |-- BalanceError            no credit, or the key may not use this model
|   |-- ContentPolicyError      the prompt, the picture or the result was refused
|   |-- RemoteValidationError   a field of the request was refused
|   |-- PartialFailureError     some jobs of a batch failed; the others are paid for and cached
|-- LocalBackendError           the model on this machine
    |-- MissingDependencyError  a package is not installed; carries the exact pip command
    |-- CheckpointError         a model file is not what it should be
    |-- ModelNotFoundError      a model file is not there

Interruption is ComfyUI's own exception and stands outside this tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class OneRewardError(Exception):
    """Base of every error the pack raises on purpose.

    Attributes:
        input: the name of the node's input at fault, where one is known.
    """

    input: str | None = None


@contextmanager
def at_fault(input_name: str) -> Iterator[None]:
    """Names the input at fault in an error that is raised inside and names none yet."""
    try:
        yield
    except OneRewardError as error:
        error.input = error.input or input_name
        raise


class InputError(OneRewardError, ValueError):
    """The caller's picture, mask, size or setting breaks a rule; nothing was run or written."""


class CredentialsError(OneRewardError):
    """There is no usable key. The message never holds the key itself."""


class JournalError(OneRewardError):
    """The journal of paid jobs cannot be used; without it nothing is sent."""


class RemoteError(OneRewardError):
    """A service failed or refused.

    Attributes:
        status: the HTTP status, if there was an answer.
        request_id: the service's name for the job, if it has one.
        error_type: the service's own code, such as "runner_disconnected".
        may_be_billed: whether money may have been spent.
        seed: the seed to run again with, so that what is paid for is collected.
        billed_units: what the service says it billed, in its own units.
        job_over: the job has ended or is gone, so that running again sends a new one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        error_type: str | None = None,
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.error_type = error_type
        self.may_be_billed = may_be_billed
        self.seed: int | None = None
        self.job_over = False
        self.billed_units: float | None = None

    def __str__(self) -> str:
        """The message, the request id, the seed, and what it means for the bill."""
        name = f" Request id: {self.request_id}." if self.request_id else ""
        seed = f" Seed: {self.seed}." if self.seed is not None and self.may_be_billed else ""
        bill = "It may have been billed." if self.may_be_billed else "Nothing was billed."
        return f"{self.args[0]}{name}{seed} {bill}"


class RemoteTimeoutError(RemoteError):
    """A job did not start or did not finish within its deadline."""


class SubmissionUnknownError(RemoteError):
    """A job was sent and no answer came; it is never sent a second time on its own."""


class RateLimitError(RemoteError):
    """The service asks to send less."""


class BalanceError(RemoteError):
    """The account has no credit, or the key may not use the model."""


class ContentPolicyError(RemoteError):
    """The service refused the content, or flagged what it made."""


class RemoteValidationError(RemoteError):
    """The service refused a field of the request."""


class PartialFailureError(RemoteError):
    """Some jobs of a batch failed.

    Attributes:
        errors: the failed jobs' errors, by the job's name, such as "picture 2, crop 1".
    """

    def __init__(self, message: str, errors: dict[str, OneRewardError]) -> None:
        super().__init__(message, may_be_billed=any(_may_be_billed(e) for e in errors.values()))
        self.errors = errors

    def __str__(self) -> str:
        """The message; each error in it says itself what was billed."""
        return str(self.args[0])


class LocalBackendError(OneRewardError):
    """The local model could not be loaded or run."""


class MissingDependencyError(LocalBackendError):
    """A package is not installed, is too old, or does not go with the others."""


class CheckpointError(LocalBackendError):
    """A model file is broken or belongs to another model family."""


class ModelNotFoundError(LocalBackendError):
    """A model file is not where it should be."""


def _may_be_billed(error: OneRewardError) -> bool:
    return isinstance(error, RemoteError) and error.may_be_billed
