"""A process that has imported modules once, and from which programs that need them are forked.

    fork_client ---- its command, environment, output ---> fork server --fork--> the program, its modules imported
         ^ ^------------- how the program ended ---------------'                              |
         '----------------------------------- its process id ---------------------------------'

Run as `python -m r1ray.util.fork_server FD NICENESS HIDDEN MODULE ...`; FD is a listening Unix socket. The package
HIDDEN cannot be imported by the modules, only by the programs: one such as Ray, which reads the environment of its
process once, at its import. Clients may connect while the modules are still being imported: they wait, as they would
for their own imports. Modules that start threads cannot be used, because a fork has only one of the threads: the server
then ends, and says which module it was.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1ray.util.fork_client import ENDED, LENGTH, OUTPUT, PID, exactly

REQUEST_S = 5.0
"""Deadline for a client's request, which it sends at once: the others wait meanwhile."""

_F_SETSIG = 10
_O_ASYNC = 0o20000


def main() -> None:
    """Import the modules, then fork a program for every client. Removes its socket at the end."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    server = os.getpid()
    try:
        niceness, hidden, *modules = sys.argv[2:]
        os.setpriority(os.PRIO_PROCESS, 0, max(int(niceness), os.getpriority(os.PRIO_PROCESS, 0)))
        _import(modules, hidden)
        _serve(listener)
    finally:
        if os.getpid() == server:
            Path(listener.getsockname()).unlink(missing_ok=True)


def _import(modules: Sequence[str], hidden: str) -> None:
    sys.modules[hidden] = None  # type: ignore[assignment]
    for name in modules:
        importlib.import_module(name)
        if len(os.listdir("/proc/self/task")) > 1:
            sys.exit(f"the module {name} starts threads: no process can be forked from it")
    del sys.modules[hidden]
    gc.collect()
    gc.freeze()  # keeps the pages of what was imported shared between the forks


def _serve(listener: socket.socket) -> None:
    running: dict[int, socket.socket] = {}  # the clients of the programs, by process id
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler nothing would be woken
    while True:
        ready, _, _ = select.select([listener, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report(running)
        if listener not in ready:
            continue
        client, _ = listener.accept()
        client.settimeout(REQUEST_S)
        try:
            wanted, descriptors = _received(client)
        except (EOFError, OSError):  # the client is gone, or stands still
            client.close()
            continue
        client.settimeout(None)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for other in (listener, woken, waker, *running.values()):
                other.close()
            _run(client, wanted, descriptors)
        running[pid] = client
        for descriptor in descriptors:
            os.close(descriptor)


def _report(running: dict[int, socket.socket]) -> None:
    """Tell the clients of the programs that have ended how they ended."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as client, contextlib.suppress(OSError):  # it may have died before
                client.send(ENDED.pack(os.waitstatus_to_exitcode(status)))


def _received(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A client's request and its descriptors. Raises EOFError if it ends too early."""
    first, descriptors, _, _ = socket.recv_fds(client, 1, len(OUTPUT))
    (length,) = LENGTH.unpack(first + exactly(client, LENGTH.size - len(first)))
    return json.loads(exactly(client, length)), descriptors


def _run(client: socket.socket, wanted: dict[str, Any], descriptors: list[int]) -> None:
    """Become the program. Ends this process."""
    try:
        client.send(PID.pack(os.getpid()))
    except OSError:  # it did not wait so long
        os._exit(0)
    _die_with(client)
    os.setpgid(0, 0)  # Ray ends a worker with all of its process group, in which the server must not be
    atexit.register(gc.unfreeze)  # else extension modules report their objects as leaked at the end
    for source, target in zip(descriptors, OUTPUT, strict=True):
        os.dup2(source, target)
        os.close(source)
    # Python chose these for the server's output and environment.
    unbuffered = bool(wanted["environment"].get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=unbuffered)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # SIGKILL and SIGSTOP
            signal.signal(number, signal.SIG_IGN if number in wanted["ignored"] else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Python's own
    signal.pthread_sigmask(signal.SIG_SETMASK, wanted["masked"])
    with contextlib.suppress(OSError):  # only root may lower them
        os.setpriority(os.PRIO_PROCESS, 0, wanted["niceness"])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(wanted["oom_score"], encoding="ascii")
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # else every fork has the same random numbers; Python's own module does this itself
    client.detach()  # open until this process ends
    sys.argv[:] = wanted["argv"]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        sys.path[0] = wanted["folder"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


def _die_with(client: socket.socket) -> None:
    """Have the kernel kill this process when the client ends: it never sends anything more, so only its end is news."""
    fcntl.fcntl(client, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(client, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(client, fcntl.F_SETFL, fcntl.fcntl(client, fcntl.F_GETFL) | _O_ASYNC)
    with contextlib.suppress(BlockingIOError):
        if not client.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):  # it ended before
            os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    main()
