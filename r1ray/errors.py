"""Every failure that r1ray raises by name.

The tree follows what is to be done about a failure, because that is what callers decide on:

    R1RayError
    |- ConfigError         the user must change something; refused at start, exit code 2
    |- InfrastructureError a process, a machine or a network failed; retry elsewhere
    |- DataError           one prompt or sample is at fault; drop it with its reason
    |- WorkersCannotStart  every rollout worker fails to start with the same error; the user must change something
    |- NoTrainableGroups   no group can be trained on; the user must change rewards or data, exit code 4
    |- NumericError        NaN or Inf in the loss or gradients; skip, or roll back
    `- IntegrityError      the run folder or a wire message is not what it must be; stop

Each message says what happened, to what, and what to do.
"""

from __future__ import annotations


class R1RayError(Exception):
    """Base of all named failures. `exit_code` is what the command line returns for it."""

    exit_code = 1


class ConfigError(R1RayError):
    """Bad input known at start: the message names the key or file, its value and what would be right."""

    exit_code = 2


class InfrastructureError(R1RayError):
    """A process, node or connection failed. Retrying elsewhere may help."""


class DeadlineExceeded(InfrastructureError):
    """A wait ran past its deadline; the message names what was waited for and the key that sets the deadline."""


class ProcessDied(InfrastructureError):
    """A process of the run is gone; the message names it."""


class WeightSyncError(InfrastructureError):
    """A worker did not take part in a whole weight sync, or answered with another digest."""


class ServedWeightsDiffer(InfrastructureError):
    """A worker serves weights other than it received; it must not generate again."""


class DiskFull(InfrastructureError):
    """The volume that holds the ledger has no room left; the transaction was undone as a whole."""


class RetryBudgetExhausted(R1RayError):
    """Failures of one class used up their configured budget; the message says which and why."""


class StageFailed(R1RayError):
    """The process of a recipe's stage ended badly; `exit_code` is what it ended with."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DataError(R1RayError):
    """One prompt or sample is at fault."""


class VerifierError(DataError):
    """A verifier could not judge a sample (time-out, crash); never the same as reward zero."""


class VerifierTimeout(VerifierError):
    """No verdict within the wall-clock limit; the process that worked on it was killed."""


class VerifierCrash(VerifierError):
    """The verifier raised an exception, ran out of memory, or its process died."""


class RequestRefused(VerifierError):
    """An endpoint refused a request as such (a status from 400 on that asking again does not mend)."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status  # of HTTP; the default is for unpickling, which sets it afterwards


class WorkersCannotStart(R1RayError):
    """Every rollout worker failed to start with the same error before one was ready; the message gives it."""


class NoTrainableGroups(R1RayError):
    """Every group is dropped: rewards fail on every sample, or their values never differ. The message gives the reasons."""

    exit_code = 4


class NumericError(R1RayError):
    """NaN or Inf where a finite number is needed."""


class IntegrityError(R1RayError):
    """Data on disk or on the wire breaks an invariant. Nothing was changed."""

    exit_code = 3


class WireError(IntegrityError):
    """A message cannot be decoded: unknown version, missing field, wrong length."""
