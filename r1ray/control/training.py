"""The learner of a policy-optimization run: its steps keep pace with the ledger, and it recovers from NaN by rollback.

    begin() ---> train() ... checkpoint() ... export()
      ^             |
      |   LearnerLostError: the processes died or hung
      +-- DivergedError:    loss or gradients are not finite

In both cases begin() restarts from the newest complete checkpoint; the ledger returns the same batches for the repeated
steps, and published policies carry a new incarnation. The newest checkpoint is from before the skipped steps: a
rollback removes no complete checkpoint, and a crash in one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from r1ray.config.schema import Config
from r1ray.control.checkpointed_learner import CheckpointedLearner, DivergedError
from r1ray.control.handles import LearnerApi, QueueApi
from r1ray.control.learners import LearnerGroup
from r1ray.control.outages import OutageTracker, QueueClient
from r1ray.control.step_profile import StepProfile
from r1ray.errors import DiskFull, IntegrityError, RetryBudgetExhausted
from r1ray.run.batch_records import BatchRecords
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.types import BatchManifest


class Training(CheckpointedLearner[LearnerApi]):
    """Trains on the manifests of the ledger, which counts a step as trained when a checkpoint has it."""

    def __init__(
        self,
        config: Config,
        *,
        group: LearnerGroup[LearnerApi],
        queue: QueueClient,
        outages: OutageTracker,
        folder: RunFolder,
        writer: MetricsWriter,
        tick: Callable[[], None],
        profile: StepProfile | None = None,
    ) -> None:
        super().__init__(config, group=group, outages=outages, folder=folder, writer=writer, tick=tick)
        self._queue = queue
        self._profile = profile
        self._records = BatchRecords(folder.path)
        self.incarnation = 0
        self._rollbacks = 0  # without training past `_furthest` in between
        self._furthest = 0

    def begin(self) -> None:
        """Start the learner and set it, the ledger and the records to the newest complete checkpoint.

        Raises LearnerLostError, and IntegrityError if there is no checkpoint although steps were trained.
        """
        self.start()
        newest = self.load_latest()
        if self.saved is not None and newest["name"] is not None:
            self._queue.call(QueueApi.commit, self.saved, newest["name"], self._unknown(newest["name"]))
        elif trained := self._queue.call(QueueApi.status).trained_steps:
            raise IntegrityError(
                f"{trained} steps are trained, but there is no checkpoint of them in {self._folder.checkpoints}; "
                "nothing was changed: restore it from a copy, or start a new run with --fresh"
            )
        self._queue.call(QueueApi.rollback, self.step)
        # Only after the rollback: the ledger must never count steps that no checkpoint has.
        self.discard_newer()
        self._records.back_to(self.step)
        self.incarnation = self._queue.call(QueueApi.next_incarnation)
        pids = {name: place["pid"] for name, place in self._group.places.items()}
        self._writer.event("learner_started", policy_version=self.step, incarnation=self.incarnation, pids=pids)

    def train(self, manifest: BatchManifest, *, meanwhile: Callable[[], None]) -> dict[str, float]:
        """Train one step; its metrics. Raises LearnerLostError and DivergedError."""
        if self._profile is not None:
            self._profile.before()
        metrics = self.train_step(lambda rank: rank.start(LearnerApi.train_step, manifest), meanwhile=meanwhile)
        self._records.add(manifest)
        if self._profile is not None:
            self._profile.after(manifest.step, self._group)
        if not metrics["train/skipped"] and manifest.step > self._furthest:
            self._rollbacks = 0
        self.check_finite(metrics["train/skipped"])
        return metrics

    def _unknown(self, checkpoint: str) -> list[BatchManifest]:
        """The batches that the checkpoint of `saved` was trained on and the ledger, an older copy, does not know."""
        step, known = self.step, self._queue.call(QueueApi.status).bound_steps
        if known >= step:
            return []
        unknown = self._records.read(known, step)
        message = (
            f"{checkpoint} was trained on steps {known} to {step - 1}, which the ledger's copy does not know: marked "
            "as "
            f"trained from batches/, {sum(len(m.groups) for m in unknown)} groups; no prompt of them is trained again"
        )
        self._writer.event("ledger_reconciled", message=message, first_step=known, policy_version=step)
        return unknown

    def checkpoint(self) -> None:
        """As in the base; the batches of its steps are recorded first, see `BatchRecords`."""
        if self.saved != self.step and self._config.run.ledger_dir is not None:
            self._outages.retry_until_recovered(
                "the records of batches", lambda: self._records.write(self.step), DiskFull
            )
        super().checkpoint()

    def budgets(self) -> dict[str, float]:
        """Used share of the restarts and the rollbacks."""
        rollbacks = self._rollbacks / max(1, self._config.recovery.max_nan_rollbacks)
        return {"recovery.max_learner_restarts": self._restarts.used, "recovery.max_nan_rollbacks": rollbacks}

    def _committed(self, name: str) -> None:
        self._queue.call(QueueApi.commit, self.step, name)
        copy = self._queue.call(QueueApi.status).copy
        known = self.step if copy is None else 0 if copy.last is None else copy.last.bound_steps
        self._records.committed(self.step, known)

    def roll_back(self, error: DivergedError) -> None:
        """Discard the steps since the checkpoint before the first skipped step; call `begin` next.

        Raises RetryBudgetExhausted.
        """
        self._rollbacks += 1
        self._furthest = max(self._furthest, self.step - 1)
        self._writer.event("rolled_back", message=str(error), from_policy=self.step, to_policy=self.saved or 0)
        budget = self._config.recovery.max_nan_rollbacks
        if self._rollbacks > budget:
            raise RetryBudgetExhausted(
                f"{error}, and again after {budget} rollbacks (recovery.max_nan_rollbacks): "
                "lower learner.optimizer.lr or learner.optimizer.gradient_clip in a new run from the last good "
                "checkpoint"
            ) from error
        self._group.kill()
