"""Resident memory of the processes of a run, from their answers to health checks.

A leak shows in it over many steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from r1ray.control.member import Member
from r1ray.util.machine import resident_bytes

LEARNER_MEMORY = "memory/learner_bytes"
"""Metric of a step, from the learner itself: resident memory of rank 0 after it."""


def process_memory(
    members: Mapping[str, Member], managed: Mapping[str, float], row: Mapping[str, float]
) -> dict[str, float]:
    """Bytes by process, as far as they are known: also of the driver, which is this process, and as "learner" of rank
    0, from the metrics `row` of the last step.
    """
    memory = {name: member.stats["rss_bytes"] for name, member in members.items() if "rss_bytes" in member.stats}
    if LEARNER_MEMORY in row:
        memory["learner"] = row[LEARNER_MEMORY]
    return {**memory, **managed, "driver": float(resident_bytes())}


def memory_metrics(memory: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a step: the largest process of each kind, but of learners, whose own metrics have it.

    Example: {"rollout-0": 5.0, "rollout-1": 7.0, "driver": 3.0} gives memory/rollout_bytes 7 and memory/driver_bytes 3.
    """
    largest: dict[str, float] = {}
    for name, used in memory.items():
        key = f"memory/{name.partition('-')[0]}_bytes"
        largest[key] = max(used, largest.get(key, 0.0))
    largest.pop(LEARNER_MEMORY, None)
    return largest
