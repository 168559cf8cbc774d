"""The learner ranks as one: they start, work and die together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from r1ray.config.schema import Config
from r1ray.control.calls import Remote, gather
from r1ray.errors import DeadlineExceeded, InfrastructureError, ProcessDied


class LearnerLost(InfrastructureError):
    """A rank died or hung, and the group with it; it is to be restarted from the last whole checkpoint."""


class LearnerGroup:
    """`spawn(rank)` starts one rank. A call goes to all ranks, since all of them meet in its collectives."""

    def __init__(self, config: Config, *, spawn: Callable[[int], Remote], tick: Callable[[], None]) -> None:
        self._config = config
        self._spawn = spawn
        self._tick = tick
        self.ranks: list[Remote] = []

    def start(self) -> dict[str, Any]:
        """Start all ranks and join them; returns what rank 0 says of the model. Raises LearnerLost."""
        self.ranks = [self._spawn(rank) for rank in range(self._config.learner.ranks)]
        deadline = self._config.deadlines.actor_start_s
        what = "the learner to start (deadlines.actor_start_s)"
        first = gather({"learner-0": self.ranks[0].call("address")}, deadline_s=deadline, what=what, tick=self._tick)
        if first.failures:
            raise self._lost(first.failures, what)
        address, port = first.results["learner-0"]
        info: dict[str, Any] = self.call("setup", address, port, deadline_s=deadline, what=what)[0]
        return info

    def call(
        self, method: str, *args: Any, deadline_s: float, what: str, meanwhile: Callable[[], None] | None = None
    ) -> list[Any]:
        """Call every rank; results in the order of ranks. `meanwhile` runs once while they work.

        Raises LearnerLost, after killing what is left of the group, where a rank died or did not answer; an error that
        a rank raised itself (bad configuration, a bad checkpoint) as it is.
        """
        calls = {r.name: r.call(method, *args) for r in self.ranks}
        if meanwhile is not None:
            meanwhile()
        done = gather(
            calls,
            deadline_s=deadline_s,
            what=what,
            tick=self._tick,
            fail_fast=True,
        )
        if done.failures:
            raise self._lost(done.failures, what)
        return [done.results[r.name] for r in self.ranks]

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()
        self.ranks = []

    def _lost(self, failures: dict[str, BaseException], what: str) -> BaseException:
        self.kill()
        for error in failures.values():
            if not isinstance(error, ProcessDied | DeadlineExceeded):
                return error
        name, error = next(iter(failures.items()))
        return LearnerLost(f"{name} was lost while it was to {what}: {error}")
