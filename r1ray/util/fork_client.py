"""Start a Python program as a fork of a process that has already imported its modules.

`python -IS fork_client.py SOCKET SCRIPT ARG ...` (or `-m MODULE` for SCRIPT) asks the fork server at SOCKET
(`r1ray.util.fork_server`) to run the script with this process's environment, working folder, output, signal mask and
niceness. This process stays, for its parent, in the place of the program: it passes signals on to it and ends with it,
by the same exit code or signal; if it is killed the kernel kills the program, and if its parent dies the kernel kills
it.

If no server answers, it becomes the program itself, which then imports its modules as usual: the outcome is the same,
some seconds later, and standard error says so. It imports nothing but the standard library: it starts in 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
LENGTH = struct.Struct(">I")
PID = struct.Struct(">I")
"""The program's first message."""

ENDED = struct.Struct(">i")
"""The server's last message: the program's exit code, or minus the signal that ended it."""

OUTPUT = (1, 2)
"""The descriptors that the program takes over."""

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that are for the program."""

ANSWER_S = 50.0
"""How long a server may take to answer: it may still import. Ray gives a worker 60 s to register."""


def request(script: str, arguments: list[str]) -> bytes:
    """A request to run `script` as this process would run it, with its length before it."""
    ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
    text = json.dumps(
        {
            "argv": [script, *arguments],
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "masked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "ignored": sorted(ignored),
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
            "oom_score": _oom_score(),
        }
    ).encode()
    return LENGTH.pack(len(text)) + text


def _oom_score() -> str:
    """How willingly the kernel kills this process for memory; Ray sets it for its workers."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip()
    return "0"


def exactly(connection: socket.socket, size: int) -> bytes:
    """The next `size` bytes. Raises EOFError if the connection ends before."""
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError("it ended")
        data += more
    return data


def main() -> None:
    """Have the program forked and end with it, or become it."""
    path, *command = sys.argv[1:]
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(ANSWER_S)
        try:
            server.connect(path)
            message = request(command[0], command[1:])
            socket.send_fds(server, [message[:1]], OUTPUT)
            server.sendall(message[1:])
            (pid,) = PID.unpack(exactly(server, PID.size))
        except (OSError, EOFError) as e:
            why = str(e)
        else:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before
                return
            server.settimeout(None)
            _end_with(pid, server)
            return
    print(f"no fork server at {path} ({why}): {command[0]} starts without one", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - the caller's own command, and no shell


def _end_with(pid: int, server: socket.socket) -> None:
    """Pass signals on to the program until it ends; then end as it did."""

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # the message of its end is under way
            os.kill(pid, number)

    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        (code,) = ENDED.unpack(exactly(server, ENDED.size))
    except (OSError, EOFError):
        sys.exit(f"the fork server of process {pid} died before it: its exit code is not known")
    if code < 0:
        number = signal.Signals(-code)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(code)


if __name__ == "__main__":
    main()
