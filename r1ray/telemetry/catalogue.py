"""Every Prometheus metric of r1ray: its name, kind, labels and meaning. The one place where a metric is declared.

Ray exports `steps` of kind counter as `ray_r1ray_steps_total`; see `Metric.exported`. Every metric has the label `run`,
the id of the run, beside its own. The table in docs/monitoring.md, the dashboard and the alert rules are tested against
this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Owner = Literal["driver", "queue", "reward worker"]

RUN = "run"
"""Label that every metric has."""

PREFIX = "ray_r1ray_"
"""Ray puts `ray_` before the names of all metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `owner` is the only process that records it."""

    name: str  # with its unit: _seconds, _bytes, _tokens, _ratio (0 to 1); a count of things has none
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # of a histogram: upper bounds
    owner: Owner = "driver"

    @property
    def exported(self) -> str:
        """The name in PromQL; for a histogram without `_bucket`, `_sum` or `_count`."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"

    @property
    def series(self) -> tuple[str, ...]:
        """All names in PromQL under which Prometheus stores it."""
        endings = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.exported + ending for ending in endings)


def _gauge(name: str, doc: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", doc=doc, labels=labels)


def _counter(name: str, doc: str, *labels: str, owner: Owner = "driver") -> Metric:
    return Metric(name=name, kind="counter", doc=doc, labels=labels, owner=owner)


def _histogram(name: str, doc: str, *buckets: float, owner: Owner = "driver") -> Metric:
    return Metric(name=name, kind="histogram", doc=doc, buckets=buckets, owner=owner)


# -- progress
STEPS = _counter("steps", "training steps")
POLICY_VERSION = _gauge("policy_version", "version of the newest published policy")
STEP_SECONDS = _counter(
    "step_seconds", "wall-clock time of steps by part: wait (for the batch), train, sync, other", "part"
)
STALLED_SECONDS = _gauge("stalled_seconds", "time without a token, score or step while the run should make progress")
PAUSED = _gauge("paused", "1 while the run is paused by an outage, such as a full disk, else 0")
EVENTS = _counter("events", "events of the run by kind, as in events.jsonl", "kind")
EVALUATION_ACCURACY_RATIO = _gauge("evaluation_accuracy_ratio", "held-out accuracy of the newest evaluation", "source")

# -- tokens
TRAINED_TOKENS = _counter("trained_tokens", "tokens of trained batches, prompts included")
PACKED_TOKENS = _counter("packed_tokens", "rows that the learner computed; a shared prompt counts once")
ROLLOUT_TOKENS = _counter("rollout_tokens", "completion tokens generated", "worker")
ROLLOUT_SECONDS = _counter("rollout_seconds", "time of the rollout engines by activity: busy, idle", "activity")
ROLLOUT_WORKERS = _gauge(
    "rollout_workers", "rollout workers by state: healthy, starting, stale, suspect, draining", "state"
)

# -- what is learned
REWARD_MEAN = _gauge("reward_mean", "mean reward of the last step")
REWARD_STD = _gauge("reward_std", "standard deviation of rewards within groups, averaged over groups")
REWARD_PART = _gauge("reward_part", "mean of each unweighted reward in the last step", "part")
LENGTH_TOKENS = _gauge("length_tokens", "mean length of completions in the last step")
TRUNCATED_RATIO = _gauge("truncated_ratio", "share of completions cut off at the length limit")
ENTROPY_NATS = _gauge("entropy_nats", "mean entropy per token")
KL_NATS = _gauge("kl_nats", "mean KL divergence from the reference per token")
CLIPPED_RATIO = _gauge("clipped_ratio", "share of tokens whose probability ratio is clipped")
LOSS = _gauge("loss", "surrogate loss of the last step")
GRADIENT_NORM = _gauge("gradient_norm", "norm of the gradient before clipping")
SKIPPED_UPDATES = _counter("skipped_updates", "optimizer updates skipped because loss or gradient was not finite")
MISMATCH_MEAN_NATS = _gauge("mismatch_mean_nats", "mean |log-probability of learner - vLLM|, same policy")
MISMATCH_MAX_NATS = _gauge("mismatch_max_nats", "maximum |log-probability of learner - vLLM|, same policy")
STALENESS_STEPS = _histogram("staleness_steps", "staleness of each trained group", 0.5, 1.5, 2.5, 4.5, 8.5, 16.5)

# -- queue
QUEUE_GROUPS = _gauge("queue_groups", "groups by state: leased, ready, taken, trained, dropped", "state")
OLDEST_LEASE_SECONDS = _gauge("oldest_lease_seconds", "age of the oldest group in flight")
LEDGER_COPY_AGE_SECONDS = _gauge(
    "ledger_copy_age_seconds",
    "age of the ledger's copy in the run folder (run.ledger_dir); before the first copy, time since the start",
)
LEDGER_PUT_SECONDS = _histogram(
    "ledger_put_seconds", "time to store scored groups durably", 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, owner="queue"
)

# -- weight sync
SYNC_SECONDS = _histogram("sync_seconds", "duration of a weight sync", 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SYNC_BYTES = _counter("sync_bytes", "bytes of weights delivered to rollout workers")
SYNC_PAUSE_SECONDS = _gauge("sync_pause_seconds", "longest pause of generation in the last weight sync")

# -- rewards
SCORED_GROUPS = _counter("scored_groups", "groups scored, evaluation included", owner="reward worker")
SCORING_SECONDS = _histogram(
    "scoring_seconds", "time to score a group", 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, owner="reward worker"
)
SANDBOX_KILLS = _counter(
    "sandbox_kills",
    "verifications and programs that were ended: timeout, memory, output (their limits), crash",
    "reason",
    owner="reward worker",
)

# -- resources
RESTARTS = _counter("restarts", "lost processes, by role: rollout, learner, reward, queue", "role")
BUDGET_USED_RATIO = _gauge("budget_used_ratio", "used share of a budget after which the run ends, by its key", "budget")
PROCESS_MEMORY_BYTES = _gauge("process_memory_bytes", "resident memory of a process; 0 once it is gone", "process")
DISK_FREE_BYTES = _gauge(
    "disk_free_bytes", "free space on the disk of a folder: run.dir, and run.ledger_dir if it is set", "folder"
)

CATALOGUE: dict[str, Metric] = {
    metric.name: metric for metric in list(globals().values()) if isinstance(metric, Metric)
}
"""All metrics by name."""
