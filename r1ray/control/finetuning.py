"""Control loop of training on fixed rows (`r1ray sft`, `r1ray reward-model`): steps, checkpoints, evaluations, the export.

    begin() --> step ... step --> checkpoint, evaluation when due --> export
      ^           |
      | LearnerLost: the ranks died or hung; begin() again from the newest complete checkpoint

The order of the rows is a function of seed and step, so a repeated step is the same step, and no other state is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from r1ray.config.rules import SupervisedUse, supervised_settings
from r1ray.config.schema import Config
from r1ray.control.handles import Handle, SupervisedApi
from r1ray.control.learners import LearnerGroup, LearnerLost, Restarts
from r1ray.control.outages import OutageTracker
from r1ray.control.stop import Interrupted, Stop
from r1ray.errors import DiskFull, IntegrityError, NumericError
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter, read_evaluations

R = TypeVar("R")

Report = Callable[[str, int, int, dict[str, float]], None]
"""(state, completed steps, all steps, metrics of the last step): shows or stores the status."""


class Finetuning:
    """`run` returns when the last step is trained or the run was asked to stop."""

    def __init__(
        self,
        config: Config,
        *,
        use: SupervisedUse,
        data: Mapping[str, Any],
        learners: Callable[[Callable[[], None]], LearnerGroup[SupervisedApi]],
        folder: RunFolder,
        writer: MetricsWriter,
        stop: Stop,
        report: Report,
    ) -> None:
        """`data`: what the driver found in the sources (`SupervisedData.facts`); the ranks must find the same."""
        self._config = config
        self._evaluate_every = supervised_settings(config, use).evaluate_every_steps
        self._data = dict(data)
        self._folder = folder
        self._run_id = folder.identity().run_id
        self._writer = writer
        self._stop = stop
        self._report = report
        self._group = learners(self._tick)
        self._restarts = Restarts(config.recovery.max_learner_restarts, tick=self._tick, on_event=writer.event)
        self._outages = OutageTracker(config.recovery.outage_timeout_s, tick=self._tick, on_pause=self._paused)
        self.step = 0
        self.steps = 0  # known once the ranks have read the data
        self._saved: int | None = None
        self._working = False
        self._skipped = 0  # steps in a row
        self._last: dict[str, float] = {}

    def run(self) -> bool:
        """Train to the last step. True where it was reached, False where a stop was asked for. Raises R1RayError."""
        self._tell("starting")
        try:
            while True:
                try:
                    if self._advance():
                        return True
                except LearnerLost as e:
                    self._restarts.lost(e)
        except Interrupted as e:
            self._writer.event("interrupted", reason=str(e), saved=self._saved)
            return False

    def _advance(self) -> bool:
        """The next thing to do. True after the last."""
        self._tick()
        if not self._group.ranks:
            self._begin()
        elif self._stop.requested:
            self._save()
            self._stop.check(unsaved=False)
        elif self.step < self.steps:
            self._train_one()
        else:
            self._finish()
            return True
        return False

    def _tick(self) -> None:
        """Called at least four times a second whatever is waited for. Raises Interrupted."""
        self._stop.check(unsaved=bool(self._group.ranks) and (self._working or self.step != (self._saved or 0)))

    def _begin(self) -> None:
        self._restarts.wait()
        infos = self._group.start()
        self.steps = infos[0]["steps"]
        if any(info["data"] != self._data for info in infos):
            raise IntegrityError(
                f"a learner rank reads other rows than the driver ({[info['data'] for info in infos]}, not "
                f"{self._data}): the files changed, or are not the same on every machine"
            )
        folder = str(self._folder.checkpoints)
        newest = self._call(
            lambda rank: rank.start(SupervisedApi.load_latest, folder, self._run_id), what="load the last checkpoint"
        )[0]
        for warning in newest["warnings"]:
            self._writer.event("checkpoint_skipped", message=warning)
        self._saved = newest["policy_version"]
        self.step = self._saved or 0
        self._call(
            lambda rank: rank.start(SupervisedApi.discard_checkpoints, folder, self.step),
            what="remove incomplete checkpoints",
        )
        self._writer.rewind(self.step)
        self._writer.event("learner_started", policy_version=self.step, steps=self.steps, **self._data)
        self._skipped = 0
        if self._is_evaluated_at(self.step):
            self._evaluate()

    def _train_one(self) -> None:
        deadline = self._config.deadlines.step_s
        began = time.monotonic()
        what = f"train step {self.step} (deadlines.step_s)"
        self._working = True  # a stop waits for the step, which is worth saving
        try:
            metrics = self._group.call(
                lambda rank: rank.start(SupervisedApi.train_step), deadline_s=deadline, what=what
            )[0]
        finally:
            self._working = False
        self._last = self._writer.step(self.step, {**metrics, "time/step_s": time.monotonic() - began})
        self.step += 1
        self._tell("running")
        self._judge(metrics["train/skipped"])
        if self.step == self.steps:
            return
        if self.step % self._config.checkpoint.every_steps == 0:
            self._save()
        if self._is_evaluated_at(self.step):
            self._evaluate()

    def _is_evaluated_at(self, step: int) -> bool:
        every = self._evaluate_every
        return step in (0, self.steps) or (every > 0 and step % every == 0)

    def _judge(self, skipped: float) -> None:
        self._skipped = self._skipped + 1 if skipped else 0
        if not skipped:
            return
        self._writer.event("step_skipped", step=self.step - 1)
        limit = self._config.recovery.max_nan_steps
        if self._skipped >= limit:
            raise NumericError(
                f"loss or gradients of steps {self.step - limit} to {self.step - 1} were not finite "
                f"(recovery.max_nan_steps={limit}): look at their rows, or start again with --fresh and a lower "
                f"learner.optimizer.lr; a resume continues from step {self._saved or 0}"
            )

    def _evaluate(self) -> None:
        """Evaluate the policy, unless that was done and recorded before a restart."""
        recorded = {row["source"] for row in read_evaluations(self._folder.path) if row["step"] == self.step}
        if recorded >= set(self._data["held_out"]):
            return
        self._tell("evaluating")
        deadline = self._config.deadlines.evaluation_s
        what = f"evaluate policy {self.step} (deadlines.evaluation_s)"
        rows = self._group.call(lambda rank: rank.start(SupervisedApi.evaluate), deadline_s=deadline, what=what)[0]
        for row in rows:
            self._writer.evaluation({"step": self.step, **row})

    def _save(self) -> None:
        if self._saved == self.step:
            return
        name, folder = f"step_{self.step:06d}", self._folder.checkpoints
        self._call(
            lambda rank: rank.start(SupervisedApi.save_checkpoint, str(folder / name), self._run_id),
            what=f"save checkpoint {name}",
        )
        self._saved = self.step
        self._restarts.saved()
        self._call(lambda rank: rank.start(SupervisedApi.prune_checkpoints, str(folder)), what="remove old checkpoints")
        self._writer.event("checkpoint", policy_version=self.step, name=name)

    def _finish(self) -> None:
        self._tell("finishing")
        self._save()
        self._evaluate()
        if self._config.checkpoint.export_final:
            final = str(self._folder.final)
            self._call(lambda rank: rank.start(SupervisedApi.export, final), what="export the final model")

    def _paused(self, reason: str | None) -> None:
        if reason is None:
            self._writer.event("resumed")
        else:
            self._writer.event("paused", reason=reason)
            self._tell("paused")

    def _tell(self, state: str) -> None:
        self._report(state, self.step, self.steps, self._last)

    def _call(self, start: Callable[[Handle[SupervisedApi]], Future[R]], *, what: str) -> list[R]:
        """A call that has to do with files; a full disk is waited out."""
        deadline = self._config.deadlines.checkpoint_s

        def call() -> list[R]:
            return self._group.call(start, deadline_s=deadline, what=f"{what} (deadlines.checkpoint_s)")

        return self._outages.retry_until_recovered(f"the learner to {what}", call, DiskFull)
