"""Arguments and results of the ledger's calls, besides the wire types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from r1ray.errors import ConfigError
from r1ray.types import GroupSummary

NO_STALENESS = 2**31 - 1
"""`max_staleness` of a ledger whose groups have none: those of a recorded run."""

GroupState = Literal["leased", "scored", "taken", "trained", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The rules of one ledger, stored in it. `groups_per_step` cannot change; the others may change on resume."""

    groups_per_step: int  # B
    max_staleness: int  # s, in steps
    lease_timeout_s: float
    max_attempts: int  # failures of one prompt, by its own fault, after which it is given up
    stale_policy: Literal["requeue", "drop"] = "requeue"  # what happens to the prompt of a group that got too old
    dynamic_sampling: bool = False  # drop groups whose rewards are all equal
    keep_payload_steps: int | None = None  # None: all
    reserve_after_stale: int = 1  # stale groups of a prompt after which a step waits for its next one; 0: for all
    max_requeues: int = 10  # leases of one prompt that expire or lose their worker, after which it is given up

    def __post_init__(self) -> None:
        lowest: tuple[tuple[str, float | None, float], ...] = (
            ("groups_per_step", self.groups_per_step, 1),
            ("max_staleness", self.max_staleness, 0),
            ("max_attempts", self.max_attempts, 1),
            ("max_requeues", self.max_requeues, 1),
            ("reserve_after_stale", self.reserve_after_stale, 0),
            ("keep_payload_steps", self.keep_payload_steps, 0),
        )
        for name, value, least in lowest:
            if value is not None and value < least:
                raise ConfigError(f"{name}: expected at least {least}, got {value}")
        if self.lease_timeout_s <= 0:
            raise ConfigError(f"lease_timeout_s: expected a positive number, got {self.lease_timeout_s}")
        if self.stale_policy not in ("requeue", "drop"):
            raise ConfigError(f"stale_policy: expected 'requeue' or 'drop', got {self.stale_policy!r}")

    def capacity(self, version: int, admitted: int) -> int:
        """How many groups a worker that serves `version` may still lease: (s + w + 1) * B - admitted, at least 0.

        The last group that a worker of version w may begin is number (s + w + 1) * B in the order of admission. If
        groups complete in that order, it is trained in step s + w, with staleness s.
        """
        return max(0, (self.max_staleness + version + 1) * self.groups_per_step - admitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One prompt index leased to one worker. Producer: ledger. Consumer: RolloutWorker."""

    group_id: str  # "<index>-<attempt>"
    index: int
    attempt: int  # from 1
    deadline: float  # seconds since the epoch


class PutOutcome(StrEnum):
    """What the ledger did with a scored group."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # settled before; nothing changed
    LATE = "late"  # its lease expired and the prompt was leased again or given up; nothing changed
    NO_SIGNAL = "no_signal"  # all rewards equal: dropped, another prompt takes its place
    FAILED = "failed"  # a score has an error: dropped, leased again until max_attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """The steps that `rollback` undid."""

    policy_version: int  # the policy that training continues from
    steps: tuple[int, ...]  # will be trained again, on the same groups
    groups: int  # in those steps
    trained_groups: int  # of them, trained and committed before


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCopy:
    """A complete copy of the ledger in the run folder."""

    copied_at: float  # seconds since the epoch, by the queue's clock
    bound_steps: int  # steps whose batches it knows
    trained_steps: int
    size: int  # bytes
    seconds: float  # that writing it took; 0 if an earlier process wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyState:
    """The copies of a ledger that lies outside the run folder."""

    last: WrittenCopy | None  # the last complete one
    age_s: float | None  # of `last`
    problem: str | None  # why newer ones fail; None if the last attempt succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOpened:
    """How the queue came by its ledger."""

    source: Literal["found", "created", "restored"]
    host: str
    path: str
    copied_at: float | None  # of the copy that it was restored from, seconds since the epoch
    stored: int  # groups that are scored, taken or trained
    bound_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """Where the groups are. Counts are of groups unless the comment says prompts, indices or steps."""

    settings: LedgerSettings
    cursor: int  # indices below were leased at least once
    queued: int  # prompts waiting to be leased again
    leased: int
    scored: int
    ready: int  # scored and not bound to a step
    taken: int
    trained: int
    dropped: int
    dropped_by_reason: dict[str, int]
    rejected_by_reason: dict[
        str, int
    ]  # of these, dropped for their own content: a failed score or prompt, or no signal
    accepted: int  # groups that were stored to be trained on, whatever happened to them since
    dropped_prompts: int  # prompts given up
    reissued: int  # dropped groups whose prompt was leased again
    bound_steps: int  # steps that have a batch; also the next step to take
    trained_steps: int
    trained_frontier: int  # every index below it is trained or given up
    awaited: int  # reserved groups in flight that the next step waits for
    oldest_lease_s: float | None  # age
    oldest_lease_group: str | None
    oldest_lease_worker: str | None
    copy: CopyState | None = None  # None: the ledger lies in the run folder
    free_bytes: int | None = None  # on the disk of run.ledger_dir; None: the ledger lies in the run folder

    @property
    def admitted(self) -> int:
        """Groups that count against the staleness bound: in flight, scored, taken or trained."""
        return self.leased + self.scored + self.taken + self.trained

    def capacity(self, version: int) -> int:
        """How many groups a worker that serves `version` may still lease."""
        return self.settings.capacity(version, self.admitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """When a step was taken, published and saved, in seconds since the epoch. Producer: ledger. Consumer: `trace`."""

    bound_at: float  # its batch was taken
    published_at: float | None  # its policy was first served, after that
    committed_at: float | None  # a checkpoint has it


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """One group as `inspect` shows it."""

    group_id: str
    index: int
    attempt: int
    state: GroupState
    step: int | None  # that it is bound to
    reason: str | None  # why it was dropped
    worker_id: str
    version: int  # served by the worker when it leased
    leased_at: float  # seconds since the epoch
    scored_at: float | None
    summary: GroupSummary | None  # None until scored, and if a score has an error
    has_payload: bool
