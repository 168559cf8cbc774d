"""Control loop of training on fixed rows: `r1ray sft` and `r1ray reward-model`.

The order of the rows is a function of seed and step, so a repeated step is the same step, and no other state is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from r1ray.config.rules import SupervisedUse, supervised_settings
from r1ray.config.schema import Config
from r1ray.control.checkpointed_learner import CheckpointedLearner, DivergedError
from r1ray.control.commands import Commands
from r1ray.control.handles import SupervisedApi
from r1ray.control.learners import LearnerGroup
from r1ray.control.outages import OutageTracker
from r1ray.control.stop import Stop
from r1ray.control.training_loop import TrainingLoop
from r1ray.errors import IntegrityError, NumericError
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter, read_evaluations

Report = Callable[[str, int, int, dict[str, float]], None]
"""(state, completed steps, all steps, metrics of the last step): shows or stores the status."""


class Finetuning(TrainingLoop):
    """The control loop of supervised training."""

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
        commands: Commands,
        report: Report,
    ) -> None:
        """`data`: what the driver found in the sources (`SupervisedData.facts`); the ranks must find the same."""
        super().__init__(writer, stop, commands)
        self._config = config
        self._evaluate_every = supervised_settings(config, use).evaluate_every_steps
        self._data = dict(data)
        self._folder = folder
        self._report = report
        self._training = CheckpointedLearner[SupervisedApi](
            config,
            group=learners(self.tick),
            outages=OutageTracker(config.recovery.outage_timeout_s, tick=self.tick, on_pause=self._paused),
            folder=folder,
            writer=writer,
            tick=self.tick,
        )
        self._steps = 0  # known once the ranks have read the data
        self._last: dict[str, float] = {}

    @property
    def _learner(self) -> CheckpointedLearner[SupervisedApi]:
        return self._training

    @property
    def _last_step(self) -> int:
        return self._steps

    def _prepare(self) -> None:
        self._tell("starting")

    def _begin(self) -> None:
        infos = self._training.start()
        self._steps = infos[0]["steps"]
        if any(info["data"] != self._data for info in infos):
            raise IntegrityError(
                f"a learner rank reads other rows than the driver ({[info['data'] for info in infos]}, not "
                f"{self._data}): the files changed, or are not the same on every machine"
            )
        self._training.load_latest()
        self._training.discard_newer()
        step = self._training.step
        self._writer.event("learner_started", policy_version=step, steps=self._steps, **self._data)
        if self._is_evaluated_at(step):
            self._evaluate()

    def _train_one(self) -> None:
        began, step = time.monotonic(), self._training.step
        metrics = self._training.train_step(lambda rank: rank.start(SupervisedApi.train_step))
        self._last = self._writer.step(step, {**metrics, "time/step_s": time.monotonic() - began})
        self._tell("running")
        self._training.check_finite(metrics["train/skipped"])
        if self._training.step == self._steps:
            return
        if self._training.due:
            self._save()
        if self._is_evaluated_at(self._training.step):
            self._evaluate()

    def _is_evaluated_at(self, step: int) -> bool:
        every = self._evaluate_every
        return step in (0, self._steps) or (every > 0 and step % every == 0)

    def _diverged(self, error: DivergedError) -> None:
        """End the run: the order of the rows is fixed, so a rollback would meet the same steps again."""
        raise NumericError(
            f"{error}: look at their rows, or start again with --fresh and a lower learner.optimizer.lr; a resume "
            f"continues from step {self._training.saved or 0}"
        ) from error

    def _write_pending(self) -> None:
        """Nothing is pending: each step is recorded as soon as it is trained."""

    def _evaluate(self) -> None:
        """Evaluate the policy, unless that was done and recorded before a restart."""
        step = self._training.step
        recorded = {row["source"] for row in read_evaluations(self._folder.path) if row["step"] == step}
        if recorded >= set(self._data["held_out"]):
            return
        self._tell("evaluating")
        deadline = self._config.deadlines.evaluation_s
        what = f"evaluate policy {step} (deadlines.evaluation_s)"
        group = self._training.group
        rows = group.call(lambda rank: rank.start(SupervisedApi.evaluate), deadline_s=deadline, what=what)[0]
        for row in rows:
            self._writer.evaluation({"step": step, **row})

    def _save(self) -> None:
        self._training.checkpoint()

    def _finish(self) -> None:
        self._tell("finishing")
        self._save()
        self._evaluate()
        if self._config.checkpoint.export_final:
            self._training.export()

    def _paused(self, reason: str | None) -> None:
        if reason is None:
            self._writer.event("resumed")
        else:
            self._writer.event("paused", reason=reason)
            self._tell("paused")

    def _tell(self, state: str) -> None:
        self._report(state, self._training.step, self._steps, self._last)
