"""Publish a policy to the rollout workers, whoever of them is alive.

    reconcile   the group of the next transfer is formed of the workers alive *now*; where membership changed or the last
                transfer failed, it is a new group under a new epoch. Where one of them dies before it has formed, it is
                called off for all
    transfer    the learner sends, every worker receives beside generation and applies between two engine steps
    check       each worker answers with the digest of what it received (and read back); another digest than the
                learner's takes it out

A transfer that fails is repeated without the workers that died, did not answer, or failed of something else than the transfer.
A worker left out serves its old policy, which the ledger's admission control knows, until it has taken part in a whole transfer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from r1ray.config.schema import SyncConfig
from r1ray.control.calls import Gathered, gather
from r1ray.control.handles import Handle, LearnerApi, RolloutApi
from r1ray.control.learners import TRANSIENT_ERRORS
from r1ray.errors import InfrastructureError, WeightSyncError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, TransferSpecs

R = TypeVar("R")

ATTEMPTS = 3
GRACE_S = 10.0
"""Lets a worker's own time-out name what it waited for before the controller's cuts it off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """One publication. `out` are workers that must be replaced, `stale` those that go on with their old policy."""

    version: int
    epoch: int
    digest: str
    synced: tuple[str, ...]
    stale: dict[str, str] = field(default_factory=dict)  # worker -> reason
    out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # the whole publication
    apply_s: float = 0.0  # slowest worker's stand-still
    digest_s: float = 0.0


class WeightSync:
    """Owns the epoch. `learners` are all ranks, rank 0 first: every rank takes part in gathering sharded weights."""

    def __init__(
        self,
        config: SyncConfig,
        *,
        processes: int,
        abort: Callable[[Rendezvous, str], object],
        tick: Callable[[], None],
    ) -> None:
        """`processes`: of each worker, all of which receive; `abort(rendezvous, reason)` ends a meeting that cannot
        come about any more."""
        self._config = config
        self._processes = processes
        self._abort = abort
        self._tick = tick
        self._epoch = 0
        self._members: tuple[str, ...] | None = None  # of the current group; None if there is none
        self._specs: TransferSpecs | None = None

    def break_group(self) -> None:
        """The learner was restarted: the old group's sending end is gone."""
        self._members = None

    def publish(
        self, learners: Sequence[Handle[LearnerApi]], workers: Mapping[str, Handle[RolloutApi]], version: int
    ) -> SyncReport:
        """Publish `version` to `workers`. Raises InfrastructureError where the learner itself failed."""
        began = time.monotonic()
        waiting = dict(workers)
        synced: dict[str, Applied] = {}
        stale: dict[str, str] = {}
        out: dict[str, str] = {}
        digest = ""
        failed_first: list[str] = []
        for _ in range(ATTEMPTS):
            if not waiting:
                break
            sent, done, first = self._transfer(learners, waiting, version)
            digest = sent or digest
            if first in failed_first and len(waiting) > 1:  # again: what fails it may fail the others' group each time
                waiting.pop(first)
            if first is not None:
                failed_first.append(first)
            for name, error in done.failures.items():
                if isinstance(error, WeightSyncError):  # it says that its old policy goes on
                    stale[name] = str(error)
                else:
                    waiting.pop(name, None)
                    stale.pop(name, None)
                    out[name] = f"{type(error).__name__} in a weight sync: {error}"
            for name, applied in done.results.items():
                waiting.pop(name)
                stale.pop(name, None)
                if sent and applied.digest and applied.digest != sent:
                    out[name] = f"received policy {version} with digest {applied.digest}, the learner sent {sent}"
                else:
                    synced[name] = applied
        return SyncReport(
            version=version,
            epoch=self._epoch,
            digest=digest,
            synced=tuple(sorted(synced)),
            stale=stale,
            out=out,
            seconds=time.monotonic() - began,
            apply_s=max((a.apply_s for a in synced.values()), default=0.0),
            digest_s=max((a.digest_s for a in synced.values()), default=0.0),
        )

    def _transfer(
        self, learners: Sequence[Handle[LearnerApi]], workers: Mapping[str, Handle[RolloutApi]], version: int
    ) -> tuple[str, Gathered[str, Applied], str | None]:
        """What was sent (its digest), what came of it at each worker, and the worker that failed before any other did."""
        members = tuple(sorted(workers))
        rendezvous: Rendezvous | None = None
        if members != self._members:
            self._epoch += 1
            processes = len(members) * self._processes
            what = "the learner to open a weight-sync group (sync.deadline_s)"
            opened = learners[0].start(LearnerApi.open_epoch, self._epoch, processes)
            rendezvous = self._await(learners[0], opened, what)
        specs = self._weight_specs(learners[0])
        sending = {r.name: r.start(LearnerApi.publish, version) for r in learners}
        receiving = {
            name: workers[name].start(
                RolloutApi.receive_weights,
                version=version,
                group=None if rendezvous is None else (rendezvous, 1 + i * self._processes),
                specs=specs,
                bucket_bytes=self._config.bucket_bytes,
                deadline_s=self._config.deadline_s,
            )
            for i, name in enumerate(members)
        }
        self._members = None  # until all of this went well

        failed: list[str] = []

        def missed(name: str, error: BaseException) -> None:
            if name in receiving:
                failed.append(name)
            if rendezvous is not None and name in receiving and not sending[learners[0].name].done():
                self._abort(rendezvous, f"{name}: {error}")

        calls: dict[str, Future[Any]] = {**sending, **receiving}
        done = gather(
            calls,
            deadline_s=self._config.deadline_s + GRACE_S,
            what=f"weight sync of policy {version}, epoch {self._epoch} (sync.deadline_s)",
            tick=self._tick,
            on_failure=missed,
        )
        for rank in learners:
            error = done.failures.pop(rank.name, None)
            if error is not None and not isinstance(error, WeightSyncError):
                raise _of_learner(rank.name, error)
        applied = {name: call.result() for name, call in receiving.items() if name in done.results}
        first = next(iter(failed), None)
        if not done.failures and all(rank.name in done.results for rank in learners):
            self._members = members
        if learners[0].name not in done.results:  # there is no digest to check the workers' answers against
            unchecked = {n: WeightSyncError("the learner did not finish sending") for n in applied}
            return "", Gathered({}, {**done.failures, **unchecked}), first
        return sending[learners[0].name].result().digest, Gathered(applied, done.failures), first

    def _weight_specs(self, learner: Handle[LearnerApi]) -> TransferSpecs:
        """Asked for once: the weights of a run keep their names, dtypes and shapes."""
        if self._specs is None:
            what = "the learner's list of weights (sync.deadline_s)"
            self._specs = self._await(learner, learner.start(LearnerApi.weight_specs), what)
        return self._specs

    def _await(self, learner: Handle[LearnerApi], call: Future[R], what: str) -> R:
        done = gather({learner.name: call}, deadline_s=self._config.deadline_s, what=what, tick=self._tick)
        for error in done.failures.values():
            raise _of_learner(learner.name, error)
        return done.results[learner.name]


def _of_learner(name: str, error: BaseException) -> BaseException:
    """What the learner raised; as an InfrastructureError where a new one may not meet it. What `tick` raises is nobody's here."""
    if not isinstance(error, TRANSIENT_ERRORS) or isinstance(error, InfrastructureError):
        return error
    named = InfrastructureError(f"{name}: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named
