"""Wait for calls of several processes under one deadline, with the controller's other duties (`tick`) in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from r1ray.errors import DeadlineExceeded

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")
TICK_S = 0.25
"""Longest time between two calls of `tick` during a wait."""


@dataclass(frozen=True, slots=True)
class Gathered(Generic[K, R]):
    """Outcome of some calls, by key: the results of those that succeeded, the exceptions of the others."""

    results: dict[K, R]
    failures: dict[K, BaseException]


def gather(
    futures: Mapping[K, Future[R]],
    *,
    deadline_s: float,
    what: str,
    tick: Callable[[], None],
    fail_fast: bool = False,
    on_failure: Callable[[K, BaseException], None] | None = None,
) -> Gathered[K, R]:
    """Wait for all futures, or with `fail_fast` until one fails; at the deadline: DeadlineExceeded.

    `what` names the wait and the configuration key of its deadline. `tick` runs at least every TICK_S seconds.
    `on_failure(key, error)` is called for a call that failed while others are still pending.
    """
    until = time.monotonic() + deadline_s
    pending = dict(futures)
    results: dict[K, R] = {}
    failures: dict[K, BaseException] = {}
    while pending and not (fail_fast and failures):
        left = until - time.monotonic()
        if left <= 0:
            failures.update(
                {k: DeadlineExceeded(f"{k} did not answer within {deadline_s:g} s: {what}") for k in pending}
            )
            break
        wait(pending.values(), timeout=min(TICK_S, left), return_when=FIRST_COMPLETED)
        for key in [k for k, f in pending.items() if f.done()]:
            error = (future := pending.pop(key)).exception()
            if error is None:
                results[key] = future.result()
            else:
                failures[key] = error
                if on_failure is not None and pending:
                    on_failure(key, error)
        tick()
    return Gathered(results, failures)


def await_one(name: str, future: Future[R], *, deadline_s: float, what: str, tick: Callable[[], None]) -> R:
    """The result of one call of process `name`. Raises what the call raised, or DeadlineExceeded."""
    done = gather({name: future}, deadline_s=deadline_s, what=what, tick=tick)
    for error in done.failures.values():
        raise error
    return done.results[name]


def pause(seconds: float, tick: Callable[[], None]) -> None:
    """Wait for `seconds` while `tick` runs."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(TICK_S, left))
        tick()
