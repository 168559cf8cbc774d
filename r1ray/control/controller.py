"""The control loop of a run: one thread that waits for batches, trains, publishes policies and supervises.

      +--> batch(step) ----> train(step) ----> publish(step + 1) ----> checkpoint, evaluate, log --+
      |    waits for the     all learner       learner -> workers      if due                      |
      |    ledger; syncs     ranks                                                                 |
      |    returned workers                                                                        |
      +--------------------------------------------------------------------------------------------+

Rollout and reward workers run on their own, fed and bounded by the ledger alone; no prompt or group passes through this
loop. While it waits for anything, `tick` supervises the processes, the evaluations, the status, dropped groups and
stalls. docs/walkthrough.md follows one step through the modules of this package.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from r1ray.config.schema import Config
from r1ray.control.autoscaling import autoscaler_of
from r1ray.control.calls import TICK_S, pause
from r1ray.control.checkpointed_learner import CheckpointedLearner, DivergedError
from r1ray.control.commands import Commands, Scaling
from r1ray.control.copy_monitor import CopyMonitor, open_ledger
from r1ray.control.drop_monitor import DropMonitor
from r1ray.control.evaluator import Evaluator
from r1ray.control.fleet import Fleet
from r1ray.control.handles import Handle, LearnerApi, QueueApi
from r1ray.control.learners import LearnerGroup
from r1ray.control.managed_actors import RayManagedActors
from r1ray.control.outages import OutageTracker, QueueClient
from r1ray.control.progress import Progress
from r1ray.control.publishing import Publishing
from r1ray.control.stalls import Stalls
from r1ray.control.step_profile import StepProfile
from r1ray.control.step_records import EndedStep, StepRecords
from r1ray.control.stop import Stop
from r1ray.control.sync import WeightSync
from r1ray.control.training import Training
from r1ray.control.training_loop import TrainingLoop
from r1ray.control.watchdog import Stage
from r1ray.errors import DeadlineExceeded, InfrastructureError
from r1ray.run.folder import RunFolder
from r1ray.run.heldout_bounds import heldout_falls
from r1ray.run.metrics import MetricsWriter, read_evaluations
from r1ray.transport.channel import Rendezvous
from r1ray.types import BatchManifest

BATCH_POLL_S = 2.0
"""How long the ledger waits for a complete batch before it answers None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a run, built by the composition root."""

    folder: RunFolder
    writer: MetricsWriter
    queue: Handle[QueueApi]
    learners: Callable[[Callable[[], None]], LearnerGroup[LearnerApi]]
    fleet: Fleet
    managed: RayManagedActors
    stalls: Stalls
    progress: Progress
    stop: Stop
    commands: Commands
    abort: Callable[[Rendezvous, str], object]
    profile: StepProfile | None = None  # None: no step is profiled


class Controller(TrainingLoop):
    """The control loop of policy optimization."""

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(parts.writer, parts.stop, parts.commands)
        self._config = config
        self._folder = parts.folder
        self._fleet = parts.fleet
        self._managed = parts.managed
        self._stalls = parts.stalls
        self._progress = parts.progress
        self._outages = outages = OutageTracker(
            config.recovery.outage_timeout_s, tick=self.tick, on_pause=parts.progress.paused
        )
        self._queue = QueueClient(parts.queue, deadline_s=config.deadlines.rpc_s, outages=outages, tick=self.tick)
        self._training = Training(
            config,
            group=parts.learners(self.tick),
            queue=self._queue,
            outages=outages,
            folder=parts.folder,
            writer=parts.writer,
            tick=self.tick,
            profile=parts.profile,
        )
        self._publishing = Publishing(
            sync=WeightSync(
                config.sync,
                processes=config.rollout.engine.tensor_parallel_size,
                abort=parts.abort,
                tick=self.tick,
                stopping=lambda: parts.stop.requested,
            ),
            training=self._training,
            fleet=self._fleet,
            queue=self._queue,
            progress=self._progress,
        )
        self._evaluator = Evaluator(
            config, self._fleet.evaluation_sizes, self._evaluated, parts.writer.heldout_transcript
        )
        self._autoscaler = autoscaler_of(config, self._fleet, parts.writer.event)
        self._drops = DropMonitor(
            groups_per_step=config.learner.groups_per_step,
            max_dropped_batches=config.recovery.max_dropped_batches,
            on_event=parts.writer.event,
        )
        self._copies = CopyMonitor(config.run.ledger_copy_every_s, on_event=parts.writer.event)
        sources = (self._fleet, self._managed, self._training, outages, self._drops)
        self._progress.budgets = tuple(source.budgets for source in sources)
        self._records = StepRecords(
            config, writer=parts.writer, queue=self._queue, fleet=self._fleet, progress=parts.progress
        )
        self._leasing = True

    @property
    def _learner(self) -> CheckpointedLearner[LearnerApi]:
        return self._training

    @property
    def _last_step(self) -> int:
        return self._config.run.steps

    @property
    def _scaling(self) -> Scaling | None:
        return (self._autoscaler or self._fleet) if self._config.rollout.workers else None

    def _prepare(self) -> None:
        self._progress.state("starting")
        open_ledger(self._queue, self._folder, on_event=self._writer.event)
        self._fleet.tick()
        self._queue.call(QueueApi.release_all)

    def _diverged(self, error: DivergedError) -> None:
        self._training.roll_back(error)

    def _write_pending(self) -> None:
        self._records.write()

    def tick(self) -> None:
        """Supervise everything once; called at least every TICK_S seconds during any wait. Never blocks for long.

        Raises RunInterruptedError; before a stop also RetryBudgetExhausted and NoTrainableGroups.
        """
        super().tick()
        if not self._stop.requested:
            self._supervise()
            return
        # No failure beside the learner may keep the last checkpoint from being written.
        if self._leasing:
            self._leasing = False
            self._queue.handle.start(QueueApi.stop_leasing)
        self._progress.tick(self._fleet, self._managed, self._queue.handle)

    def _supervise(self) -> None:
        self._fleet.tick()
        self._managed.tick()
        self._outages.report_external("the workers' calls of the ledger", self._managed.problem)
        self._evaluator.tick(self._fleet.serving())
        self._progress.tick(self._fleet, self._managed, self._queue.handle)
        if self._autoscaler is not None:
            self._autoscaler.look(self._progress, evaluating=self._evaluator.busy)
        if (ledger := self._progress.ledger) is not None:
            warnings = (self._drops.look(ledger), self._copies.look(ledger))
            self._progress.warning = "; ".join(text for text in warnings if text)
        self._stalls.tick(self._progress, self._fleet, self._managed, self._training.group)

    def _begin(self) -> None:
        self._progress.waiting(Stage.DEADLINE, "learner to start")
        self._training.begin()
        self._progress.began(self._training.step)
        self._evaluator.back_to(self._training.step)
        self._publishing.publish()
        self._start_evaluation()  # one that was running ended with its driver

    def _train_one(self) -> None:
        if self._training.step == 0:  # the figures of the policy that training starts from
            self._evaluate_now()
        began = time.monotonic()
        manifest = self._batch()
        if manifest is None:
            return
        waited = time.monotonic() - began
        self._progress.waiting(Stage.STEP, f"learner to train step {self._training.step}")
        # The records of the previous step are written while the learner trains this one.
        trained = self._training.train(manifest, meanwhile=self._records.write)
        self._managed.succeeded()
        report = self._publishing.publish()
        self._records.keep(EndedStep(manifest, trained, waited, time.monotonic() - began, report))
        self._after_step()

    def _batch(self) -> BatchManifest | None:
        """The batch of this step; None if a stop was requested. Workers that return are synced during the wait."""
        step, deadline = self._training.step, self._config.deadlines.batch_s
        until = time.monotonic() + deadline
        request: Future[BatchManifest | None] | None = None
        while time.monotonic() < until:
            self._progress.waiting(Stage.BATCH, f"rollouts for step {step}")
            request = request or self._queue.handle.start(QueueApi.take, step, BATCH_POLL_S)
            wait([request], timeout=TICK_S)
            self.tick()
            if self._stop.requested:
                return None
            self._publishing.catch_up()
            if request.done():
                # An answer that was lost with its queue actor is requested again, until recovery.outage_timeout_s.
                lost = isinstance(request.exception(), InfrastructureError)
                manifest: BatchManifest | None = (
                    self._queue.call(QueueApi.take, step, 0.0) if lost else request.result()
                )
                if manifest is not None:
                    return manifest
                request = None
        raise DeadlineExceeded(
            f"no complete batch for step {step} within deadlines.batch_s={deadline:g}: "
            f"{self._progress.diagnosis(self._fleet)}"
        )

    def _after_step(self) -> None:
        if self._training.due or self._training.step >= self._config.run.steps:
            self._save()
        self._start_evaluation()

    def _start_evaluation(self) -> None:
        if self._evaluator.due(self._training.step) and not self._progress.evaluated(self._training.step):
            self._evaluator.start(self._training.step)

    def _save(self) -> None:
        self._records.write()
        self._progress.waiting(Stage.DEADLINE, f"checkpoint of policy {self._training.step}")
        self._training.checkpoint()

    def _evaluate_now(self) -> None:
        """Evaluate the present policy, unless that is done, and wait: before the first and after the last step."""
        step, deadline = self._training.step, self._config.deadlines.evaluation_s
        if self._progress.evaluated(step):
            return
        self._evaluator.start(step)
        until = time.monotonic() + deadline
        while self._evaluator.busy:
            self._progress.waiting(Stage.EVALUATION, f"evaluation of policy {step}")
            pause(0.02, self.tick)
            self._publishing.catch_up()
            if not self._fleet.serving():  # the start of a worker has a deadline of its own
                until = time.monotonic() + deadline
            if time.monotonic() > until:
                raise DeadlineExceeded(
                    f"policy {step} was not evaluated within deadlines.evaluation_s={deadline:g}: "
                    f"{self._progress.diagnosis(self._fleet)}"
                )

    def _evaluated(self, row: dict[str, Any]) -> None:
        self._writer.evaluation(row)
        self._progress.evaluation(row)

    def _finish(self) -> None:
        self._progress.state("finishing")
        self._save()
        self._evaluate_now()
        for fall in heldout_falls(read_evaluations(self._folder.path), self._config.hacking_monitor.max_heldout_fall):
            self._writer.event("heldout_bound", message=fall.text, within=fall.within)
        if self._config.checkpoint.export_final:
            self._progress.waiting(Stage.DEADLINE, "the final model to be exported")
            self._training.export()
