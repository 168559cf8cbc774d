"""Publish the learner's policy to all workers alive, and pass the outcome to the fleet, the ledger and the records."""

from __future__ import annotations

from r1ray.control.fleet import Fleet
from r1ray.control.handles import QueueApi
from r1ray.control.learners import LearnerLostError
from r1ray.control.outages import QueueClient
from r1ray.control.progress import Progress
from r1ray.control.sync import SyncReport, WeightSync
from r1ray.control.training import Training
from r1ray.control.watchdog import Stage
from r1ray.errors import InfrastructureError


class Publishing:
    """`publish` after each step, `catch_up` whenever the learner is idle."""

    def __init__(
        self, *, sync: WeightSync, training: Training, fleet: Fleet, queue: QueueClient, progress: Progress
    ) -> None:
        self._sync = sync
        self._training = training
        self._fleet = fleet
        self._queue = queue
        self._progress = progress
        self._incarnation = -1  # of the learner in the weight-sync group

    def publish(self) -> SyncReport | None:
        """Publish the policy in the learner. A worker that fails is left out. Raises LearnerLostError.

        None, and nothing is sent, in a run without rollout workers.
        """
        if not self._fleet.desired:
            return None
        training, version = self._training, self._training.step
        self._progress.waiting(Stage.SYNC, f"weight sync of policy {version}")
        if self._incarnation != training.incarnation:
            self._sync.break_group()
            self._incarnation = training.incarnation
        try:
            report = self._sync.publish(training.group.ranks, self._fleet.alive(), version)
        except InfrastructureError as e:
            training.group.kill()
            raise LearnerLostError(f"the learner was lost while it published policy {version}: {e}") from e
        self._fleet.synced(report.synced, version)
        for name, reason in report.stale.items():
            self._fleet.missed(name, reason)
        for name, reason in report.out.items():
            self._fleet.lost(name, reason)
        if report.synced:  # even without a digest: the next learner's weights differ
            self._queue.call(QueueApi.publish, version, self._incarnation, report.digest)
        self._progress.synced(report)
        return report

    def catch_up(self) -> None:
        """Publish the policy in the learner to workers that are new or were left out."""
        if self._fleet.unsynced():
            self.publish()
