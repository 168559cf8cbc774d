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
from dataclasses import dataclass, field
from typing import Any

from r1ray.config.schema import SyncConfig
from r1ray.control.calls import Gathered, Remote, gather
from r1ray.control.learners import TRANSIENT_ERRORS
from r1ray.errors import InfrastructureError, WeightSyncError
from r1ray.transport.channel import Rendezvous

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
        self._call_off = abort
        self._tick = tick
        self._epoch = 0
        self._members: tuple[str, ...] | None = None  # of the group that stands; None: there is none

    def break_group(self) -> None:
        """The learner was restarted: the old group's sending end is gone."""
        self._members = None

    def publish(self, learners: Sequence[Remote], workers: Mapping[str, Remote], version: int) -> SyncReport:
        """Publish `version` to `workers`. Raises InfrastructureError where the learner itself failed."""
        began = time.monotonic()
        waiting = dict(workers)
        synced: dict[str, Any] = {}
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
        self, learners: Sequence[Remote], workers: Mapping[str, Remote], version: int
    ) -> tuple[str, Gathered[str], str | None]:
        """What was sent (its digest), what came of it at each worker, and the worker that failed before any other did."""
        members = tuple(sorted(workers))
        rendezvous: Rendezvous | None = None
        if members != self._members:
            self._epoch += 1
            processes = len(members) * self._processes
            what = "the learner to open a weight-sync group (sync.deadline_s)"
            rendezvous = self._ask(learners[0], "open_epoch", self._epoch, processes, what=what)
        specs, bucket_bytes = self._specs(learners[0])
        sending = {r.name: r.call("publish", version) for r in learners}
        receiving = {
            name: workers[name].call(
                "receive_weights",
                version=version,
                group=None if rendezvous is None else (rendezvous, 1 + i * self._processes),
                specs=specs,
                bucket_bytes=bucket_bytes,
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
                self._call_off(rendezvous, f"{name}: {error}")

        done = gather(
            {**sending, **receiving},
            deadline_s=self._config.deadline_s + GRACE_S,
            what=f"weight sync of policy {version}, epoch {self._epoch} (sync.deadline_s)",
            tick=self._tick,
            failed=missed,
        )
        for rank in learners:
            error = done.failures.pop(rank.name, None)
            if error is not None and not isinstance(error, WeightSyncError):
                raise _of_learner(rank.name, error)
        sent = {r.name: done.results.pop(r.name, None) for r in learners}
        if not done.failures and None not in sent.values():
            self._members = members
        whole = sent[learners[0].name]
        if whole is None:  # what workers answered cannot be checked against anything
            unsure = {n: WeightSyncError("the learner did not finish sending") for n in done.results}
            return "", Gathered({}, {**done.failures, **unsure}), next(iter(failed), None)
        return whole.digest, done, next(iter(failed), None)

    def _specs(self, learner: Remote) -> tuple[Any, int]:
        if not hasattr(self, "_plan"):
            what = "the learner's list of weights (sync.deadline_s)"
            self._plan = self._ask(learner, "weight_specs", what=what)
        return self._plan, self._config.bucket_bytes

    def _ask(self, learner: Remote, method: str, *args: Any, what: str) -> Any:
        calls = {learner.name: learner.call(method, *args)}
        done = gather(calls, deadline_s=self._config.deadline_s, what=what, tick=self._tick)
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
