"""The pool's ends of its processes: the zygote, and the workers forked from it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from r1ray.errors import DataError, ProcessDied, VerifierCrash, VerifierTimeout
from r1ray.rewards.base import Call, Judgement
from r1ray.rewards.workers import frames

_HEAVY_S = 0.01
"""Processor time after which its priority is lowered. Not wall-clock time, or it would starve on a busy machine."""
_LONG_S = 0.1
"""Processor time after which a verification needs a turn."""
MAX_WALL = 5
"""Wall-clock time in which a verification must end, in multiples of its limit, without time stopped."""
_LOOK_S = 0.004
"""Interval between two checks of that time."""
_START_S = 120.0
_FORK_S = 10.0
_DYING_S = 0.05
_NICE = 5
"""Low enough for quick verifications to go first, and no lower: with 19, a right answer on a busy machine hardly runs.
"""


class Zygote:
    """The parent's end of `r1ray.rewards.workers.zygote`."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Start the process. Raises ProcessDied if it does not start or cannot load `preload`."""
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

    def fork(self) -> Worker:
        """Fork a worker. Raises OSError or EOFError if the zygote is gone."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"f"], [theirs.fileno()])
            return Worker(frames.receive(self._control)["pid"], ours, self)
        except BaseException:
            ours.close()
            raise

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def going(self) -> bool:
        """Whether it is gone, or about to be: its children get their SIGKILL while it is dying."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)
        return self.gone

    def close(self) -> None:
        """Kill the process; its workers end with it."""
        self._control.close()
        self._process.kill()
        self._process.wait(_FORK_S)


class Worker:
    """One forked process, for one call at a time."""

    def __init__(self, pid: int, sock: socket.socket, parent: Zygote) -> None:
        self._pid = pid
        self._parent = parent
        self._handle = os.pidfd_open(pid)
        self._sock = sock
        self._clock = (~pid << 3) | 2  # Linux: the clock of that process's processor time
        self._began = 0.0
        self.lowered = False
        """Whether its priority is lowered."""
        self._limit_s = self._extra_s = 0.0
        self._sent = self._deadline = 0.0  # moments of the monotonic clock
        self._waited = 0.0  # seconds that it had waited for a processor before the call
        self._stopped_s = 0.0  # seconds of the call in which it was stopped

    def send(self, call: Call, limit_s: float) -> None:
        """Send a call to the process."""
        self._limit_s = limit_s
        self._extra_s = call.extra_s
        self._sent = time.monotonic()
        most = MAX_WALL if call.lane == "verify" else 1
        self._deadline = self._sent + most * limit_s + call.extra_s
        self._waited, self._stopped_s = _runqueue_s(self._pid), 0.0
        request = {"function": call.function, "args": call.args, "memory_bytes": call.memory_bytes}
        with self._failures_named():
            self._began = time.clock_gettime(self._clock)
            frames.send(self._sock, request)

    @property
    def dead(self) -> bool:
        """Whether an idle worker is dead: it sends nothing while it lives, and does not outlive the zygote."""
        return self._parent.gone or self._readable(0.0)

    def _readable(self, wait_s: float) -> bool:
        poll = select.poll()  # unlike select, it takes descriptors above 1024
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(1000 * wait_s))

    def watch(self, seconds: float) -> bool:
        """Wait that long for the answer; return whether it, or the end of the process, is there.

        Returns earlier if the process used so much processor time that its priority was lowered.
        """
        until = time.monotonic() + seconds
        was_lowered = self.lowered
        with contextlib.suppress(OSError):  # it died: reading its answer says so
            while not (there := self._readable(min(_LOOK_S, seconds))):
                if not self.lowered and self._processor_s() > _HEAVY_S:
                    os.setpriority(os.PRIO_PROCESS, self._pid, _NICE)
                    self.lowered = True
                if self.lowered > was_lowered or time.monotonic() >= until:
                    break
            return there
        return True

    @property
    def is_long(self) -> bool:
        """Whether the call has used so much processor time that it needs a turn."""
        with contextlib.suppress(OSError):
            return self._processor_s() > _LONG_S
        return False

    def check_limit(self) -> None:
        """Raise VerifierTimeout if the call has run or slept for as long as it may."""
        now = time.monotonic()
        own_s = now - self._sent - self._stopped_s - (_runqueue_s(self._pid) - self._waited)
        if own_s > self._limit_s + self._extra_s or now - self._stopped_s > self._deadline:
            raise self._timeout()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the process for as long as the block takes, which does not count against its limit."""
        began = time.monotonic()
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)
            self._stopped_s += time.monotonic() - began

    def _processor_s(self) -> float:
        return time.clock_gettime(self._clock) - self._began

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
        self._sock.settimeout(max(0.001, self._deadline + self._stopped_s - time.monotonic()))
        try:
            yield
        except TimeoutError as e:
            raise self._timeout() from e
        except (EOFError, OSError) as e:
            if self._parent.going:
                raise ProcessDied("the verifier's process died with the one that it was forked from") from e
            raise VerifierCrash("the verifier's process died") from e

    def _timeout(self) -> VerifierTimeout:
        return VerifierTimeout(f"no verdict within {self._limit_s:g} s (reward_worker.timeout_s)")

    def kill(self) -> None:
        """Kill the process and close the socket."""
        self._sock.close()
        try:
            self._signal(signal.SIGKILL)
        finally:
            os.close(self._handle)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # already gone
            signal.pidfd_send_signal(self._handle, number)


def _runqueue_s(pid: int) -> float:
    """Seconds that a process has waited for a processor. 0 if it is gone, or if the kernel does not
    count them (no CONFIG_SCHED_INFO): then the waits count against the limit.
    """
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _environment() -> dict[str, str]:
    """The caller's environment without Ray's, with its import path, and one thread for each numerical library."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
