"""Programs under supervision: cap their output, sum up their memory, and kill all of their processes at the end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

_MEMORY_CHECK_S = 0.025
"""Interval between two checks of the memory of running programs."""
_KILL_S = 10.0
_SETTLE_S = 0.2
"""Time for the other programs to end by themselves after the first one failed, as it may have
failed because they did.
"""
_CHUNK = 1 << 16
_MEMORY_WORDS = (
    b"MemoryError",
    b"bad_alloc",
    b"heap out of memory",
    b"Cannot allocate memory",
    b"cannot allocate memory",
)

Reason = Literal["exit", "timeout", "memory", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use, together with its children unless a field says otherwise."""

    wall_s: float = 10.0
    cpu_s: int = 10  # processor time of each process
    memory_bytes: int = 512 << 20
    processes: int = 32  # and threads
    file_bytes: int = 16 << 20  # size of each file
    output_bytes: int = 1 << 20  # of stdout; stderr may be as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended."""

    reason: Reason  # exit: by itself; else the limit that it was killed for
    code: int  # exit status, or minus the signal; meaningless unless the reason is exit
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """This process's ends of a program's standard streams, all non-blocking."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    @classmethod
    def open(cls, owner: int | None) -> tuple[Streams, tuple[int, int, int]]:
        """Create three pipes. Returns our ends, and the program's as descriptors for the caller to close.

        `owner`: the user that the program runs as, if not this process's. A program can only open
        `/dev/stdin` and the like by path if its user owns the pipe.
        """
        pipes = [os.pipe() for _ in range(3)]
        if owner is not None:
            for reading, _ in pipes:
                os.fchown(reading, owner, owner)
        (their_in, our_in), (our_out, their_out), (our_err, their_err) = pipes
        for fd in (our_in, our_out, our_err):
            os.set_blocking(fd, False)
        stdin, stdout, stderr = open(our_in, "wb", 0), open(our_out, "rb", 0), open(our_err, "rb", 0)  # noqa: SIM115
        return cls(stdin=stdin, stdout=stdout, stderr=stderr), (their_in, their_out, their_err)

    def close(self) -> None:
        """Close our ends."""
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


class Running:
    """A running program in a process group of its own. Leaving the context kills it with its children."""

    def __init__(
        self, process: subprocess.Popen[bytes], streams: Streams, stdin: bytes, limits: Limits, *, guarded: bool
    ) -> None:
        """`guarded`: the process is bubblewrap, and its only child is the first process inside."""
        self._process = process
        self._streams = streams
        self._guarded = guarded
        self._limits = limits
        self._killed_for: Reason = "exit"
        self._stdin = memoryview(stdin)
        self.output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill("exit")
        self._streams.close()

    @property
    def done(self) -> bool:
        """Whether its first process has ended."""
        return self._process.poll() is not None

    @property
    def failed(self) -> bool:
        """Whether its first process has ended with an error or by a signal."""
        return bool(self._process.poll())

    def settle(self) -> None:
        """Wait a moment for it to end by itself, so that its outcome says how."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # still running: it will be killed
            self._process.wait(_SETTLE_S)

    @property
    def outcome(self) -> Outcome:
        """How it ended. Waits for its end."""
        code = self._process.wait(_KILL_S)
        stderr = bytes(self.output["stderr"])
        reason = self._killed_for
        if reason == "exit" and code != 0 and any(word in stderr for word in _MEMORY_WORDS):
            reason = "memory"
        if reason == "exit" and code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):  # bash reports signals as 128 and more
            reason = "timeout"
        return Outcome(reason=reason, code=code, stdout=bytes(self.output["stdout"]), stderr=stderr)

    def kill(self, reason: Reason) -> None:
        """Kill all of its processes."""
        if self._process.poll() is None:
            self._killed_for = reason
            if self._guarded:
                self._kill_inside()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_KILL_S)

    def _kill_inside(self) -> None:
        """Kill the first process inside. The kernel then kills all others, daemons too, before bubblewrap exits."""
        for pid in _children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # nothing inside yet: bubblewrap itself is killed next
            self._process.wait(_KILL_S / 10)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Watch its streams with `selector`, which hands ready ones to `serve`."""
        selector.register(self._streams.stdin, selectors.EVENT_WRITE, (self, "stdin"))
        selector.register(self._streams.stdout, selectors.EVENT_READ, (self, "stdout"))
        selector.register(self._streams.stderr, selectors.EVENT_READ, (self, "stderr"))

    def serve(self, stream: IO[bytes], name: str) -> bool:
        """Write to stdin, or read from the others, without blocking. Returns False if the stream is finished."""
        try:
            if name == "stdin":
                self._stdin = (
                    self._stdin[os.write(stream.fileno(), self._stdin[:_CHUNK]) :] if self._stdin else self._stdin
                )
                return bool(self._stdin)
            chunk = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        buffer = self.output[name]
        room = self._limits.output_bytes - len(buffer)
        buffer += chunk[:room]
        if len(chunk) > room:
            self.kill("output")
        return bool(chunk)

    def check_memory(self) -> None:
        """Kill it if all of its processes together use more memory than they may."""
        if not self.done and _memory(self._process.pid) > self._limits.memory_bytes:
            self.kill("memory")


def supervise(running: Sequence[Running], wall_s: float) -> None:
    """Serve the programs until the first of them has ended, or for `wall_s` seconds; then kill them all.

    The outcome of a killed program holds what it had written.
    """
    deadline = time.monotonic() + wall_s
    next_check = time.monotonic() + _MEMORY_CHECK_S
    with selectors.DefaultSelector() as selector:
        for one in running:
            one.register(selector)
        while not running[0].done and (now := time.monotonic()) < deadline:
            _serve(selector, min(deadline, next_check) - now)
            if time.monotonic() >= next_check:
                for one in running:
                    one.check_memory()
                next_check = time.monotonic() + _MEMORY_CHECK_S
        reason: Reason = "exit" if running[0].done else "timeout"
        if running[0].failed:
            for one in running[1:]:
                one.settle()
        for one in running:
            one.kill(reason)
        # Dead programs write nothing more, so this reads the little that is left in the pipes, and
        # ends.
        while any(key.data[1] != "stdin" for key in selector.get_map().values()) and _serve(selector, 0.0):
            pass


def _serve(selector: selectors.BaseSelector, wait_s: float) -> bool:
    """Serve each stream that is ready within `wait_s`. Returns whether there was one."""
    ready = selector.select(max(0.0, wait_s))
    for key, _ in ready:
        one, name = key.data
        if not one.serve(key.fileobj, name):
            selector.unregister(key.fileobj)
            if name == "stdin":
                key.fileobj.close()  # type: ignore[union-attr]
    return bool(ready)


def _memory(pid: int) -> int:
    """Bytes of memory of a process and all of its descendants, without file pages. Processes that
    end meanwhile count as 0.
    """
    total = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_bytes()  # bytes: the name of a process need not be UTF-8
        except (FileNotFoundError, ProcessLookupError):
            continue
        waiting += _children(one)
        for line in status.splitlines():
            if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:", b"HugetlbPages:")):
                total += int(line.split()[1]) << 10
    return total


def _children(pid: int) -> list[int]:
    """The processes that the threads of a process started; none if it has ended."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
