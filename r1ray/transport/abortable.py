"""Operations of a weight-sync group that end early if the controller aborts the group.

A collective whose peer died ends only at its deadline. The controller learns of a death or a failed receiver at once
and writes the reason into the group's store; every member looks there while it waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from torch.distributed import Store, Work

T = TypeVar("T")
ABORTED = "aborted"
"""Key in the store of a group: why the controller aborted it."""
LOOK_S = 0.1
"""Between two looks into the store; a shorter operation costs none."""
DEADLINE = "the deadline has passed"
_POLL_S = 0.001


class AbortSignal:
    """Whether a group was aborted. Looks into the store in a thread: it may hang with the learner's host."""

    def __init__(self, store: Store) -> None:
        """`store`: through a connection in which nobody waits for other keys."""
        self._store = store
        self._look: Future[str | None] | None = None
        self._next = 0.0

    def start(self) -> None:
        """An operation begins: look in LOOK_S."""
        self._next = time.monotonic() + LOOK_S

    def check(self) -> None:
        """Never blocks. Raises RuntimeError with the reason if the last look found the group aborted."""
        if self._look is None:
            if time.monotonic() >= self._next:
                self._look = in_thread(self._reason)
            return
        if self._look.done():
            reason, self._look, self._next = self._look.result(), None, time.monotonic() + LOOK_S
            if reason is not None:
                raise RuntimeError(reason)

    def _reason(self) -> str | None:
        try:
            aborted = self._store.check([ABORTED])
            return f"aborted: {self._store.get(ABORTED).decode()}" if aborted else None
        except RuntimeError as e:
            return f"aborted: the learner has left the group, its store does not answer: {e}"


def in_thread(call: Callable[[], T]) -> Future[T]:
    """`call()` in a daemon thread, so that a call that hangs delays nothing."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as e:  # raised by the future
            done.set_exception(e)

    threading.Thread(target=run, name="weight-sync-call", daemon=True).start()
    return done


def wait_completed(
    work: Work, *, until: float, signal: AbortSignal, pause: Callable[[], object] = lambda: time.sleep(_POLL_S)
) -> None:
    """Wait for a collective without entering it for long: a thread inside would outlive an abort.

    `pause`: what to do between two looks. Raises RuntimeError: the reason of the abort, the deadline, or the error of
    the collective.
    """
    while not work.is_completed():
        if time.monotonic() >= until:
            raise RuntimeError(DEADLINE)
        signal.check()
        pause()
    work.wait()  # raises the error of the collective


def abortable(
    call: Callable[[], T], *, until: float | Callable[[], float], signal: AbortSignal, otherwise: str = DEADLINE
) -> T:
    """`call()`, in a thread that is left behind if the group is aborted or `time.monotonic()` reaches `until`.

    `call` may move `until` if it is a function. Raises RuntimeError: the reason of the abort, `otherwise` at the
    deadline, or what `call` raised.
    """
    deadline = until if callable(until) else lambda: until
    signal.start()
    done = in_thread(call)
    while True:
        try:
            return done.result(max(0.0, min(LOOK_S, deadline() - time.monotonic())))
        except TimeoutError:
            if done.done():  # raised by the call
                raise
        if time.monotonic() >= deadline():
            raise RuntimeError(otherwise)
        signal.check()
