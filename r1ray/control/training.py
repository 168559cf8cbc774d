"""The learner through a run: its steps and checkpoints, and how it comes back from death and from NaN.

    begin() ---> train() ... checkpoint() ... export()
      ^             |            |
      |   LearnerLost: the processes died or hung
      +-- Diverged:    nothing finite any more

Either way begin() again from the newest whole checkpoint; the ledger gives the same batches for the repeated steps, and what is
published carries a new incarnation. While steps are skipped no checkpoint is due, so that the newest is always from before them:
nothing whole is ever thrown away for a rollback, and a crash in one changes nothing.
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
    """`step` is the next step to train and the version of the policy in the learner; `saved` that of the newest checkpoint."""

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
        self._working = False  # on a step that is neither counted nor saved yet
        self._first_skipped: int | None = None  # of the row of skipped steps that goes on
        self._rollbacks = 0  # without training past `_furthest` in between
        self._furthest = 0

    @property
    def up(self) -> bool:
        """Whether there are learner processes."""
        return bool(self._group.ranks)

    @property
    def group(self) -> LearnerGroup[LearnerApi]:
        return self._group

    @property
    def unsaved(self) -> bool:
        """Whether an end of the run now would lose work that is worth waiting for."""
        return self.up and (self._working or self.step != (self.saved or 0))

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint; one that falls into a row of skipped steps is due at its end."""
        every = self._config.checkpoint.every_steps
        return self._first_skipped is None and self.step // every > (self.saved or 0) // every

    def begin(self) -> None:
        """Start the learner and bring it, the ledger and the records to the newest whole checkpoint.

        Raises LearnerLost, and IntegrityError where there is no checkpoint although steps were trained.
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
                f"{trained} steps are trained, but there is no checkpoint of them in {self._folder.checkpoints}, nothing was "
                "changed: restore it from a copy, or begin a new run with --fresh"
            )
        self._queue.call(QueueApi.rollback, self.step)
        # Only now: at no moment does the ledger count steps that no checkpoint has. They are torn, and written again.
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
                f"loss or gradients of steps {self._first_skipped} to {step} were not finite (recovery.max_nan_steps={limit})"
            )

    def checkpoint(self) -> None:
        """Save the policy as it is, and forget old checkpoints. Raises LearnerLost."""
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
        """The learner is gone, `begin` is next. Raises RetryBudgetExhausted."""
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
                "lower learner.optimizer.lr or learner.optimizer.gradient_clip in a new run from the last good checkpoint"
            ) from error
        self._group.kill()

    def _call(self, start: Callable[[Handle[LearnerApi]], Future[R]], *, what: str) -> list[R]:
        """A call that has to do with files; a full disk is waited out."""
        deadline = self._config.deadlines.checkpoint_s

        def call() -> list[R]:
            return self._group.call(start, deadline_s=deadline, what=f"{what} (deadlines.checkpoint_s)")

        return self._outages.retry_until_recovered(f"the learner to {what}", call, DiskFull)
