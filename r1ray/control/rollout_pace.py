"""Rates of the rollout workers between two training steps, from their answers to health checks."""

from __future__ import annotations

from collections.abc import Mapping

from r1ray.control.member import Member

COUNTERS = ("tokens", "busy_s", "idle_s")


class RolloutPace:
    """`step` is called once per training step."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, float]] = {}  # worker -> its counters at the last step, and their time
        self._growth: dict[str, dict[str, float]] = {}  # worker -> growth of its counters between the last two steps

    def step(self, members: Mapping[str, Member]) -> dict[str, float]:
        """Tokens per second and idle share of all workers since the last step."""
        for name, member in members.items():
            before = self._seen.get(name)
            if before is not None and before["time"] == member.answered_at:
                continue  # no answer since the last step: keep its last rate
            now = {key: member.stats.get(key, 0.0) for key in COUNTERS}
            now["time"] = member.answered_at
            if before is not None:
                self._growth[name] = {key: now[key] - before[key] for key in now}
            self._seen[name] = now
        growth = [self._growth[name] for name in members if name in self._growth]
        waited, worked = (sum(g[key] for g in growth) for key in ("idle_s", "busy_s"))
        return {
            "rollout/tokens_per_s": sum(g["tokens"] / g["time"] for g in growth),
            "rollout/idle_share": waited / (waited + worked) if waited + worked else 0.0,
        }
