"""The figures of a run for reports, README and comparisons, computed from its record."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from r1ray.report.record import RunRecord, load_record
from r1ray.run.memory_growth import memory_growth
from r1ray.run.metrics import Row
from r1ray.util.formatting import duration, number, share

Value = float | int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table of figures."""

    key: str
    label: str
    show: Callable[[float], str]
    value: Value

    @property
    def text(self) -> str:
        """The formatted value; a dash if the run has none."""
        if self.value is None:
            return "–"
        return self.value if isinstance(self.value, str) else self.show(self.value)


def figures(run_dir: Path) -> dict[str, Value]:
    """Return all figures by key; None if the run did not get far enough. docs/report.md explains each key."""
    return {figure.key: figure.value for figure in figure_table(load_record(run_dir))}


def figure_table(run: RunRecord) -> list[Figure]:
    """Return the figures with their labels, in the order of the report's table.

    "start" is the base policy, "end" the newest evaluated policy or the last training step;
    "held out" is the first evaluation source of the configuration. Shares are in [0, 1], lengths in
    tokens, times in seconds.
    """
    return [*_heldout(run), *_training(run), *_speed(run), *_memory(run), *_faults(run)]


def _heldout(run: RunRecord) -> list[Figure]:
    source = run.sources[0] if run.sources else None
    rows = run.evaluated(source)
    # There is a start only if the base policy itself was evaluated.
    start = rows[0] if rows and rows[0]["step"] == 0 else {}
    end = rows[-1] if rows else {}
    out = [
        Figure(key="heldout_source", label="Held-out source", show=str, value=source),
        Figure(key="heldout_step", label="Evaluated policy", show=number, value=end.get("step")),
    ]
    parts = [(f"heldout_part/{n}", f"part/{n}", f"Held-out {n.replace('_', ' ')}", number) for n in run.heldout_parts]
    for key, name, label, show in (
        ("heldout_accuracy", "accuracy", "Held-out accuracy, sampled", share),
        ("heldout_greedy_accuracy", "greedy_accuracy", "Held-out accuracy, greedy", share),
        ("heldout_consensus", "consensus", "Held-out accuracy, majority vote", share),
        ("heldout_format", "format", "Held-out format", share),
        ("heldout_length", "length", "Held-out response length, tokens", number),
        ("heldout_loss", "loss", "Held-out loss, nats per token", number),
        ("heldout_token_accuracy", "token_accuracy", "Held-out token accuracy", share),
        *parts,
    ):
        out.append(Figure(key=f"{key}_start", label=f"{label}: start", show=show, value=start.get(name)))
        out.append(Figure(key=key, label=f"{label}: end", show=show, value=end.get(name)))
    error = Figure(
        key="heldout_accuracy_se", label="Held-out accuracy: standard error", show=share, value=end.get("accuracy_se")
    )
    return [*out[:4], error, *out[4:]]


def _training(run: RunRecord) -> list[Figure]:
    first, last = (run.metrics[0], run.metrics[-1]) if run.metrics else ({}, {})
    return [
        Figure(key="steps", label="Training steps", show=number, value=run.steps),
        Figure(key="reward_start", label="Reward: first step", show=number, value=first.get("reward/mean")),
        Figure(key="reward_end", label="Reward: last step", show=number, value=last.get("reward/mean")),
        Figure(key="length_start", label="Length, tokens: first step", show=number, value=first.get("length/mean")),
        Figure(key="length_end", label="Length, tokens: last step", show=number, value=last.get("length/mean")),
        Figure(key="staleness_mean", label="Staleness, steps: mean", show=number, value=_mean(run, "staleness/mean")),
        Figure(key="staleness_max", label="Staleness, steps: maximum", show=number, value=_max(run, "staleness/max")),
        Figure(
            key="mismatch_max", label="Log-probability mismatch: maximum", show=number, value=_max(run, "mismatch/max")
        ),
    ]


