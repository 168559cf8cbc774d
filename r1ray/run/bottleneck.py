"""What limits the speed of a run, its remedy, and the gain to expect from it.

The control loop repeats wait for a batch, train, sync; rollout workers generate meanwhile. So a step takes the longer
of two sides, the loop without its wait and the work of the rollout workers for one step, and the time in which both
wait. Each remedy shortens one part of this model; the bottleneck is the part whose remedy gains most. Gains are upper
bounds: a further rank or worker is assumed to have a processor of its own and no cost of communication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from r1ray.util.formatting import duration, share

STEPS = 20
"""Steps that the medians are taken over, the newest."""
FEWEST = 4
"""Fewer steps say nothing: the first ones include starts."""
WORTH = 1.05
"""A smaller gain is within the noise of a step's time."""

_LOOP = ("learner/step_s", "batch/wait_s", "time/step_s")
_ROLLOUTS = ("sync/seconds", "rollout/idle_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """`gain`: time of a step now over its predicted time with the remedy; 1.0 if none is worth it."""

    name: str
    gain: float
    text: str  # one sentence: what limits, the evidence, the remedy and its gain


def find_bottleneck(
    rows: Sequence[Mapping[str, Any]], *, ranks: int, workers: int, max_staleness: int, sequence_parallel: int = 1
) -> Bottleneck | None:
    """The bottleneck of the last steps; None if there are too few. `rows` are lines of metrics.jsonl.

    `workers` 0: a replay. Ranks come in groups of `sequence_parallel`.

    Worked example: of 2.0 s the learner trains 1.9 and syncs 0.1, and the rollout workers idle half of the time. A
    second rank takes 0.95 + 0.1 s, the rollout workers need 1.0 s: 2.0 / 1.05 = 1.9 times as fast.
    """
    keys = (*_LOOP, *_ROLLOUTS) if workers else _LOOP
    recent = [row for row in rows if all(key in row for key in keys)][1:][-STEPS:]
    if len(recent) < FEWEST - 1:
        return None
    train, wait, step, *of_rollouts = (median(float(row[key]) for row in recent) for key in keys)
    if step <= 0:
        return None
    loop, more = step - wait, ranks + sequence_parallel
    unit = "rank" if sequence_parallel == 1 else f"group of {sequence_parallel} ranks"
    rank, saved = (
        f"{_another(unit, ranks // sequence_parallel)} (learner.ranks={more})",
        train * sequence_parallel / more,
    )
    evidence = (
        f"a step takes {duration(step)}, of which the learner trains {share(train / step)} and waits for its batch "
        f"{share(wait / step)}"
    )
    if not of_rollouts:
        return _most_gained(step, evidence, {"learner-bound": (step - saved, rank)})
    sync, idle = of_rollouts
    rollouts = step * (1 - idle)
    both_wait = max(0.0, step - max(loop, rollouts))
    remedies = {
        "learner-bound": (both_wait + max(loop - saved, rollouts), rank),
        "rollout-bound": (
            both_wait + max(loop, rollouts * workers / (workers + 1)),
            f"{_another('rollout worker', workers)} (rollout.workers={workers + 1})",
        ),
        "sync-bound": (
            both_wait + max(loop - sync / 2, rollouts),
            "half the time of weight syncs (sync.transport, sync.digest)",
        ),
        "waiting for each other": (
            max(loop, rollouts),
            f"more overlap (queue.max_staleness={max_staleness + 1}, or more reward workers if groups wait for "
            "scoring)",
        ),
    }
    return _most_gained(step, f"{evidence}; the rollout workers idle {share(idle)}", remedies)


def _most_gained(step: float, evidence: str, remedies: Mapping[str, tuple[float, str]]) -> Bottleneck:
    """The bottleneck by the predicted seconds of a step under each remedy."""
    name = min(remedies, key=lambda each: remedies[each][0])
    predicted, remedy = remedies[name]
    gain = step / predicted if predicted > 0 else 1.0
    if gain < WORTH:
        text = f"balanced: {evidence}; only more of both sides would be faster"
        return Bottleneck(name="balanced", gain=1.0, text=text)
    return Bottleneck(name=name, gain=gain, text=f"{name}: {evidence}; {remedy} would give up to {gain:.1f}x")


def _another(what: str, present: int) -> str:
    return f"a second {what}" if present == 1 else f"one more {what}"
