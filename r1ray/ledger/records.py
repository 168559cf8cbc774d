"""What goes in and out of the ledger, besides the wire types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from r1ray.errors import ConfigError
from r1ray.types import GroupSummary

GroupState = Literal["leased", "scored", "taken", "trained", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The rules of one ledger. Stored in it; `groups_per_step` is fixed for good, the others may change on resume."""

    groups_per_step: int  # B
    max_staleness: int  # s, in steps
    lease_timeout_s: float
    max_attempts: int  # leases of one prompt that may fail by the prompt's own fault
    stale_policy: Literal["requeue", "drop"] = "requeue"  # what becomes of the prompt of a group that got too old
    dynamic_sampling: bool = False  # drop groups whose rewards are all equal
    keep_payload_steps: int | None = None  # None: all
    reserve_after_stale: int = (
        1  # stale groups of a prompt after which a step waits for its next group; 0: for every group
    )
    max_requeues: int = 10  # leases of one prompt that may lapse or lose their worker

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
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        if self.lease_timeout_s <= 0:
            raise ConfigError(f"lease_timeout_s is {self.lease_timeout_s}; it must be positive")
        if self.stale_policy not in ("requeue", "drop"):
            raise ConfigError(f"stale_policy is {self.stale_policy!r}; it must be 'requeue' or 'drop'")

    def capacity(self, version: int, admitted: int) -> int:
        """How many groups a worker that serves `version` may still lease: (s + w + 1) * B - admitted, at least 0.

        The last group that a worker of version w may begin is number (s + w + 1) * B in the order of admission.
        Completed in that order it belongs to step s + w, where its staleness is just s.
        """
        return max(0, (self.max_staleness + version + 1) * self.groups_per_step - admitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One prompt index lent to one worker. Producer: ledger. Consumer: RolloutWorker."""

    group_id: str  # "<index>-<attempt>"
    index: int
    attempt: int  # from 1
    deadline: float  # seconds since the epoch


class PutOutcome(StrEnum):
    """What the ledger did with a scored group."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # judged before; nothing changed
    LATE = "late"  # its lease lapsed and a later attempt took over, or the prompt was given up; nothing changed
    NO_SIGNAL = "no_signal"  # all rewards equal: dropped, another prompt takes its place
    FAILED = "failed"  # a score has an error: dropped, leased again until max_attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What `rollback` undid."""

    policy_version: int  # the policy that training goes on from
    steps: tuple[int, ...]  # will be trained again, on the same groups
    groups: int  # in those steps
    trained_groups: int  # of them, trained and committed before


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """Where the groups are. Counts are of groups unless they say prompts, indices or steps."""

    settings: LedgerSettings
    cursor: int  # indices below were leased at least once
    queued: int  # prompts that wait to be leased again
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
    dropped_prompts: int  # given up for good
    reissued: int  # dropped groups whose prompt was leased again
    bound_steps: int  # steps that have their batch; also the next step to take
    trained_steps: int
    trained_frontier: int  # every index below is trained or given up
    awaited: int  # reserved groups in flight that the next step waits for
    oldest_lease_s: float | None  # age
    oldest_lease_group: str | None
    oldest_lease_worker: str | None

    @property
    def admitted(self) -> int:
        """Groups that count against the staleness bound: in flight, scored, taken or trained."""
        return self.leased + self.scored + self.taken + self.trained

    def capacity(self, version: int) -> int:
        """Groups that a worker which serves `version` may still lease."""
        return self.settings.capacity(version, self.admitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """One group as `inspect` shows it."""

    group_id: str
    index: int
    attempt: int
    state: GroupState
    step: int | None  # the step it is bound to
    reason: str | None  # why it was dropped
    worker_id: str
    version: int  # served by the worker when it leased
    leased_at: float  # seconds since the epoch
    scored_at: float | None
    summary: GroupSummary | None  # None until scored, and where a score has an error
    has_payload: bool
