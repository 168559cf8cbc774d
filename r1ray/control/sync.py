"""Publish a policy to all rollout workers that are alive.

    reconcile   the group of the next transfer consists of the workers alive *now*; if membership changed or the last
                transfer failed, it is a new group under a new epoch
    transfer    the learner sends, every worker receives while it generates and applies between two engine steps
    check       each worker answers with the digest of what it received (and read back); a worker with another digest
                than the learner's is taken out

As soon as one member fails, the group is aborted for all others, which would wait for it until their deadlines. The
transfer is then repeated without workers that died, did not answer, or failed for another reason than the transfer
itself. A worker that is left out serves its old policy, which the ledger's admission control knows, until it has
completed a sync. A run that is about to end abandons its sync: the checkpoint must not wait for a worker that hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from r1ray.config.schema import SyncConfig
from r1ray.control.calls import Gathered, gather
from r1ray.control.handles import Handle, LearnerApi, RolloutApi
from r1ray.control.learners import TRANSIENT_ERRORS
from r1ray.errors import InfrastructureError, ServedWeightsDiffer, WeightSyncError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, Sent, WeightLayout, together

R = TypeVar("R")

ATTEMPTS = 3
GRACE_S = 10.0
"""Lets a worker's own timeout, which names what it waited for, pass before the controller's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """One publication. `out` are workers that must be replaced, `stale` those that continue with their old policy."""

    version: int
    epoch: int
    digest: str
    synced: tuple[str, ...]
    stale: dict[str, str] = field(default_factory=dict)  # worker -> reason
    out: dict[str, str] = field(default_factory=dict)
    retried: tuple[tuple[str, str], ...] = ()  # process -> reason, for each failed transfer: the first failure in it
    wire_bytes: int = 0  # to each synced worker
    seconds: float = 0.0  # the whole publication
    apply_s: float = 0.0  # longest pause of generation of a worker
    digest_s: float = 0.0
    recomputed_tokens: int = 0  # of all workers

    def metrics(self) -> dict[str, float]:
        """Its metrics, see docs/run-folder.md."""
        return {
            "sync/seconds": self.seconds,
            "sync/apply_s": self.apply_s,
            "sync/digest_s": self.digest_s,
            "sync/bytes": float(self.wire_bytes),
            "sync/recomputed_tokens": float(self.recomputed_tokens),
            "sync/workers": float(len(self.synced)),
        }


class _RunEndsError(Exception):
    """A stop was requested, and the transfer is abandoned."""


