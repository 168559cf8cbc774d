"""Pool of worker processes that make the calls of rewards, each under a time limit enforced by killing the process.

The number of verifications that start at once is limited to a few slots for each processor. A
verification that takes long gives up its slot and continues; after some processor time it continues
at a lower priority, and after more it needs one of as many turns as there are processors: until it
gets one, its process is stopped. Only time in which a verification runs or sleeps counts against its
limit, not the wait for a turn or a processor. So quick verifications hardly wait for slow ones,
however many hang, and a right answer does not time out because many are judged at once.

A process is reused only if this one has the privilege to raise its priority again. A call that finds
no idle process gets a new one, forked from the warm zygote in milliseconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence

from r1ray.errors import ProcessDied
from r1ray.rewards.base import Call, Judgement
from r1ray.rewards.workers.processes import Worker, Zygote

_SLOTS = 4
"""Slots for each processor."""
_MOST_READY = 16
"""Maximum number of processes that are forked in advance."""
_SLOW_S = 0.02
"""Wall-clock time that a verification may keep its slot."""
_LOOK_S = 0.02
"""Interval between two checks of a verification that takes long."""


class Pool:
    """Thread-safe. Example: `Pool(["sympy"], 2).call(Call(function="my.module:judge",
    args={"text": "5"}), 2.0)`.

    `preload`: modules to import, or `module:function` to call, in the zygote before anything is
    forked from it.
    """

    def __init__(self, preload: Sequence[str], processors: int) -> None:
        self._preload = tuple(preload)
        self._slots = threading.BoundedSemaphore(_SLOTS * processors)  # each is held for at most _SLOW_S
        self._turns = threading.BoundedSemaphore(processors)  # each is held for at most MAX_WALL times a limit
        self._ready = min(_SLOTS * processors, _MOST_READY)
        self._zygote: Zygote | None = None
        self._idle: deque[Worker] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def call(self, call: Call, limit_s: float) -> Judgement:
        """Make the call in a process.

        Raises VerifierTimeout after `limit_s`, for a verification without the waits for a slot, a
        turn or a processor; VerifierCrash if the process dies or the function raises; DataError if
        the function raises that; and ProcessDied if the zygote died or cannot start.
        """
        verifying = call.lane == "verify"
        with self._slots if verifying else contextlib.nullcontext():
            worker = self._worker()
            try:
                worker.send(call, limit_s)
                if verifying:
                    worker.watch(_SLOW_S)
            except BaseException:
                worker.kill()
                raise
        keep = False
        try:
            if verifying:
                self._supervise(worker)
            judgement = worker.answer()
            keep = worker.restore() and len(self._idle) < self._ready
        finally:
            if keep:
                self._idle.append(worker)
            else:
                worker.kill()
            if self._closed:
                self._kill_idle()
        return judgement

    def _supervise(self, worker: Worker) -> None:
        """Wait until a verification has answered or died. Raises VerifierTimeout at its limit."""
        with contextlib.ExitStack() as held:
            has_turn = replaced = False
            while not worker.watch(_LOOK_S):
                worker.check_limit()
                if worker.lowered and not replaced:
                    self._replace()
                    replaced = True
                if worker.is_long and not has_turn:
                    if not self._turns.acquire(blocking=False):
                        with worker.stopped():
                            self._turns.acquire()  # each turn ends with a verification, at its limit
                    held.callback(self._turns.release)
                    has_turn = True

    def start(self) -> None:
        """Start the zygote now rather than at the first call. Raises ProcessDied if it cannot load its modules."""
        with self._lock:
            self._ensure_zygote()

    def close(self) -> None:
        """Kill all processes. Calls under way end with ProcessDied."""
        with self._lock:
            self._closed = True
            self._kill_idle()
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def _kill_idle(self) -> None:
        with contextlib.suppress(IndexError):  # empty: none is left
            while True:
                self._idle.pop().kill()

    def _worker(self) -> Worker:
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                break
            if not worker.dead:
                return worker
            worker.kill()
        with self._lock:
            return self._fork(self._ensure_zygote())

    def _replace(self) -> None:
        """Fork a process to replace one that takes long, so that no quick call has to wait for a fork."""
        with self._lock:
            if self._zygote is not None and not self._idle:
                self._idle.append(self._fork(self._zygote))

    def _fork(self, zygote: Zygote) -> Worker:
        try:
            return zygote.fork()
        except (OSError, EOFError) as e:
            zygote.close()
            self._zygote = None
            raise ProcessDied(
                f"the process that verifiers are forked from died: {e!r}; the next call starts a new one"
            ) from e

    def _ensure_zygote(self) -> Zygote:
        if self._closed:
            raise ProcessDied("the pool of verifiers was closed")
        if self._zygote is not None and self._zygote.gone:
            self._zygote.close()
            self._zygote = None
        if self._zygote is None:
            self._zygote = Zygote(self._preload)
            self._idle.extend(self._fork(self._zygote) for _ in range(self._ready))
        return self._zygote
