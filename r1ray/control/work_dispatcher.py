"""Dispatch the parts of a job to the rollout workers that serve, and again to another one if a worker fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from r1ray.control.handles import Handle, RolloutApi
from r1ray.errors import InfrastructureError, ProcessDied, RetryBudgetExhausted

P = TypeVar("P")
ATTEMPTS = 5
"""Maximum calls of one part; the last failure ends the run."""


@dataclass(slots=True)
class _Call(Generic[P]):
    part: P
    tries: int = 0
    running: Future[list[bytes]] | None = None
    worker: str = ""


class WorkDispatcher(Generic[P]):
    """`start(worker, part)` starts a part on a worker; the result of its future is the packed groups. `names(part)` is
    for messages.

    A worker whose process died during a call gets no other part: names are not reused, and the fleet may notice the
    death later. A worker has at most `at_once` parts at a time (None: all), which bounds the cost of its death and
    leaves work for workers that join.
    """

    def __init__(
        self,
        parts: Sequence[P],
        *,
        start: Callable[[Handle[RolloutApi], P], Future[list[bytes]]],
        names: Callable[[P], str],
        at_once: int | None = None,
    ) -> None:
        self._open = [_Call(part) for part in parts]
        self._start = start
        self._names = names
        self._at_once = at_once
        self._turn = 0
        self._dead: set[str] = set()

    @property
    def unfinished(self) -> int:
        """Number of parts without a result."""
        return len(self._open)

    @property
    def running(self) -> int:
        """Number of parts that are with a worker."""
        return sum(call.running is not None for call in self._open)

    def tick(self, serving: Mapping[str, Handle[RolloutApi]], *, hand_out: bool = True) -> list[tuple[P, list[bytes]]]:
        """The parts that finished since the last call; then, if `hand_out`, start waiting parts on the workers that
        have room.

        Raises RetryBudgetExhausted if a part fails repeatedly, and errors that are not failures of a process.
        """
        done = []
        for call in list(self._open):
            groups = self._collect(call)
            if groups is not None:
                self._open.remove(call)
                done.append((call.part, groups))
        if hand_out and serving:
            self._give(serving)
        return done

    def _give(self, serving: Mapping[str, Handle[RolloutApi]]) -> None:
        names = sorted(set(serving) - self._dead)
        room = dict.fromkeys(names, self._at_once if self._at_once is not None else len(self._open))
        for call in self._open:
            if call.running is not None and call.worker in room:
                room[call.worker] -= 1
        for call in self._open:
            free = [name for name, left in room.items() if left > 0]
            if not free:
                return
            if call.running is None:
                name = free[self._turn % len(free)]
                self._turn += 1
                room[name] -= 1
                call.tries += 1
                call.worker = name
                call.running = self._start(serving[name], call.part)

    def _collect(self, call: _Call[P]) -> list[bytes] | None:
        if call.running is None or not call.running.done():
            return None
        running, call.running = call.running, None
        error = running.exception()
        if error is None:
            return running.result()
        if not isinstance(error, InfrastructureError):
            raise error
        if isinstance(error, ProcessDied):
            self._dead.add(call.worker)
        if call.tries >= ATTEMPTS:
            raise RetryBudgetExhausted(
                f"{self._names(call.part)} failed {call.tries} times, last on {call.worker}: {error}"
            ) from error
        return None
