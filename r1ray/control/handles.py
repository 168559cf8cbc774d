"""Typed handles of the processes of a run: what the control loop may call on each of them.

Each kind of process has a protocol, which its plain class in `actors/` or `learner/` implements. A `Handle` of that
protocol starts a method in the process and returns a future:

    manifest = queue.start(QueueApi.take, step, 2.0)      # Future[BatchManifest | None]

The method is passed, not its name: mypy checks it, its arguments, its result, and that the plain class has it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, NotRequired, ParamSpec, Protocol, TypedDict, TypeVar, overload

from r1ray.ledger.records import CopyState, Lease, LedgerOpened, LedgerStatus, RolledBack
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, Sent, Share, TransferSpecs, WeightLayout
from r1ray.types import BatchManifest, Sampling

Api = TypeVar("Api", covariant=True)
Params = ParamSpec("Params")
R = TypeVar("R")
Group = tuple[Rendezvous, int]
"""A weight-sync group to enter, and the first rank of the process in it."""


class Place(TypedDict):
    """Where a process runs."""

    pid: int
    node: str  # Ray's node id


class Identity(Place):
    """The answer of an actor to a health check."""

    problem: NotRequired[str | None]  # why its calls fail at present, if they do
    rss_bytes: NotRequired[int]  # its resident memory


class WorkerInfo(TypedDict):
    """The answer of a rollout worker that is ready."""

    place: Place
    evaluation: dict[str, int]  # source -> number of problems
    dropped: dict[str, dict[str, int]]  # source -> reason -> number of problems
    left_out: dict[str, dict[str, int]]  # training source -> reason -> number of rows


class LoadedCheckpoint(TypedDict):
    """The checkpoint that a rank has loaded; both None if there is none."""

    policy_version: int | None
    name: str | None
    warnings: list[str]  # one for each checkpoint that was skipped


class ManagedApi(Protocol):
    """What every actor that Ray restarts offers."""

    def identity(self) -> Identity:
        """Answer a health check."""
        ...


class RankProfile(TypedDict):
    """What a learner rank recorded of the profiled steps."""

    seconds: dict[str, float]  # by phase (`r1ray.run.profile.PHASES`), over all of them
    problem: str | None  # why its trace was not written


class QueueApi(ManagedApi, Protocol):
    """The replay queue (`actors.queue.QueueOwner`). Every method may be repeated safely."""

    async def open(self) -> LedgerOpened:
        """Find, restore or create the ledger; before every other call of a driver."""
        ...

    async def lease(self, worker_id: str, version: int, groups: int, held: list[str], wait_s: float) -> list[Lease]:
        """Lease up to `groups` prompts; waits up to `wait_s` for the first."""
        ...

    async def stop_leasing(self) -> None:
        """Lease no prompt from now on."""
        ...

    async def serving(self, worker_id: str, version: int) -> None:
        """Record that the worker serves policy `version`."""
        ...

    async def fail(self, group_id: str, reason: str, infrastructure: bool) -> None:
        """End a lease whose prompt cannot be answered."""
        ...

    async def release_worker(self, worker_id: str, drained: bool) -> list[str]:
        """Return the leases of a worker that died or left."""
        ...

    async def release_all(self) -> list[str]:
        """Return every lease."""
        ...

    async def put(self, payloads: list[bytes], atomic: bool) -> list[str]:
        """Store scored groups; the outcome of each by name."""
        ...

    async def take(self, step: int, wait_s: float) -> BatchManifest | None:
        """The batch of `step`, or None if it is not complete after `wait_s`."""
        ...

    async def payloads(self, group_ids: list[str]) -> list[bytes]:
        """The packed groups, in order."""
        ...

    async def publish(self, version: int, incarnation: int, digest: str) -> None:
        """Record that policy `version` is served."""
        ...

    async def next_incarnation(self) -> int:
        """Count a start of the learner."""
        ...

    async def commit(self, policy_version: int, checkpoint: str, unknown: Sequence[BatchManifest] = ()) -> None:
        """Mark the groups of all steps below `policy_version` as trained; `unknown`: see `Ledger.commit`."""
        ...

    async def finish_copy(self) -> CopyState | None:
        """Wait for a copy of the present ledger in the run folder; None if there are no copies."""
        ...

    async def rollback(self, policy_version: int) -> RolledBack:
        """Return the groups of later steps to the queue."""
        ...

    async def status(self) -> LedgerStatus:
        """Counts by state, and the oldest lease."""
        ...


class RewardApi(ManagedApi, Protocol):
    """A reward worker (`actors.reward.RewardWorker`)."""

    def score(self, groups: list[bytes]) -> list[bytes]:
        """Score packed rollout groups, in order."""
        ...

    def score_and_put(self, groups: list[bytes], atomic: bool) -> list[str]:
        """Score groups and store them in the queue; the outcome of each by name."""
        ...


class RolloutApi(Protocol):
    """A rollout worker (`actors.remote.RolloutActor`)."""

    def start(self) -> WorkerInfo:
        """Load the model and begin to lease."""
        ...

    def receive_weights(
        self, *, version: int, group: Group | None, layout: WeightLayout, bucket_bytes: int, deadline_s: float
    ) -> Applied:
        """Receive and apply policy `version`. Raises WeightSyncError or ServedWeightsDiffer."""
        ...

    def evaluate(
        self, source: str, start: int, stop: int, sampling: Sampling, n: int, deadline_s: float
    ) -> list[bytes]:
        """Sample and score problems [start, stop) of a source; packed scored groups in order."""
        ...

    def stats(self) -> dict[str, float]:
        """Counters and gauges, see `actors.rollout.RolloutWorker.stats`."""
        ...

    def drain(self, deadline_s: float) -> None:
        """Lease nothing more, finish and deliver the groups in progress."""
        ...


class GroupApi(Protocol):
    """One of several processes that form a group. After `listen`, every method is a collective: all ranks call it in
    the same order."""

    def address(self) -> str:
        """Address of the process's node."""
        ...

    def listen(self, host: str) -> int:
        """Open the ranks' rendezvous at `host`, if this is rank 0; returns its port, 0 for other ranks."""
        ...

    def setup(self, host: str, port: int) -> dict[str, Any]:
        """Join the other ranks and load the model; holds at least `place: Place`."""
        ...


