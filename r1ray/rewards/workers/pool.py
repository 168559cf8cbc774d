"""Pool of worker processes that make the calls of rewards, each under a wall-clock limit enforced
by killing the process.

The number of verifications that start at once is limited to a few slots for each processor. A
verification that takes long gives up its slot and continues; after some processor time it continues
at a lower priority. Its process is reused only if this one has the privilege to raise the priority
again. So quick verifications hardly wait for slow ones, however many hang. A call that finds no
idle process gets a new one, forked from the warm zygote in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from r1ray.errors import DataError, ProcessDied, VerifierCrash, VerifierTimeout
from r1ray.rewards.base import Call, Judgement
from r1ray.rewards.workers import frames

_SLOTS = 4
"""Slots for each processor."""
_MOST_READY = 16
"""Maximum number of processes that are forked in advance."""
_SLOW_S = 0.02
"""Wall-clock time that a verification may keep its slot."""
_HEAVY_S = 0.01
"""Processor time after which its priority is lowered. Not wall-clock time, or it would starve on a
busy machine.
"""
_LOOK_S = 0.004
"""Interval between two checks of that time."""
_START_S = 120.0
_FORK_S = 10.0
_DYING_S = 0.05
_NICE = 19


class Pool:
    """Thread-safe. Example: `Pool(["math_verify"], 2).call(Call(function="my.module:judge",
    args={"text": "5"}), 2.0)`.

    `preload`: modules to import, or `module:function` to call, in the zygote before anything is
    forked from it.
    """

    def __init__(self, preload: Sequence[str], processors: int) -> None:
        self._preload = tuple(preload)
        self._slots = threading.BoundedSemaphore(_SLOTS * processors)  # each is held for at most _SLOW_S
        self._ready = min(_SLOTS * processors, _MOST_READY)
        self._zygote: _Zygote | None = None
        self._idle: deque[_Worker] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def call(self, call: Call, limit_s: float) -> Judgement:
        """Make the call in a process.

        Raises VerifierTimeout after `limit_s`, not counting the wait for a slot; VerifierCrash if
        the process dies or the function raises; DataError if the function raises that; and
        ProcessDied if the zygote died or cannot start.
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
                worker.watch(limit_s)
            if worker.lowered:
                self._replace()
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

    def start(self) -> None:
        """Start the zygote now rather than at the first call. Raises ProcessDied if it cannot load
        its modules.
        """
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

    def _worker(self) -> _Worker:
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
        """Fork a process to replace one that takes long, so that no quick call has to wait for a
        fork.
        """
        with self._lock:
            if self._zygote is not None and not self._idle:
                self._idle.append(self._fork(self._zygote))

    def _fork(self, zygote: _Zygote) -> _Worker:
        try:
            return zygote.fork()
        except (OSError, EOFError) as e:
            zygote.close()
            self._zygote = None
            raise ProcessDied(
                f"the process that verifiers are forked from died: {e!r}; the next call starts a new one"
            ) from e

    def _ensure_zygote(self) -> _Zygote:
        if self._closed:
            raise ProcessDied("the pool of verifiers was closed")
        if self._zygote is not None and self._zygote.gone:
            self._zygote.close()
            self._zygote = None
        if self._zygote is None:
            self._zygote = _Zygote(self._preload)
            self._idle.extend(self._fork(self._zygote) for _ in range(self._ready))
        return self._zygote


class _Zygote:
    """The parent's end of `r1ray.rewards.workers.zygote`."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_START_S)
        with theirs:
            theirs.set_inheritable(True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "r1ray.rewards.workers.zygote", str(theirs.fileno()), *preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        try:
            ready = frames.receive(self._control)
        except (EOFError, OSError) as e:
            self.close()
            raise ProcessDied(
                f"the process that verifiers are forked from did not start within {_START_S:.0f} s: {e!r}"
            ) from e
        if "error" in ready:
            self.close()
            raise ProcessDied(f"verifiers cannot load {', '.join(preload)}: {ready['error']}")
        self._control.settimeout(_FORK_S)

    def fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"f"], [theirs.fileno()])
            return _Worker(frames.receive(self._control)["pid"], ours, self)
        except BaseException:
            ours.close()
            raise

    @property
    def gone(self) -> bool:
        return self._process.poll() is not None

    @property
    def going(self) -> bool:
        """Whether it is gone, or about to be: its children get their SIGKILL while it is dying."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)
        return self.gone

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait(_FORK_S)


class _Worker:
    """One forked process, for one call at a time."""

    def __init__(self, pid: int, sock: socket.socket, parent: _Zygote) -> None:
        self._pid = pid
        self._parent = parent
        self._handle = os.pidfd_open(pid)
        self._sock = sock
        self._clock = (~pid << 3) | 2  # Linux: the clock of that process's processor time
        self._began = 0.0
        self.lowered = False
        """Whether its priority is lowered."""
        self._limit_s = 0.0
        self._deadline = 0.0

    def send(self, call: Call, limit_s: float) -> None:
        """Send a call to the process."""
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s + call.extra_s
        request = {"function": call.function, "args": call.args, "memory_bytes": call.memory_bytes}
        with self._failures_named():
            self._began = time.clock_gettime(self._clock)
            frames.send(self._sock, request)

    @property
    def dead(self) -> bool:
        """Whether an idle worker is dead: it sends nothing while it lives, and does not outlive the
        zygote.
        """
        return self._parent.gone or self._readable(0.0)

    def _readable(self, wait_s: float) -> bool:
        poll = select.poll()  # unlike select, it takes descriptors above 1024
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(1000 * wait_s))

    def watch(self, seconds: float) -> None:
        """Wait that long for the answer. Returns earlier if it used so much processor time that its
        priority was lowered.
        """
        until = min(time.monotonic() + seconds, self._deadline)
        with contextlib.suppress(OSError):  # it died: reading its answer says so
            while not self.lowered and time.monotonic() < until and not self._readable(_LOOK_S):
                if time.clock_gettime(self._clock) - self._began > _HEAVY_S:
                    os.setpriority(os.PRIO_PROCESS, self._pid, _NICE)
                    self.lowered = True

    def restore(self) -> bool:
        """Restore the pool's priority. Returns False if this process lacks the privilege."""
        if self.lowered:
            try:
                os.setpriority(os.PRIO_PROCESS, self._pid, os.getpriority(os.PRIO_PROCESS, 0))
            except PermissionError:
                return False
            self.lowered = False
        return True

    def answer(self) -> Judgement:
        """Wait for the result of the call. Raises as `Pool.call` does."""
        with self._failures_named():
            reply = frames.receive(self._sock)
        if "unfit" in reply:
            raise DataError(reply["unfit"])
        if "error" in reply:
            raise VerifierCrash(reply["error"])
        return Judgement(value=reply["value"], why=reply["why"])

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        self._sock.settimeout(max(0.001, self._deadline - time.monotonic()))
        try:
            yield
        except TimeoutError as e:
            raise VerifierTimeout(f"no verdict within {self._limit_s:g} s (reward_worker.timeout_s)") from e
        except (EOFError, OSError) as e:
            if self._parent.going:
                raise ProcessDied("the verifier's process died with the one that it was forked from") from e
            raise VerifierCrash("the verifier's process died") from e

    def kill(self) -> None:
        """Kill the process and close the socket."""
        self._sock.close()
        try:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        except ProcessLookupError:
            pass  # already gone
        finally:
            os.close(self._handle)


def _environment() -> dict[str, str]:
    """The caller's environment without Ray's, with its import path, and one thread for each
    numerical library.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
