"""The learner during a run: steps, checkpoints, and recovery from lost processes and NaN.

    begin() ---> train() ... checkpoint() ... export()
      ^             |            |
      |   LearnerLost: the processes died or hung
      +-- Diverged:    loss or gradients are not finite

In both cases begin() restarts from the newest complete checkpoint; the ledger returns the same batches for the repeated
steps, and published policies carry a new incarnation. While steps are skipped no checkpoint is due, so the newest one
is always from before them: a rollback removes no complete checkpoint, and a crash in one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from r1ray.config.schema import Config
from r1ray.control.handles import Handle, LearnerApi, QueueApi
from r1ray.control.learners import LearnerGroup, LearnerLost, Restarts
from r1ray.control.outages import OutageTracker, QueueClient
from r1ray.errors import DiskFull, IntegrityError, NumericError, RetryBudgetExhausted
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.types import BatchManifest

R = TypeVar("R")


class Diverged(NumericError):
    """Loss or gradients were not finite for recovery.max_nan_steps steps in a row."""


class Training:
    """`step` is the next step to train and the version of the policy in the learner; `saved` that of the newest
    checkpoint."""

    def __init__(
        self,
        config: Config,
        *,
        group: LearnerGroup[LearnerApi],
        queue: QueueClient,
        outages: OutageTracker,
        restarts: Restarts,
        folder: RunFolder,
        writer: MetricsWriter,
    ) -> None:
        self._config = config
        self._group = group
        self._queue = queue
        self._outages = outages
        self._restarts = restarts
        self._folder = folder
        self._run_id = folder.identity().run_id
        self._writer = writer
        self.step = 0
        self.saved: int | None = None
        self.incarnation = 0
        self._working = False  # whether a step is being trained
        self._first_skipped: int | None = None  # first of the skipped steps in a row, up to the present one
        self._rollbacks = 0  # without training past `_furthest` in between
        self._furthest = 0

    @property
    def up(self) -> bool:
        """Whether the learner processes run."""
        return bool(self._group.ranks)

    @property
    def group(self) -> LearnerGroup[LearnerApi]:
        """The learner ranks."""
        return self._group

    @property
    def unsaved(self) -> bool:
        """Whether an end of the run now would lose trained steps or the step in progress."""
        return self.up and (self._working or self.step != (self.saved or 0))

    @property
    def due(self) -> bool:
        """Whether a checkpoint is due; during skipped steps none is due until the next finite step."""
        every = self._config.checkpoint.every_steps
        return self._first_skipped is None and self.step // every > (self.saved or 0) // every

    def begin(self) -> None:
        """Start the learner and set it, the ledger and the records to the newest complete checkpoint.

        Raises LearnerLost, and IntegrityError if there is no checkpoint although steps were trained.
        """
        self._restarts.wait()
        self._group.start()
        folder = str(self._folder.checkpoints)
        newest = self._call(
            lambda rank: rank.start(LearnerApi.load_latest, folder, self._run_id), what="load the last checkpoint"
        )[0]
        for warning in newest["warnings"]:
            self._writer.event("checkpoint_skipped", message=warning)
        self.saved = newest["policy_version"]
        self.step = self.saved or 0
        if self.saved is not None and newest["name"] is not None:
            self._queue.call(QueueApi.commit, self.saved, newest["name"])
        elif trained := self._queue.call(QueueApi.status).trained_steps:
            raise IntegrityError(
                f"{trained} steps are trained, but there is no checkpoint of them in {self._folder.checkpoints}; "
                "nothing was changed: restore it from a copy, or start a new run with --fresh"
            )
        self._queue.call(QueueApi.rollback, self.step)
        # Only after the rollback: the ledger must never count steps that no checkpoint has.
        self._call(
            lambda rank: rank.start(LearnerApi.discard_checkpoints, folder, self.step),
            what="remove incomplete checkpoints",
        )
        self.incarnation = self._queue.call(QueueApi.next_incarnation)
        self._writer.rewind(self.step)
        pids = {name: place["pid"] for name, place in self._group.places.items()}
        self._writer.event("learner_started", policy_version=self.step, incarnation=self.incarnation, pids=pids)
        self._first_skipped = None

    def train(self, manifest: BatchManifest, *, meanwhile: Callable[[], None]) -> dict[str, float]:
        """Train one step; its metrics. Raises LearnerLost and Diverged."""
        self._working = True
        try:
            metrics = self._group.call(
                lambda rank: rank.start(LearnerApi.train_step, manifest),
                deadline_s=self._config.deadlines.step_s,
                what=f"train step {self.step} (deadlines.step_s)",
                meanwhile=meanwhile,
            )[0]
        finally:
            self._working = False
        self.step += 1
        self._judge(metrics["train/skipped"])
        return dict(metrics)

    def _judge(self, skipped: float) -> None:
        step, limit = self.step - 1, self._config.recovery.max_nan_steps
        if not skipped:
            self._first_skipped = None
            if step > self._furthest:
                self._rollbacks = 0
            return
        if self._first_skipped is None:
            self._first_skipped = step
        self._writer.event("step_skipped", step=step, updates=skipped)
        if step - self._first_skipped + 1 >= limit:
            raise Diverged(
                f"loss or gradients of steps {self._first_skipped} to {step} were not finite "
                f"(recovery.max_nan_steps={limit})"
            )

    def checkpoint(self) -> None:
        """Save the policy and remove old checkpoints. Raises LearnerLost."""
        name, folder = f"step_{self.step:06d}", self._folder.checkpoints
        self._call(
            lambda rank: rank.start(LearnerApi.save_checkpoint, str(folder / name), self._run_id),
            what=f"save checkpoint {name}",
        )
        self._queue.call(QueueApi.commit, self.step, name)
        self.saved = self.step
        self._restarts.saved()
        self._call(lambda rank: rank.start(LearnerApi.prune_checkpoints, str(folder)), what="remove old checkpoints")
        self._writer.event("checkpoint", policy_version=self.step, name=name)

    def export(self) -> None:
        """Write final/. Raises LearnerLost."""
        final = str(self._folder.final)
        self._call(lambda rank: rank.start(LearnerApi.export, final), what="export the final model")

    def lost(self, error: LearnerLost) -> None:
        """The learner is lost; call `begin` next. Raises RetryBudgetExhausted."""
        self._restarts.lost(error)

    def roll_back(self, error: Diverged) -> None:
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

    def _call(self, start: Callable[[Handle[LearnerApi]], Future[R]], *, what: str) -> list[R]:
        """A call that reads or writes files, retried while the disk is full."""
        deadline = self._config.deadlines.checkpoint_s

        def call() -> list[R]:
            return self._group.call(start, deadline_s=deadline, what=f"{what} (deadlines.checkpoint_s)")

        return self._outages.retry_until_recovered(f"the learner to {what}", call, DiskFull)
