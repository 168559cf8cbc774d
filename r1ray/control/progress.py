"""Status of a run: status.json, the view on the terminal, and the metrics that only the controller knows."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from r1ray.control.fleet import Fleet
from r1ray.control.handles import Handle, QueueApi
from r1ray.control.health import State
from r1ray.control.managed_actors import RayManagedActors
from r1ray.control.process_memory import memory_metrics, process_memory
from r1ray.control.rollout_pace import RolloutPace
from r1ray.control.run_telemetry import RunTelemetry, merged_budgets
from r1ray.control.sync import SyncReport
from r1ray.control.watchdog import Stage
from r1ray.ledger.records import LedgerStatus
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.run.status import ENDED
from r1ray.run.view import View
from r1ray.types import BatchManifest
from r1ray.util.files import is_disk_full

STATUS_EVERY_S = 1.0


class Progress:
    """Collects facts and writes them once a second."""

    def __init__(
        self,
        *,
        folder: RunFolder,
        view: View,
        writer: MetricsWriter,
        telemetry: RunTelemetry,
        steps: int,
        sources: Iterable[str],
        evaluations: list[dict[str, Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sources`: names of the evaluation sources; `evaluations`: rows of earlier drivers of the run."""
        self._folder = folder
        self._view = view
        self._writer = writer
        self._telemetry = telemetry
        self._steps = steps
        self._clock = clock
        self._began = clock()
        self._written = float("-inf")
        self._status_request: Future[LedgerStatus] | None = None
        self._ledger: LedgerStatus | None = None
        self._sync: tuple[SyncReport, float] | None = None
        self.stage = Stage.DEADLINE
        self._state = "starting"
        self._message = ""
        self.warning = ""
        """What is wrong at present although the run continues; "" if nothing is."""
        self._waiting_for = ""
        self._paused: tuple[str, float] | None = None  # the reason, and since when
        self._managed: dict[str, tuple[str, int | None]] = {}
        self._memory: dict[str, float] = {}  # of managed actors
        self.budgets: Sequence[Callable[[], Mapping[str, float]]] = ()
        """Each returns the used share of budgets after which the run ends, by key."""
        self.stalled_s = 0.0
        """For how long nothing has moved although something should."""
        self._sources = tuple(sources)
        self._evaluations = {(row["step"], row["source"]): row for row in evaluations}
        self._last_row: dict[str, Any] = {}
        self.step = 0
        """The step after the last one whose records are written."""
        self._step_ends: list[float] = []
        self._pace = RolloutPace()

    # -- facts --------------------------------------------------------------------------------------------------

    def state(self, state: str, message: str = "") -> None:
        """Set the run's state and its message."""
        self._state, self._message = state, message
        self._written = float("-inf")

    def waiting(self, stage: Stage, for_what: str) -> None:
        """The controller waits for something, in this stage."""
        self.stage, self._waiting_for = stage, for_what

    def paused(self, what: str | None) -> None:
        """The run pauses because of an outage that ends by itself; None: it continues."""
        if what is not None and self._paused is None:
            self._paused = (what, self._clock())
            self._writer.event("paused", reason=what)
        elif what is None and self._paused is not None:
            self._writer.event("resumed", seconds=self._clock() - self._paused[1])
            self._paused = None
        self._written = float("-inf")

    @property
    def pausing(self) -> bool:
        """Whether the run pauses because of an outage."""
        return self._paused is not None

    def synced(self, report: SyncReport) -> None:
        """A policy was published."""
        self._sync = (report, self._clock())
        self._telemetry.synced(report)
        if report.stale or report.out:
            self._writer.event("sync_incomplete", version=report.version, stale=report.stale, out=report.out)
        for process, reason in report.retried:
            if process not in report.stale and process not in report.out:  # these have events of their own
                self._writer.event("sync_retried", version=report.version, process=process, reason=reason)

    def evaluation(self, row: dict[str, Any]) -> None:
        """A source was evaluated."""
        self._evaluations[row["step"], row["source"]] = row
        self._written = float("-inf")

    def _newest_evaluation(self) -> dict[str, Any] | None:
        """The figures of the first source, the main one, at the newest evaluated step."""
        newest = max((step for step, _ in self._evaluations), default=None)
        return next((row for (step, _), row in self._evaluations.items() if step == newest), None)

    def evaluated(self, step: int) -> bool:
        """Whether all sources are evaluated with the policy of `step`."""
        return all((step, source) in self._evaluations for source in self._sources)

    def began(self, step: int) -> None:
        """Training continues from `step`: the first, or that of a checkpoint. Later evaluations are void."""
        self.step = step
        self._evaluations = {key: row for key, row in self._evaluations.items() if key[0] <= step}
        self._written = float("-inf")

    def stepped(self, row: dict[str, Any], manifest: BatchManifest) -> None:
        """The records of a step are written."""
        self._telemetry.stepped(row, manifest)
        self._last_row = dict(row)
        self.step = int(row["step"]) + 1
        self._state = "running"
        self._step_ends.append(self._clock())
        self._written = float("-inf")

    @property
    def ledger(self) -> LedgerStatus | None:
        """The newest counts of the ledger; None before the first."""
        return self._ledger

    # -- queries ------------------------------------------------------------------------------------------------

    def step_metrics(self, fleet: Fleet, report: SyncReport | None) -> dict[str, float]:
        """Metrics of the step that just ended: rates and idle shares of the rollout workers, queue, sync, time."""
        metrics = {
            **({} if report is None else self._pace.step(fleet.members) | report.metrics()),
            **memory_metrics(self._memory_of(fleet)),
            "time/elapsed_s": self._clock() - self._began,
        }
        if (ledger := self._ledger) is not None:
            metrics |= {
                "queue/ready": float(ledger.ready),
                "queue/leased": float(ledger.leased),
                "queue/dropped": float(ledger.dropped),
                "queue/reissued": float(ledger.reissued),
            }
            if ledger.copy is not None and ledger.copy.age_s is not None:
                metrics["queue/copy_age_s"] = ledger.copy.age_s
        return metrics

    def _memory_of(self, fleet: Fleet) -> dict[str, float]:
        return process_memory(fleet.members, self._memory, self._last_row)

    def marks(self, fleet: Fleet) -> tuple[float, ...]:
        """Counters of tokens, of scores, and of steps."""
        ledger = self._ledger
        scores = 0 if ledger is None else ledger.scored + ledger.taken + ledger.trained + ledger.dropped
        tokens = sum(m.stats.get("tokens", 0.0) for m in fleet.members.values())
        return (tokens, float(scores), float(self.step))

    def explain(self, fleet: Fleet) -> list[str]:
        """The lines of a diagnosis."""
        lines = [
            f"Waiting for {self._waiting_for}; processes to examine: {self.stage.value}.",
            f"{self.diagnosis(fleet)}.",
        ]
        lines += [f"{name}: {state}, process {pid}." for name, (state, pid) in self._managed.items()]
        if self._sync is not None:
            report, at = self._sync
            lines.append(f"The last weight sync was of policy {report.version}, {self._clock() - at:.0f} s ago.")
        return lines

    def diagnosis(self, fleet: Fleet) -> str:
        """One sentence on the state of workers and queue, for the error that ends a wait."""
        workers = ", ".join(f"{n} {m.state} (policy {m.version})" for n, m in fleet.members.items()) or "no worker"
        ledger = self._ledger
        queue = "the ledger has not answered yet"
        if ledger is not None:
            queue = f"{ledger.ready} groups ready, {ledger.leased} leased, {ledger.dropped} dropped "
            queue += f"{ledger.dropped_by_reason}"
            if ledger.awaited:
                queue += f", {ledger.awaited} of the leased ones reserved for this step (queue.reserve_after_stale)"
            if ledger.oldest_lease_s is not None:
                queue += f", lease {ledger.oldest_lease_group} at {ledger.oldest_lease_worker}"
                queue += f" for {ledger.oldest_lease_s:.0f} s"
        return f"{workers}; {queue}"

    def tick(self, fleet: Fleet, managed: RayManagedActors, queue: Handle[QueueApi]) -> None:
        """Once a second: request the ledger's counts, write status.json, refresh the view. Never blocks."""
        now = self._clock()
        self._managed, self._memory = managed.states(), managed.memory()
        if self._status_request is not None and self._status_request.done():
            # Callers that need the answer of a restarting ledger notice the failure; the status can do without one.
            if self._status_request.exception() is None:
                self._ledger = self._status_request.result()
            self._status_request = None
        if now - self._written < STATUS_EVERY_S:
            return
        self._written = now
        if self._status_request is None:
            self._status_request = queue.start(QueueApi.status)
        self.write(fleet)

    def write(self, fleet: Fleet) -> None:
        """Write status.json and refresh the view."""
        status = self._status(fleet)
        self._telemetry.observed(status, fleet.members)
        try:
            self._folder.write_status(status)
        except OSError as e:
            if not is_disk_full(e):  # the next status follows in a second
                raise
        if status["state"] == "starting":
            for phase, done in self._phases(fleet):
                self._view.phase(phase, int(done), 1)
        self._view.update(status)

    def _phases(self, fleet: Fleet) -> list[tuple[str, bool]]:
        ready = any(m.health.state is not State.RESTARTING for m in fleet.members.values())
        workers = [("rollout worker (vLLM)", ready)] if fleet.desired else []
        return [*workers, ("replay queue", self._ledger is not None)]

    def _status(self, fleet: Fleet) -> dict[str, Any]:
        step = self.step
        rates = {
            "rollout_tokens_per_s": self._last_row.get("rollout/tokens_per_s"),
            "learner_tokens_per_s": self._last_row.get("learner/tokens_per_s"),
        }
        state, message = self._state, self._message
        if state not in ENDED:
            message = message or self.warning
        if self._paused is not None and state not in ENDED:
            state, message = "paused", self._paused[0]
        workers = [
            {"id": n, "role": "rollout", "state": m.state, "version": m.version, "tokens_per_s": m.tokens_per_s}
            for n, m in fleet.members.items()
        ]
        status: dict[str, Any] = {
            "state": state,
            "waiting_for": self._waiting_for,
            "message": message,
            "step": step,
            "steps": self._steps,
            "workers": workers,
            "wanted_workers": fleet.desired,
            "actors": [{"id": n, "state": state, "pid": pid} for n, (state, pid) in self._managed.items()],
            "rates": rates,
            "bottleneck": self._telemetry.bottleneck,
            "budgets": merged_budgets(used() for used in self.budgets),
            "memory": self._memory_of(fleet),
            "stalled_s": self.stalled_s,
            "free_bytes": shutil.disk_usage(self._folder.path).free,
            "metrics": self._last_row or None,
            "evaluation": self._newest_evaluation(),
            "eta_s": self._eta(step),
            "elapsed_s": self._clock() - self._began,
            "updated": time.time(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        if (ledger := self._ledger) is not None:
            names = ("leased", "scored", "ready", "taken", "trained", "dropped", "oldest_lease_s", "free_bytes")
            copy_age_s = None if ledger.copy is None else ledger.copy.age_s
            if ledger.copy is not None and copy_age_s is None:  # none yet: an alert must see copies that never succeed
                copy_age_s = self._clock() - self._began
            status["queue"] = {**{n: getattr(ledger, n) for n in names}, "copy_age_s": copy_age_s}
        if self._sync is not None:
            report, at = self._sync
            status["last_sync"] = {"version": report.version, "seconds": report.seconds, "age_s": self._clock() - at}
            status["synced_version"] = report.version
            status["policy_version"] = report.version
        return status

    def _eta(self, step: int) -> float | None:
        """Estimated seconds left, from the last ten steps; None before two are done."""
        recent = self._step_ends[-11:]
        if len(recent) < 2:
            return None
        return (self._steps - step) * (recent[-1] - recent[0]) / (len(recent) - 1)
