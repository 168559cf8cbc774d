"""The learner of any training: its start, steps, checkpoints and export, and the retries of each.

    start() --> load_latest() --> train_step() ... checkpoint() ... export()
      ^                             |
      | LearnerLostError: the processes died or hung, and the group was killed
      | DivergedError: loss or gradients are not finite

While steps are skipped no checkpoint is due, so the newest one is always from before them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from r1ray.config.schema import Config
from r1ray.control.handles import Handle, LoadedCheckpoint, RankApi
from r1ray.control.learners import LearnerGroup, LearnerLostError, Restarts
from r1ray.control.outages import OutageTracker
from r1ray.errors import DiskFull, NumericError
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter

Rank = TypeVar("Rank", bound=RankApi)
R = TypeVar("R")


class DivergedError(NumericError):
    """Loss or gradients were not finite for recovery.max_nan_steps steps in a row."""


class CheckpointedLearner(Generic[Rank]):
    """`step` is the next step to train and the version of the policy in the learner.

    `saved` is the version of the newest checkpoint; None: there is none.
    """

    def __init__(
        self,
        config: Config,
        *,
        group: LearnerGroup[Rank],
        outages: OutageTracker,
        folder: RunFolder,
        writer: MetricsWriter,
        tick: Callable[[], None],
    ) -> None:
        self._config = config
        self._group = group
        self._outages = outages
        self._restarts = Restarts(config.recovery.max_learner_restarts, tick=tick, on_event=writer.event)
        self._folder = folder
        self._run_id = folder.identity().run_id
        self._writer = writer
        self.step = 0
        self.saved: int | None = None
        self._working = False  # whether a step is being trained
        self._first_skipped: int | None = None  # first of the skipped steps in a row, up to the present one

    @property
    def up(self) -> bool:
        """Whether the learner processes run."""
        return bool(self._group.ranks)

    @property
    def group(self) -> LearnerGroup[Rank]:
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

    def start(self) -> list[dict[str, Any]]:
        """Start the ranks, after a pause if they were lost; what `setup` of each returned. Raises LearnerLostError."""
        self._restarts.wait()
        self._first_skipped = None
        return self._group.start()

    def load_latest(self) -> LoadedCheckpoint:
        """Load the newest complete checkpoint and continue from it, or from step 0. Raises LearnerLostError."""
        folder = str(self._folder.checkpoints)
        newest = self._call(
            lambda rank: rank.start(RankApi.load_latest, folder, self._run_id), what="load the last checkpoint"
        )[0]
        for warning in newest["warnings"]:
            self._writer.event("checkpoint_skipped", message=warning)
        self.saved = newest["policy_version"]
        self.step = self.saved or 0
        return newest

    def discard_newer(self) -> None:
        """Remove newer, incomplete checkpoints and the records of later steps. Raises LearnerLostError."""
        folder = str(self._folder.checkpoints)
        self._call(
            lambda rank: rank.start(RankApi.discard_checkpoints, folder, self.step),
            what="remove incomplete checkpoints",
        )
        self._writer.rewind(self.step)

    def train_step(
        self, start: Callable[[Handle[Rank]], Future[dict[str, float]]], *, meanwhile: Callable[[], None] | None = None
    ) -> dict[str, float]:
        """`start` the next step on every rank; its metrics. `meanwhile` runs once while they work.

        Raises LearnerLostError. The caller reports the metrics and calls `check_finite` next.
        """
        self._working = True
        try:
            metrics = self._group.call(
                start,
                deadline_s=self._config.deadlines.step_s,
                what=f"train step {self.step} (deadlines.step_s)",
                meanwhile=meanwhile,
            )[0]
        finally:
            self._working = False
        self.step += 1
        return dict(metrics)

    def check_finite(self, skipped: float) -> None:
        """Count the last step, of which so many updates were skipped. Raises DivergedError."""
        step, limit = self.step - 1, self._config.recovery.max_nan_steps
        if not skipped:
            self._first_skipped = None
            return
        if self._first_skipped is None:
            self._first_skipped = step
        self._writer.event("step_skipped", step=step, updates=skipped)
        if step - self._first_skipped + 1 >= limit:
            raise DivergedError(
                f"loss or gradients of steps {self._first_skipped} to {step} were not finite "
                f"(recovery.max_nan_steps={limit})"
            )

    def checkpoint(self) -> None:
        """Save the policy, unless that is done, and remove old checkpoints. Raises LearnerLostError."""
        if self.saved == self.step:
            return
        name, folder, began = f"step_{self.step:06d}", self._folder.checkpoints, time.monotonic()
        self._call(
            lambda rank: rank.start(RankApi.save_checkpoint, str(folder / name), self._run_id),
            what=f"save checkpoint {name}",
        )
        self._committed(name)
        self.saved = self.step
        self._restarts.saved()
        self._call(lambda rank: rank.start(RankApi.prune_checkpoints, str(folder)), what="remove old checkpoints")
        self._writer.event("checkpoint", policy_version=self.step, name=name, seconds=time.monotonic() - began)

    def _committed(self, name: str) -> None:
        """Called when the checkpoint `name` of the present step is complete, before it counts as saved."""

    def export(self) -> None:
        """Write final/. Raises LearnerLostError."""
        final = str(self._folder.final)
        self._call(lambda rank: rank.start(RankApi.export, final), what="export the final model")

    def lost(self, error: LearnerLostError) -> None:
        """Count the loss of the learner; call `start` next. Raises RetryBudgetExhausted."""
        self._restarts.lost(error)

    def _call(self, start: Callable[[Handle[Rank]], Future[R]], *, what: str) -> list[R]:
        """A call that reads or writes files, retried while the disk is full."""
        deadline = self._config.deadlines.checkpoint_s

        def call() -> list[R]:
            return self._group.call(start, deadline_s=deadline, what=f"{what} (deadlines.checkpoint_s)")

        return self._outages.retry_until_recovered(f"the learner to {what}", call, DiskFull)