class RankApi(GroupApi, Protocol):
    """One rank of any training."""

    def load_latest(self, folder: str, run_id: str) -> LoadedCheckpoint:
        """Load the newest complete checkpoint below `folder`, if there is one."""
        ...

    def save_checkpoint(self, folder: str, run_id: str) -> None:
        """Write a checkpoint. Raises DiskFull."""
        ...

    def discard_checkpoints(self, folder: str, newer_than: int) -> None:
        """Remove checkpoints of policies newer than `newer_than`."""
        ...

    def prune_checkpoints(self, folder: str) -> None:
        """Remove old checkpoints as `checkpoint.keep` and `checkpoint.keep_every_steps` say."""
        ...

    def export(self, folder: str) -> None:
        """Write the trained model."""
        ...


class LearnerApi(RankApi, Protocol):
    """A rank of policy optimisation (`learner.policy.PolicyRank`)."""

    def train_step(self, manifest: BatchManifest) -> dict[str, float]:
        """Train on the groups of the manifest; metrics by name."""
        ...

    def start_profile(self) -> None:
        """Record the next steps with torch's profiler."""
        ...

    def stop_profile(self, folder: str) -> RankProfile:
        """Record no more, and write the trace into `folder`."""
        ...

    def weight_specs(self) -> TransferSpecs:
        """Name, dtype and shape of each weight."""
        ...

    def weight_shares(self) -> Sequence[Share]:
        """What this rank sends of them, in its order."""
        ...

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        """Open the rendezvous of a new weight-sync group of `receivers` processes. Rank 0 only."""
        ...

    def publish(self, version: int, group: Rendezvous | None) -> Sent:
        """Send the weights of policy `version`, to a new `group` if there is one. Raises WeightSyncError."""
        ...


class SupervisedApi(RankApi, Protocol):
    """A rank that trains on fixed rows (`learner.supervised.SupervisedRank`).

    Its `setup` also returns `steps: int` and `data`, the facts of its rows.
    """

    def train_step(self) -> dict[str, float]:
        """Train the next step; metrics by name."""
        ...

    def evaluate(self) -> list[dict[str, Any]]:
        """Metrics of each held-out source, which `source` names."""
        ...


class Handle(abc.ABC, Generic[Api]):
    """One process of the run that implements `Api`."""

    name: str

    @overload
    def start(
        self,
        method: Callable[Concatenate[Api, Params], Coroutine[Any, Any, R]],
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> Future[R]: ...

    @overload
    def start(
        self, method: Callable[Concatenate[Api, Params], R], *args: Params.args, **kwargs: Params.kwargs
    ) -> Future[R]: ...

    def start(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a method of `Api` in the process. The future raises ProcessDied if the process is gone."""
        return self._start(method.__name__, args, kwargs)

    @abc.abstractmethod
    def _start(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Future[Any]:
        """As `start`, by the name of the method."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End the process now; later calls raise ProcessDied."""
