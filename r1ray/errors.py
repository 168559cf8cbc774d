"""Exceptions of r1ray.

The tree is ordered by how callers react to a failure:

    R1RayError
    |- ConfigError         the user must change something; refused at start, exit code 2
    |- InfrastructureError a process, a machine or a network failed; retry elsewhere
    |- DataError           one prompt or sample is at fault; drop it with its reason
    |- EngineRefused       vLLM does not start with these settings; the worker is replaced a few times
    |- WorkersCannotStart  every rollout worker fails to start with the same error; the user must change something
    |- NoTrainableGroups   no group can be trained on; the user must change rewards or data, exit code 4
    |- NumericError        NaN or Inf in the loss or gradients; skip, or roll back
    `- IntegrityError      the run folder or a wire message breaks an invariant; stop

A message says what happened, to what, what was expected against what was found, and how to fix it.
"""

from __future__ import annotations


class R1RayError(Exception):
    """Base of r1ray's exceptions. `exit_code` is the exit code of a command that fails with it."""

    exit_code = 1


class ConfigError(R1RayError):
    """Wrong input, found at start: the message names the key or file, its value, and the expected values."""

    exit_code = 2


class InfrastructureError(R1RayError):
    """A process, node or connection failed. Retrying elsewhere may help."""


class DeadlineExceeded(InfrastructureError):
    """A wait exceeded its deadline; the message names the awaited event and the key of the deadline."""


class ProcessDied(InfrastructureError):
    """A process of the run died; the message names it."""


class WeightSyncError(InfrastructureError):
    """A worker did not complete a weight sync, or received weights with another digest."""


class ServedWeightsDiffer(InfrastructureError):
    """A worker serves other weights than it received; it must not generate again."""


class DiskFull(InfrastructureError):
    """A volume has no free space; the transaction or file that was being written is rolled back or removed."""


class RetryBudgetExhausted(R1RayError):
    """Failures of one class used up their configured budget; the message names its key and the last failure."""


class StageFailed(R1RayError):
    """The process of a recipe's stage failed; `exit_code` is that of the process."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DataError(R1RayError):
    """One prompt or sample is at fault."""


class VerifierError(DataError):
    """A verifier could not score a sample (timeout, crash), which is not the same as reward zero."""


class VerifierTimeout(VerifierError):
    """A verifier exceeded its time limit; its process was killed."""


class VerifierCrash(VerifierError):
    """The verifier raised an exception, ran out of memory, or its process died."""


class RequestRefused(VerifierError):
    """An endpoint refused a request with an HTTP status of 400 or above for which a retry is useless."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status  # HTTP status; the default is for unpickling, which sets the attribute afterwards


class EngineRefused(R1RayError):
    """vLLM did not accept its arguments or could not load the model; the message is vLLM's own error."""


class WorkersCannotStart(R1RayError):
    """Every rollout worker failed to start with the same error before one was ready;
    the message gives it, and the nodes.
    """


class NoTrainableGroups(R1RayError):
    """Every group is dropped: rewards fail on every sample, or their values never differ.

    The message has the reasons.
    """

    exit_code = 4


class NumericError(R1RayError):
    """NaN or Inf where a finite number is needed."""


class IntegrityError(R1RayError):
    """Data on disk or on the wire breaks an invariant. Nothing was changed."""

    exit_code = 3


class WireError(IntegrityError):
    """A message cannot be decoded: unknown version, missing field, wrong length."""


_ON_NODE = "on node "


def note_node(error: BaseException, address: str) -> None:
    """Add the address of the node on which `error` arose; it travels with the error to another process."""
    error.add_note(f"{_ON_NODE}{address}")


def node_of(error: BaseException) -> str | None:
    """The node that `note_node` has added; None: not known."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_ON_NODE)]
    return notes[-1].removeprefix(_ON_NODE) if notes else None
