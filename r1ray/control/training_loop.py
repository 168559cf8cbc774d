"""Base of the control loops: `Controller` (`r1ray train`) and `Finetuning` (`r1ray sft`, `r1ray reward-model`).

    begin --> train one step ... --> finish
      ^             |
      | LearnerLostError: begin again from the newest complete checkpoint
      | DivergedError: each loop decides

A stop ends the loop at the next tick at which nothing would be lost, or when its grace is over.
"""

from __future__ import annotations

import abc
from typing import Any

from r1ray.control.checkpointed_learner import CheckpointedLearner, DivergedError
from r1ray.control.commands import Commands, Scaling
from r1ray.control.learners import LearnerLostError
from r1ray.control.stop import RunInterruptedError, Stop
from r1ray.run.metrics import MetricsWriter


class TrainingLoop(abc.ABC):
    """`run` returns when the last step is trained or a requested stop is due."""

    def __init__(self, writer: MetricsWriter, stop: Stop, commands: Commands) -> None:
        self._writer = writer
        self._stop = stop
        self._commands = commands

    @property
    @abc.abstractmethod
    def _learner(self) -> CheckpointedLearner[Any]:
        """The learner of the run."""

    @property
    @abc.abstractmethod
    def _last_step(self) -> int:
        """Number of steps of the run; known once `_begin` has returned."""

    def run(self) -> bool:
        """Train to the last step. Returns True when it is trained, False after a requested stop. Raises R1RayError."""
        try:
            self._prepare()
            while True:
                try:
                    if self._advance():
                        return True
                except LearnerLostError as e:
                    self._write_pending()
                    self._learner.lost(e)
                except DivergedError as e:
                    self._write_pending()
                    self._diverged(e)
        except RunInterruptedError as e:
            self._writer.event("interrupted", reason=str(e), saved=self._learner.saved)
            return False

    def _advance(self) -> bool:
        """Perform the next action. Returns True after the last."""
        self.tick()
        if not self._learner.up:
            self._begin()
        elif self._stop.requested:
            self._save()
        elif self._learner.step < self._last_step:
            self._train_one()
        else:
            self._finish()
            return True
        return False

    def tick(self) -> None:
        """Called at least every TICK_S seconds during any wait; never blocks for long. Raises RunInterruptedError."""
        self._commands.tick(self._scaling)
        self._stop.check(unsaved=self._learner.unsaved)

    @property
    def _scaling(self) -> Scaling | None:
        """How `r1ray scale` changes this run; None if it has no rollout workers."""
        return None

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Called once, before anything else."""

    @abc.abstractmethod
    def _begin(self) -> None:
        """Start the learner from the newest complete checkpoint."""

    @abc.abstractmethod
    def _train_one(self) -> None:
        """Train the next step, and save and evaluate if due."""

    @abc.abstractmethod
    def _save(self) -> None:
        """Write a checkpoint of the present policy, unless there is one."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """Save, evaluate and export, each unless it is done: a learner that is lost here is restarted for the rest."""

    @abc.abstractmethod
    def _diverged(self, error: DivergedError) -> None:
        """Roll back or end the run after too many skipped steps in a row."""

    @abc.abstractmethod
    def _write_pending(self) -> None:
        """Write the records of completed steps that are not written yet."""