class WeightSync:
    """Owns the epoch. `learners` are all ranks, rank 0 first: every rank takes part in gathering sharded weights, and
    with `sync.senders: all` every rank sends."""

    def __init__(
        self,
        config: SyncConfig,
        *,
        processes: int,
        abort: Callable[[Rendezvous, str], object],
        tick: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        """`processes`: receiving processes of each worker. `abort(rendezvous, reason)` ends a group for all members.
        `stopping()`: whether the run ends soon."""
        self._config = config
        self._processes = processes
        self._abort = abort
        self._tick = tick
        self._stopping = stopping
        self._epoch = 0
        self._members: tuple[str, ...] | None = None  # of the current group; None if there is none
        self._rendezvous: Rendezvous | None = None  # of the current group
        self._layout: WeightLayout | None = None

    def break_group(self) -> None:
        """The learner was restarted: the old group's sending end is gone."""
        self._members = None

    def publish(
        self, learners: Sequence[Handle[LearnerApi]], workers: Mapping[str, Handle[RolloutApi]], version: int
    ) -> SyncReport:
        """Publish `version` to `workers`, to none of them if the run ends. Raises InfrastructureError if the learner
        itself failed."""
        began = time.monotonic()
        waiting = dict(workers)
        synced: dict[str, Applied] = {}
        stale: dict[str, str] = {}
        out: dict[str, str] = {}
        digest, wire_bytes = "", 0
        retried: list[tuple[str, str]] = []
        for _ in range(ATTEMPTS):
            if not waiting or self._stopping():
                break
            try:
                sent, done, first = self._transfer(learners, waiting, version)
            except _RunEndsError:
                break
            if sent is not None:
                digest, wire_bytes = sent.digest, sent.wire_bytes
            if first is not None:
                if len(waiting) > 1 and any(first[0] == name for name, _ in retried):
                    waiting.pop(
                        first[0], None
                    )  # it failed first again: it would fail the group of the others each time
                retried.append(first)
            for name, error in done.failures.items():
                if isinstance(error, WeightSyncError):  # the worker continues with its old policy
                    stale[name] = str(error)
                else:
                    waiting.pop(name, None)
                    stale.pop(name, None)
                    out[name] = f"{type(error).__name__} in a weight sync: {error}"
            for name, applied in done.results.items():
                waiting.pop(name)
                stale.pop(name, None)
                if sent is not None and sent.digest and applied.digest and applied.digest != sent.digest:
                    out[name] = (
                        f"received policy {version} with digest {applied.digest}, the learner sent {sent.digest}"
                    )
                else:
                    synced[name] = applied
        return SyncReport(
            version=version,
            epoch=self._epoch,
            digest=digest,
            synced=tuple(sorted(synced)),
            stale=stale,
            out=out,
            retried=tuple(retried),
            wire_bytes=wire_bytes,
            seconds=time.monotonic() - began,
            apply_s=max((a.apply_s for a in synced.values()), default=0.0),
            digest_s=max((a.digest_s for a in synced.values()), default=0.0),
            recomputed_tokens=sum(a.recomputed_tokens for a in synced.values()),
        )

    def _transfer(
        self, learners: Sequence[Handle[LearnerApi]], workers: Mapping[str, Handle[RolloutApi]], version: int
    ) -> tuple[Sent | None, Gathered[str, Applied], tuple[str, str] | None]:
        """What was sent, each worker's outcome, and the process that failed first with its error."""
        members = tuple(sorted(workers))
        rendezvous: Rendezvous | None = None
        if members != self._members:
            self._epoch += 1
            processes = len(members) * self._processes
            what = "the learner to open a weight-sync group (sync.deadline_s)"
            opened = learners[0].start(LearnerApi.open_epoch, self._epoch, processes)
            rendezvous = self._rendezvous = self._await(learners[0], opened, what)
        senders = learners if self._config.senders == "all" else learners[:1]
        layout = self._weight_layout(senders)
        sending = {r.name: r.start(LearnerApi.publish, version, rendezvous) for r in learners}
        receiving = {
            name: workers[name].start(
                RolloutApi.receive_weights,
                version=version,
                group=None if rendezvous is None else (rendezvous, 1 + i * self._processes),
                layout=layout,
                bucket_bytes=self._config.bucket_bytes,
                deadline_s=self._config.deadline_s,
            )
            for i, name in enumerate(members)
        }
        self._members = None  # until the whole transfer has succeeded
        done = self._gather(sending, receiving, version)
        first = next(((name, _cause(error)) for name, error in done.failures.items()), None)
        for rank in learners:
            done.failures.pop(rank.name, None)
        applied = {name: call.result() for name, call in receiving.items() if name in done.results}
        if first is None:
            self._members = members
        if any(rank.name not in done.results for rank in senders):  # no digest to check the workers' answers against
            unchecked = {n: WeightSyncError("the learner did not finish sending") for n in applied}
            return None, Gathered({}, {**done.failures, **unchecked}), first
        return together([sending[r.name].result() for r in senders]), Gathered(applied, done.failures), first

    def _gather(
        self, sending: Mapping[str, Future[Sent]], receiving: Mapping[str, Future[Applied]], version: int
    ) -> Gathered[str, Any]:
        """The outcome of each call; the first failure ends the transfer of all. Raises what a lost learner raised."""

        sender = next(iter(sending))
        aborted = False

        def failed(name: str, error: BaseException) -> None:
            nonlocal aborted
            lost = name in sending and not isinstance(error, WeightSyncError)
            # The store of a lost sender is gone, which its receivers notice. A worker that applied wrong weights has
            # received all of them: the others do not wait for it.
            needless = aborted or (lost and name == sender) or isinstance(error, ServedWeightsDiffer)
            if self._rendezvous is not None and not needless:
                aborted = True
                self._abort(self._rendezvous, f"{name}: {_cause(error)}")
            if lost:
                raise _of_learner(name, error)

        def tick() -> None:
            self._tick()
            if self._stopping():
                raise _RunEndsError

        calls: dict[str, Future[Any]] = {**sending, **receiving}
        what = f"weight sync of policy {version}, epoch {self._epoch} (sync.deadline_s)"
        deadline = self._config.deadline_s + GRACE_S
        try:
            done = gather(calls, deadline_s=deadline, what=what, tick=tick, on_failure=failed)
        except _RunEndsError:
            if self._rendezvous is not None and not aborted:
                self._abort(self._rendezvous, "the run ends")
            _raise_lost(sending, gather(sending, deadline_s=deadline, what=what, tick=self._tick))
            raise
        _raise_lost(sending, done)
        return done

    def _weight_layout(self, senders: Sequence[Handle[LearnerApi]]) -> WeightLayout:
        """Requested once: the weights of a run keep their names, dtypes, shapes and senders."""
        if self._layout is None:
            what = "the learner's list of weights (sync.deadline_s)"
            weights = self._await(senders[0], senders[0].start(LearnerApi.weight_specs), what)
            shares = [(rank, rank.start(LearnerApi.weight_shares)) for rank in senders]
            self._layout = WeightLayout(
                weights=weights, shares=[self._await(rank, asked, what) for rank, asked in shares]
            )
        return self._layout

    def _await(self, learner: Handle[LearnerApi], call: Future[R], what: str) -> R:
        done = gather({learner.name: call}, deadline_s=self._config.deadline_s, what=what, tick=self._tick)
        for error in done.failures.values():
            raise _of_learner(learner.name, error)
        return done.results[learner.name]


def _raise_lost(learners: Iterable[str], done: Gathered[str, Any]) -> None:
    """Raise what a learner rank failed with, unless that was the transfer itself."""
    for name in learners:
        error = done.failures.get(name)
        if error is not None and not isinstance(error, WeightSyncError):
            raise _of_learner(name, error)


def _cause(error: BaseException) -> str:
    return str(error) if isinstance(error, WeightSyncError) else f"{type(error).__name__}: {error}"


def _of_learner(name: str, error: BaseException) -> BaseException:
    """The error of a learner rank; an InfrastructureError if a restarted learner may not meet it again.

    Exceptions raised by `tick` are not attributed to the learner.
    """
    if not isinstance(error, TRANSIENT_ERRORS) or isinstance(error, InfrastructureError):
        return error
    named = InfrastructureError(f"{name}: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named
