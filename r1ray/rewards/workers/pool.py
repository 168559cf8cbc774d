"""Worker processes that make the calls of rewards, each under a wall-clock limit that is kept by killing the process.

As many verifications run at once as there are places, a few for each processor; but one that takes long gives its place up,
and goes on, and once it has used much processor time it goes on at a lower priority. Its process is used again only where this
one has the privilege to raise that. So quick ones hardly wait for slow ones, however many hang. A call that finds no idle
process gets a new one, forked from the warm zygote in milliseconds.
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

_PLACES = 4
"""For each processor."""
_MOST_READY = 16
"""Processes that are forked before they are asked for, at most."""
_SLOW_S = 0.02
"""Seconds, by the clock, that a verification may keep its place."""
_HEAVY_S = 0.01
"""Seconds of processor time after which its priority is lowered; not by the clock, or it would starve where others are busy."""
_LOOK_S = 0.004
"""Seconds between two looks at that time."""
_START_S = 120.0
_FORK_S = 10.0
_DYING_S = 0.05
_NICE = 19


class Pool:
    """Thread-safe. Example: `Pool(["math_verify"], 2).call(Call(function="my.module:judge", args={"text": "5"}), 2.0)`.

    `preload`: modules to import, or `module:function` to call, in the zygote before anything is forked from it.
    """

    def __init__(self, preload: Sequence[str], processors: int) -> None:
        self._preload = tuple(preload)
        self._place = threading.BoundedSemaphore(_PLACES * processors)  # each is held for _SLOW_S at most
        self._ready = min(_PLACES * processors, _MOST_READY)
        self._zygote: _Zygote | None = None
        self._idle: deque[_Worker] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def call(self, call: Call, limit_s: float) -> Judgement:
        """Make the call in a process.

        Raises VerifierTimeout after `limit_s` (waiting for a place does not count), VerifierCrash where the process dies or
        the function raises, and DataError where the function raises that; ProcessDied where the zygote is to blame.
        """
        verifying = call.lane == "verify"
        with self._place if verifying else contextlib.nullcontext():
            worker = self._worker()
            try:
                worker.ask(call, limit_s)
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
        """Start the zygote now rather than at the first call. Raises ProcessDied where it cannot load what it must."""
        with self._lock:
            self._ensure_zygote()

    def close(self) -> None:
        """Kill all processes. Calls that are being made end with ProcessDied."""
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
        """Have a process ready in the place of one that takes long, so that no quick call has to wait for a fork."""
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
                f"the process that verifiers are forked from died: {e!r}; the next call starts it anew"
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
        """Whether it is gone, or will be in a moment: its children get their SIGKILL while it is dying."""
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
        self._clock = (~pid << 3) | 2  # Linux: of the processor time of that process
        self._began = 0.0
        self.lowered = False
        """Whether its priority is."""
        self._limit_s = 0.0
        self._deadline = 0.0

    def ask(self, call: Call, limit_s: float) -> None:
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s + call.extra_s
        request = {"function": call.function, "args": call.args, "memory_bytes": call.memory_bytes}
        with self._failures_named():
            self._began = time.clock_gettime(self._clock)
            frames.send(self._sock, request)

    @property
    def dead(self) -> bool:
        """Of an idle worker, which has nothing to say while it lives, and does not outlive the zygote."""
        return self._parent.gone or self._readable(0.0)

    def _readable(self, wait_s: float) -> bool:
        poll = select.poll()  # unlike select, it takes descriptors above 1024
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(1000 * wait_s))

    def watch(self, seconds: float) -> None:
        """Wait for the answer that long, or until it has used so much processor time that its priority is lowered."""
        until = min(time.monotonic() + seconds, self._deadline)
        with contextlib.suppress(OSError):  # it died: reading its answer says so
            while not self.lowered and time.monotonic() < until and not self._readable(_LOOK_S):
                if time.clock_gettime(self._clock) - self._began > _HEAVY_S:
                    os.setpriority(os.PRIO_PROCESS, self._pid, _NICE)
                    self.lowered = True

    def restore(self) -> bool:
        """Give it the pool's priority again; False where this process lacks the privilege to raise one."""
        if self.lowered:
            try:
                os.setpriority(os.PRIO_PROCESS, self._pid, os.getpriority(os.PRIO_PROCESS, 0))
            except PermissionError:
                return False
            self.lowered = False
        return True

    def answer(self) -> Judgement:
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
        self._sock.close()
        try:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        except ProcessLookupError:
            pass  # already gone, which is what is wanted
        finally:
            os.close(self._handle)


def _environment() -> dict[str, str]:
    """The caller's environment without Ray's, with its import path, and one thread for each numerical library."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
