"""The control loop of a run: one thread that waits for batches, has them trained, publishes policies, and looks after everybody.

      +--> batch(step) ----> train(step) ----> publish(step + 1) ----> checkpoint, evaluate, log --+
      |    waits for the     all learner       learner -> workers      when due                    |
      |    ledger; syncs     ranks                                                                 |
      |    workers that                                                                            |
      |    come back                                                                               |
      +--------------------------------------------------------------------------------------------+

Rollout and reward workers run on their own, fed and bounded by the ledger alone; this loop never stands in the way of a
prompt or a group. While it waits for anything, `tick` looks after the fleet, the evaluations and the status.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from r1ray.config.schema import Config
from r1ray.control.calls import TICK_S, Remote, call_one
from r1ray.control.evaluator import Evaluator
from r1ray.control.fleet import Fleet
from r1ray.control.learners import LearnerGroup, LearnerLost
from r1ray.control.progress import Progress
from r1ray.control.sync import SyncReport, WeightSync
from r1ray.errors import BudgetSpent, DeadlineExceeded, InfrastructureError
from r1ray.metrics import MetricsWriter
from r1ray.runfolder import RunFolder
from r1ray.types import BatchManifest

BATCH_POLL_S = 2.0
"""How long the ledger holds a question for a batch before it answers "not yet"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the composition root builds for the controller."""

    folder: RunFolder
    writer: MetricsWriter
    queue: Remote
    rewards: Sequence[Remote]  # nobody calls them from here, but they live as long as somebody holds them
    make_learners: Callable[[Callable[[], None]], LearnerGroup]
    make_fleet: Callable[[], Fleet]
    transcripts: Callable[[BatchManifest], list[dict[str, Any]]]
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Ended:
    """A step that was trained and published, to be written up."""

    manifest: BatchManifest
    metrics: dict[str, float]  # of the learner
    waited_s: float  # for the batch
    wall_s: float  # from asking for the batch to the end of the sync
    report: SyncReport


def _nothing() -> None:
    """No step is waiting to be written up."""


class Controller:
    """`run` returns when the last step is trained or `request_stop` was called."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._queue = parts.queue
        self._writer = parts.writer
        self._progress = parts.progress
        self._learners = parts.make_learners(self.tick)
        self._fleet = parts.make_fleet()
        self._sync = WeightSync(config.sync, self.tick)
        self._evaluator = Evaluator(config, self._fleet.evaluation_sizes, self._evaluated)
        self._step = 0  # the next step to train; also the version of the policy in the learner
        self._saved: int | None = None  # policy version of the newest checkpoint
        self._incarnation = 0
        self._learner_deaths = 0
        self._stop = False
        self._write_up: Callable[[], None] = _nothing

    def request_stop(self) -> None:
        """Finish the step under way, checkpoint, and return from `run`."""
        self._stop = True

    def run(self) -> bool:
        """Train to the last step. True where it was reached, False after `request_stop`. Raises R1RayError."""
        self._progress.state("starting")
        self._fleet.tick()
        while not self._learners.ranks or (self._step < self._config.run.steps and not self._stop):
            try:
                if self._learners.ranks:
                    self._first_evaluation()
                    self._train_one()
                else:
                    self._start_learner()
            except LearnerLost as e:
                self._count_loss(e)
        finished = self._step >= self._config.run.steps
        self._finish(finished)
        return finished

    def tick(self) -> None:
        """Look after everybody; called at least every TICK_S seconds whatever is waited for. Never blocks."""
        self._fleet.desired = self._parts.folder.read_scale_request().get("rollout", self._fleet.desired)
        self._fleet.tick()
        self._evaluator.tick(self._fleet.serving())
        self._progress.tick(self._fleet, self._queue)

    def close(self, state: str, message: str = "") -> None:
        """Say in status.json how the run ended."""
        self._progress.state(state, message)
        self._progress.write(self._fleet)

    # -- the learner --------------------------------------------------------------------------------------------

    def _start_learner(self) -> None:
        self._progress.waiting("learner and rollout workers to start")
        self._learners.start()
        self._sync.break_group()
        newest = self._call_learners("load_latest", str(self._parts.folder.checkpoints), "load the last checkpoint")[0]
        for warning in newest["warnings"]:
            self._writer.event("checkpoint_skipped", message=warning)
        self._saved = newest["policy_version"]
        self._step = self._saved or 0
        if self._saved is not None:
            self._ask_queue("commit", self._saved, newest["name"])
        self._ask_queue("rollback", self._step)
        self._incarnation = self._ask_queue("next_incarnation")
        self._writer.rewind(self._step)
        self._writer.event("learner_started", policy_version=self._step, incarnation=self._incarnation)
        self._publish()

    def _count_loss(self, error: LearnerLost) -> None:
        self._write_up()
        self._learner_deaths += 1
        self._writer.event("learner_lost", message=str(error))
        if self._learner_deaths > self._config.recovery.learner_restarts:
            raise BudgetSpent(
                f"the learner was lost {self._learner_deaths} times in a row (recovery.learner_restarts="
                f"{self._config.recovery.learner_restarts}); the last time: {error}"
            ) from error

    def _call_learners(self, method: str, argument: Any, what: str) -> list[Any]:
        """A call that has to do with checkpoints."""
        deadline = self._config.deadlines.checkpoint_s
        return self._learners.call(method, argument, deadline_s=deadline, what=f"{what} (deadlines.checkpoint_s)")

    # -- one step -----------------------------------------------------------------------------------------------

    def _train_one(self) -> None:
        began = time.monotonic()
        manifest = self._batch()
        if manifest is None:
            return
        waited = time.monotonic() - began
        self._progress.waiting(f"learner to train step {self._step}")
        deadline = self._config.deadlines.step_s
        trained = self._learners.call(
            "train_step",
            manifest,
            deadline_s=deadline,
            what=f"train step {self._step} (deadlines.step_s)",
            meanwhile=self._write_up,  # the step before, while the learner is busy with this one
        )
        self._step += 1
        self._learner_deaths = 0
        report = self._publish()
        ended = _Ended(manifest, dict(trained[0]), waited, time.monotonic() - began, report)
        self._write_up = partial(self._write, ended)
        self._after_step()

    def _write(self, ended: _Ended) -> None:
        """Metrics and transcripts of a step that ended."""
        self._write_up = _nothing
        metrics = ended.metrics | self._progress.step_metrics(self._fleet, ended.report)
        metrics["batch/wait_s"] = ended.waited_s
        metrics["learner/idle_share"] = 1.0 - metrics["learner/step_s"] / ended.wall_s
        metrics["learner/tokens_per_s"] = metrics["batch/tokens"] / ended.wall_s
        row = self._writer.step(ended.manifest.step, metrics)
        for transcript in self._parts.transcripts(ended.manifest):
            self._writer.transcript(transcript)
        self._progress.stepped(row)

    def _after_step(self) -> None:
        last = self._step >= self._config.run.steps
        if last or self._stop:
            self._write_up()
        if self._step % self._config.checkpoint.every_steps == 0 or last or self._stop:
            self._checkpoint()
        every = self._config.evaluation.every_steps
        if every and self._step % every == 0 and not last:
            self._evaluator.start(self._step)

    def _batch(self) -> BatchManifest | None:
        """The batch of this step, or None after `request_stop`.

        Workers that come back meanwhile are synced, since the learner has nothing else to do.
        """
        until = time.monotonic() + self._config.deadlines.batch_s
        self._progress.waiting(f"rollouts for step {self._step}")
        asked: Future[BatchManifest | None] | None = None
        while time.monotonic() < until and not self._stop:
            asked = asked or self._queue.call("take", self._step, BATCH_POLL_S)
            wait([asked], timeout=TICK_S)
            self.tick()
            if self._fleet.unsynced():
                self._publish()
            if asked.done():
                manifest = asked.result()
                if manifest is not None:
                    return manifest
                asked = None
        if self._stop:
            return None
        raise DeadlineExceeded(
            f"no whole batch for step {self._step} within deadlines.batch_s={self._config.deadlines.batch_s:g}: "
            f"{self._progress.diagnosis(self._fleet)}"
        )

    def _publish(self) -> SyncReport:
        """Publish the learner's policy to everybody alive; remember it in the ledger."""
        self._progress.waiting(f"weight sync of policy {self._step}")
        try:
            report = self._sync.publish(self._learners.ranks, self._fleet.alive(), self._step)
        except InfrastructureError as e:
            self._learners.kill()
            raise LearnerLost(f"the learner was lost while it published policy {self._step}: {e}") from e
        self._fleet.synced(report.synced, report.version)
        for name, reason in report.stale.items():
            self._fleet.out_of_sync(name, reason)
        for name, reason in report.out.items():
            self._fleet.lost(name, reason)
        if report.digest:
            self._ask_queue("publish", report.version, self._incarnation, report.digest)
        self._progress.synced(report)
        return report

    # -- checkpoints, evaluations, end --------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._progress.waiting(f"checkpoint of policy {self._step}")
        name = f"step_{self._step:06d}"
        folder = self._parts.folder.checkpoints
        self._call_learners("save_checkpoint", str(folder / name), f"save checkpoint {name}")
        self._ask_queue("commit", self._step, name)
        self._saved = self._step
        self._call_learners("prune_checkpoints", str(folder), "remove old checkpoints")
        self._writer.event("checkpoint", policy_version=self._step, name=name)

    def _first_evaluation(self) -> None:
        """Before the first step, so that its figures are those of the policy that training starts from."""
        if self._step == 0 and not self._progress.evaluated(0):
            self._evaluate_now(0)

    def _evaluate_now(self, step: int) -> None:
        """Evaluate and wait: before the first and after the last step."""
        self._evaluator.start(step)
        self._progress.waiting(f"evaluation of policy {step}")
        until = time.monotonic() + self._config.deadlines.evaluation_s
        while self._evaluator.busy:
            self.tick()
            if self._fleet.unsynced():
                self._publish()
            if time.monotonic() > until:
                raise DeadlineExceeded(
                    f"policy {step} was not evaluated within deadlines.evaluation_s="
                    f"{self._config.deadlines.evaluation_s:g}: {self._progress.diagnosis(self._fleet)}"
                )
            time.sleep(0.02)  # the futures of all parts; ticks are cheap

    def _evaluated(self, row: dict[str, Any]) -> None:
        self._writer.evaluation(row)
        self._progress.evaluation(row)

    def _finish(self, finished: bool) -> None:
        if self._saved != self._step:
            self._checkpoint()
        if not finished:
            return
        self._progress.state("finishing")
        if not self._progress.evaluated(self._step):
            self._evaluate_now(self._step)
        if self._config.checkpoint.export_final:
            self._progress.waiting("the final model to be exported")
            self._call_learners("export", str(self._parts.folder.final), "export the final model")

    def _ask_queue(self, method: str, *args: Any) -> Any:
        return call_one(
            self._queue,
            method,
            *args,
            deadline_s=self._config.deadlines.rpc_s,
            what=f"the ledger to {method} (deadlines.rpc_s)",
            tick=self.tick,
        )
