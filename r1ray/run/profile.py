"""The table of a profiled step: where its time goes, from the metrics of the steps and the phases of the learner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from r1ray.util.formatting import share

FOLDER = "profile"
"""In the run folder: traces, and STEP_TABLE."""
STEP_TABLE = "step.md"
TIMELINE = "ray.json"

PACK = "plan, fetch and pack"
REFERENCE = "reference and proximal"
FORWARD = "forward and loss"
BACKWARD = "backward"
REDUCE = "reduce gradients"
OPTIMIZER = "optimizer"
METRICS = "metrics"
PHASES = (PACK, REFERENCE, FORWARD, BACKWARD, REDUCE, OPTIMIZER, METRICS)
"""The phases of a training step in the learner, in the order of their first occurrence."""

Row = tuple[str, float]


def trace_name(rank: int) -> str:
    """The file of a rank's trace, in FOLDER."""
    return f"learner-{rank}.json"


def step_table(
    rows: Sequence[Mapping[str, float]], ranks: Sequence[Mapping[str, float]], checkpoints: Sequence[float]
) -> list[str]:
    """Lines of Markdown: the mean seconds of a step by part.

    `rows`: metrics of the profiled steps. `ranks`: seconds of each rank by phase, summed over these steps; the first
    rank's are shown, with the largest of all if there are several. `checkpoints`: seconds of each checkpoint after one
    of these steps.
    """
    if not rows:
        return ["No step was profiled."]
    step = _mean(rows, "time/step_s")
    first, last = int(rows[0]["step"]), int(rows[-1]["step"])
    steps = f"step {first}" if first == last else f"steps {first} to {last}"
    lines = [f"Time of a step: mean of {steps}, under the profiler.", "", "| part | seconds | share |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.4f} | {share(seconds / step)} |" for name, seconds in _parts(rows, ranks, step)]
    lines += [f"| the whole step | {step:.4f} | 100% |", ""]
    if len(ranks) > 1:
        busy = [sum(rank.values()) / len(rows) for rank in ranks]
        lines += [f"Phases are those of rank 0; the ranks spend {min(busy):.4f} to {max(busy):.4f} s in theirs.", ""]
    if checkpoints:
        lines.append(
            f"Checkpoints after these steps: {len(checkpoints)}, {fmean(checkpoints):.4f} s each, beside the step."
        )
    if "rollout/idle_share" in rows[0]:
        idle, paused = _mean(rows, "rollout/idle_share"), _mean(rows, "sync/apply_s") / step
        lines.append(
            f"Rollout workers, meanwhile: generate {share(max(0.0, 1 - idle - paused))}, apply weights "
            f"{share(paused)}, "
            f"idle {share(idle)}."
        )
    return lines


def _parts(rows: Sequence[Mapping[str, float]], ranks: Sequence[Mapping[str, float]], step: float) -> Iterator[Row]:
    wait, train = _mean(rows, "batch/wait_s"), _mean(rows, "learner/step_s")
    sync = _mean(rows, "sync/seconds") if "sync/seconds" in rows[0] else 0.0
    yield "wait for groups", wait
    yield "training", train
    phases = {name: ranks[0].get(name, 0.0) / len(rows) for name in PHASES} if ranks else {}
    for name, seconds in phases.items():
        if seconds:
            yield f"- {name}", seconds
    if phases:
        yield "- other", max(0.0, train - sum(phases.values()))
    if sync:
        yield "weight sync", sync
    yield "calls between processes, driver", max(0.0, step - wait - train - sync)


def _mean(rows: Sequence[Mapping[str, float]], key: str) -> float:
    return fmean(float(row.get(key, 0.0)) for row in rows)
