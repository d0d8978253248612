"""What can go wrong, as one tree. A message says what was wrong, with the value, and what to do.

OneRewardError
|-- InputError                  a picture, mask, size or setting is refused (also a ValueError)
|-- LocalBackendError           the model on this machine
    |-- MissingDependencyError  a package is not installed; carries the exact pip command
    |-- CheckpointError         a model file is not what it should be
    |-- ModelNotFoundError      a model file is not there

Interruption is ComfyUI's own exception and stands outside this tree.
"""

from __future__ import annotations


class OneRewardError(Exception):
    """Base of every error the pack raises on purpose."""


class InputError(OneRewardError, ValueError):
    """The caller's picture, mask, size or setting breaks a rule; nothing was run or written."""


class LocalBackendError(OneRewardError):
    """The local model could not be loaded or run."""


class MissingDependencyError(LocalBackendError):
    """A package the local backend needs is not installed."""


class CheckpointError(LocalBackendError):
    """A model file is broken or belongs to another model family."""


class ModelNotFoundError(LocalBackendError):
    """A model file is not where it should be."""