def _speed(run: RunRecord) -> list[Figure]:
    seconds, tokens = _measured(run)
    ended = run.metrics[0]["time"] if run.metrics else -math.inf
    began = max((event["time"] for event in run.starts if event["time"] <= ended), default=None)
    first_step = None if began is None else ended - began
    rows = (
        ("seconds_to_first_step", "Start to the end of the first step", duration, first_step),
        ("training_seconds", "Training after the first step", duration, seconds or None),
        (
            "completion_tokens_per_second",
            "Completion tokens trained per second",
            number,
            tokens / seconds if seconds and tokens else None,
        ),
        (
            "rollout_tokens_per_second",
            "Rollout tokens per second: median",
            number,
            _median(run, "rollout/tokens_per_s"),
        ),
        (
            "learner_tokens_per_second",
            "Learner tokens per second: median",
            number,
            _median(run, "learner/tokens_per_s"),
        ),
        ("rollout_idle_share", "Rollout idle: mean", share, _mean(run, "rollout/idle_share")),
        ("learner_idle_share", "Learner idle: mean", share, _mean(run, "learner/idle_share")),
        ("sync_seconds", "Weight sync, seconds: median", number, _median(run, "sync/seconds")),
    )
    return [Figure(key=key, label=label, show=show, value=value) for key, label, show, value in rows]


def _memory(run: RunRecord) -> list[Figure]:
    """Growth of each kind of process: bytes per step after the first fifth of the run."""
    return [
        Figure(
            key=f"memory_growth/{each.process}",
            label=f"Memory of {each.process}: growth per step, MiB",
            show=number,
            value=each.bytes_per_step / 2**20,
        )
        for each in memory_growth(run.metrics)
    ]


def _faults(run: RunRecord) -> list[Figure]:
    kinds = [event["kind"] for event in run.events]
    counts = [
        ("workers_lost", "Rollout workers lost", kinds.count("worker_lost")),
        ("learners_lost", "Learners lost", kinds.count("learner_lost")),
        ("resumes", "Resumes", max(0, len(run.starts) - 1)),
        ("hacking_warnings", "Reward hacking warnings", kinds.count("reward_hacking")),
        ("dropped_groups", "Groups dropped", sum(run.dropped.values())),
    ]
    left_out: dict[str, dict[str, int]] = next(
        (event["left_out"] for event in reversed(run.events) if "left_out" in event), {}
    )
    for source, reasons in left_out.items():
        for reason, count in reasons.items():
            label = f"Rows of {source} excluded: {reason.replace('_', ' ')}"
            counts.append((f"left_out/{source}/{reason}", label, count))
    for reason, count in run.dropped.items():
        counts.append((f"dropped_groups/{reason}", f"Groups dropped: {reason.replace('_', ' ')}", count))
    return [Figure(key=key, label=label, show=number, value=count) for key, label, count in counts]


def _measured(run: RunRecord) -> tuple[float, float]:
    """Return the seconds of training after the first step, and the completion tokens trained in them.

    Weight syncs, waits, checkpoints and evaluations between two steps count. The time between a kill
    and the resume does not.
    """
    per_step = (run.setting("learner.groups_per_step") or 0) * (run.setting("rollout.group_size") or 0)
    starts = [event["time"] for event in run.starts]
    seconds = tokens = 0.0
    for before, row in itertools.pairwise(run.metrics):
        if not any(before["time"] < start <= row["time"] for start in starts):
            seconds += row["time"] - before["time"]
            tokens += per_step * row.get("length/mean", 0.0)
    return seconds, tokens


def _finite(rows: Iterable[Row], key: str) -> list[float]:
    return [row[key] for row in rows if key in row and math.isfinite(row[key])]


def _mean(run: RunRecord, key: str) -> float | None:
    values = _finite(run.metrics, key)
    return fmean(values) if values else None


def _median(run: RunRecord, key: str) -> float | None:
    values = _finite(run.metrics, key)
    return median(values) if values else None


def _max(run: RunRecord, key: str) -> float | None:
    values = _finite(run.metrics, key)
    return max(values) if values else None
