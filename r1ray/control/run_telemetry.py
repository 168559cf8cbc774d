"""Prometheus metrics of a run that the driver knows: from its step records, events, weight syncs and status.

The other processes answer the driver's health checks, so their counters are exported here, once, and not by each of
them too. What the driver does not see is recorded where it happens (`Metric.owner`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from r1ray.config.schema import Config
from r1ray.control.health import State
from r1ray.control.member import DRAINING, Member
from r1ray.control.sync import SyncReport
from r1ray.run.bottleneck import STEPS, find_bottleneck
from r1ray.telemetry import catalogue as c
from r1ray.telemetry.catalogue import Metric
from r1ray.telemetry.logs import at
from r1ray.telemetry.recorder import Recorder
from r1ray.types import FOREIGN_POLICY, BatchManifest

STATES = (*(state.value for state in State), DRAINING)

GAUGES: dict[str, Metric] = {
    "reward/mean": c.REWARD_MEAN,
    "reward/std": c.REWARD_STD,
    "length/mean": c.LENGTH_TOKENS,
    "length/truncated": c.TRUNCATED_RATIO,
    "train/entropy": c.ENTROPY_NATS,
    "train/kl": c.KL_NATS,
    "train/clip_fraction": c.CLIPPED_RATIO,
    "train/loss": c.LOSS,
    "train/grad_norm": c.GRADIENT_NORM,
    "mismatch/mean": c.MISMATCH_MEAN_NATS,
    "mismatch/max": c.MISMATCH_MAX_NATS,
}
"""Metrics of a step (metrics.jsonl) that are gauges."""

COUNTERS: dict[str, Metric] = {
    "batch/tokens": c.TRAINED_TOKENS,
    "batch/packed_tokens": c.PACKED_TOKENS,
    "train/skipped": c.SKIPPED_UPDATES,
}
"""Metrics of a step that are added up."""

_PART = "reward/part/"


class RunTelemetry:
    """Translates what happens in a run into metrics. Repeated steps count again: they are work that was done."""

    def __init__(self, recorder: Recorder, config: Config) -> None:
        self._recorder = recorder
        self._config = config
        self._rows: deque[Mapping[str, float]] = deque(maxlen=STEPS + 1)  # of the last steps
        self._seen: dict[str, dict[str, float]] = {}  # worker -> its counters at the last look
        self._processes: set[str] = set()

    def event(self, event: Mapping[str, Any]) -> None:
        """An event was recorded."""
        kind = str(event["kind"])
        self._recorder.add(c.EVENTS, kind=kind)
        if kind == "worker_lost":
            self._recorder.add(c.RESTARTS, role="rollout")
        elif kind == "learner_lost":
            self._recorder.add(c.RESTARTS, role="learner")
        elif kind == "actor_lost":
            self._recorder.add(c.RESTARTS, role=str(event["actor"]).partition("-")[0])

    def stepped(self, row: Mapping[str, float], manifest: BatchManifest) -> None:
        """A step was trained; `row` is its line in metrics.jsonl."""
        at(step=int(row["step"]) + 1)
        self._rows.append(row)
        record = self._recorder
        record.add(c.STEPS)
        for name, metric in GAUGES.items():
            if name in row:
                record.set(metric, float(row[name]))
        for name, metric in COUNTERS.items():
            record.add(metric, float(row.get(name, 0.0)))
        for name in row:
            if name.startswith(_PART):
                record.set(c.REWARD_PART, float(row[name]), part=name.removeprefix(_PART))
        for group in manifest.groups:
            if group.min_policy_version != FOREIGN_POLICY:
                record.observe(c.STALENESS_STEPS, float(manifest.step - group.min_policy_version))
        parts = {"wait": row["batch/wait_s"], "train": row["learner/step_s"], "sync": row.get("sync/seconds", 0.0)}
        parts["other"] = max(0.0, row["time/step_s"] - sum(parts.values()))
        for part, seconds in parts.items():
            record.add(c.STEP_SECONDS, float(seconds), part=part)

    @property
    def bottleneck(self) -> str | None:
        """What limits the speed of the last steps, and the remedy, in one sentence; None: not known yet."""
        config = self._config
        found = find_bottleneck(
            list(self._rows),
            ranks=config.learner.ranks,
            workers=config.rollout.workers,
            max_staleness=config.queue.max_staleness,
            sequence_parallel=config.learner.sequence_parallel,
        )
        return None if found is None else found.text

    def synced(self, report: SyncReport) -> None:
        """A policy was published."""
        at(version=report.version)
        self._recorder.set(c.POLICY_VERSION, float(report.version))
        self._recorder.observe(c.SYNC_SECONDS, report.seconds)
        self._recorder.set(c.SYNC_PAUSE_SECONDS, report.apply_s)
        self._recorder.add(c.SYNC_BYTES, float(report.wire_bytes * len(report.synced)))

    def observed(self, status: Mapping[str, Any], members: Mapping[str, Member]) -> None:
        """About once a second, with the record of status.json."""
        record = self._recorder
        record.set(c.PAUSED, float(status["state"] == "paused"))
        record.set(c.STALLED_SECONDS, status["stalled_s"])
        record.set(c.DISK_FREE_BYTES, float(status["free_bytes"]), folder="run.dir")
        for key, used in status["budgets"].items():
            record.set(c.BUDGET_USED_RATIO, used, budget=key)
        for state in STATES:
            here = sum(member.state == state for member in members.values())
            record.set(c.ROLLOUT_WORKERS, float(here), state=state)
        if (queue := status.get("queue")) is not None:
            for state in ("leased", "ready", "taken", "trained", "dropped"):
                record.set(c.QUEUE_GROUPS, float(queue[state]), state=state)
            record.set(c.OLDEST_LEASE_SECONDS, float(queue["oldest_lease_s"] or 0.0))
            if queue["copy_age_s"] is not None:
                record.set(c.LEDGER_COPY_AGE_SECONDS, queue["copy_age_s"])
            if queue["free_bytes"] is not None:
                record.set(c.DISK_FREE_BYTES, float(queue["free_bytes"]), folder="run.ledger_dir")
        if (row := status.get("evaluation")) is not None:
            record.set(c.EVALUATION_ACCURACY_RATIO, float(row["accuracy"]), source=str(row["source"]))
        self._count_rollouts(members)
        self._set_memory(status["memory"])

    def _count_rollouts(self, members: Mapping[str, Member]) -> None:
        for name, member in members.items():
            now = {key: member.stats.get(key, 0.0) for key in ("tokens", "busy_s", "idle_s")}
            before = self._seen.get(name, {})
            self._seen[name] = now
            grown = {key: value - before.get(key, 0.0) for key, value in now.items()}
            self._recorder.add(c.ROLLOUT_TOKENS, grown["tokens"], worker=name)
            for activity in ("busy", "idle"):
                self._recorder.add(c.ROLLOUT_SECONDS, grown[f"{activity}_s"], activity=activity)

    def _set_memory(self, memory: Mapping[str, float]) -> None:
        for name, used in memory.items():
            self._recorder.set(c.PROCESS_MEMORY_BYTES, float(used), process=name)
        for name in self._processes - memory.keys():  # a gauge keeps its last value
            self._recorder.set(c.PROCESS_MEMORY_BYTES, 0.0, process=name)
        self._processes = set(memory)


def merged_budgets(sources: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Used share of each budget by key; of several with one key the largest."""
    merged: dict[str, float] = {}
    for source in sources:
        for key, used in source.items():
            merged[key] = max(used, merged.get(key, 0.0))
    return merged
