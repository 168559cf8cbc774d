"""How the controller talks to the processes of a run: futures with deadlines, and nothing that knows of Ray.

A `Remote` is one process (or actor). Its calls return futures; `gather` waits for several of them under one deadline and
goes on doing the controller's other duties (`tick`) meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from r1ray.errors import DeadlineExceeded

K = TypeVar("K", bound=Hashable)
TICK_S = 0.25
"""How often the controller looks after the run while it waits for something."""


class Place(TypedDict):
    """Where a process is."""

    pid: int
    node: str


class Remote(Protocol):
    """One process of the run."""

    name: str

    def call(self, method: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a method there. The future raises ProcessDied where the process is gone."""
        ...

    def kill(self) -> None:
        """End the process now; further calls raise ProcessDied."""
        ...


@dataclass(frozen=True, slots=True)
class Gathered(Generic[K]):
    """What came back, by key: results of some calls, exceptions of the others."""

    results: dict[K, Any]
    failures: dict[K, BaseException]


def gather(
    futures: Mapping[K, Future[Any]],
    *,
    deadline_s: float,
    what: str,
    tick: Callable[[], None],
    fail_fast: bool = False,
    failed: Callable[[K, BaseException], None] | None = None,
) -> Gathered[K]:
    """Wait for all futures, or with `fail_fast` until one fails; those that miss the deadline fail with DeadlineExceeded.

    `what` names the wait and the configuration key of its deadline. `tick` runs at least every TICK_S seconds,
    `failed` is told of a call that raised while others are still waited for.
    """
    until = time.monotonic() + deadline_s
    pending = dict(futures)
    results: dict[K, Any] = {}
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
                if failed is not None and pending:
                    failed(key, error)
        tick()
    return Gathered(results, failures)


def call_one(
    remote: Remote, method: str, *args: Any, deadline_s: float, what: str, tick: Callable[[], None], **kwargs: Any
) -> Any:
    """One call, waited for; raises what it raised, or DeadlineExceeded."""
    done = gather({remote.name: remote.call(method, *args, **kwargs)}, deadline_s=deadline_s, what=what, tick=tick)
    for error in done.failures.values():
        raise error
    return done.results[remote.name]


def pause(seconds: float, tick: Callable[[], None]) -> None:
    """Do nothing but `tick` for a while."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(TICK_S, left))
        tick()
