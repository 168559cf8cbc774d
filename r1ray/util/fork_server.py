"""A process that has imported modules once, and from which programs that need them are forked.

    fork_client ---- its command, environment, output ---> fork server --fork--> the program, its modules imported
         ^------------------ one byte; then the end of the connection, when the program ends ----------'

Run as `python -m r1ray.util.fork_server FD HIDDEN MODULE ...`; FD is a listening Unix socket. The package HIDDEN cannot be
imported by the modules, only by the programs: one such as Ray, which reads the environment of its process once, at its
import. Clients may connect while the modules are still being imported: they wait, as they would for their own imports.
Modules that start threads cannot be used, because a fork has only one of the threads: the server then ends, and says which
module it was.
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
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from r1ray.util.fork_client import LENGTH, OUTPUT

NICENESS = 15
"""Of the server, as of Ray's workers: Ray's own processes, which start while it imports, come first."""

_F_SETSIG = 10
_O_ASYNC = 0o20000


def main() -> None:
    """Import the modules, then fork a program for every client. Removes its socket at the end."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    server = os.getpid()
    try:
        _serve(listener)
    finally:
        if os.getpid() == server:
            Path(listener.getsockname()).unlink(missing_ok=True)


def _serve(listener: socket.socket) -> None:
    hidden, *modules = sys.argv[2:]
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    sys.modules[hidden] = None  # type: ignore[assignment]
    for name in modules:
        importlib.import_module(name)
        if len(os.listdir("/proc/self/task")) > 1:
            sys.exit(f"the module {name} starts threads: no process can be forked from it")
    del sys.modules[hidden]
    gc.collect()
    gc.freeze()  # keeps the pages of what was imported shared between the forks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the programs
    while True:
        client, _ = listener.accept()
        with client:
            try:
                wanted, descriptors = _received(client)
            except (EOFError, OSError):  # the client is gone
                continue
            if os.fork() == 0:
                listener.close()
                _run(client, wanted, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _received(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A client's request and its descriptors. Raises EOFError if it ends too early."""
    first, descriptors, _, _ = socket.recv_fds(client, 1, len(OUTPUT))
    data = first + _exactly(client, LENGTH.size - len(first))
    (length,) = LENGTH.unpack(data)
    return json.loads(_exactly(client, length)), descriptors


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := client.recv(size - len(data))):
            raise EOFError
        data += more
    return data


def _run(client: socket.socket, wanted: dict[str, Any], descriptors: list[int]) -> None:
    """Become the program. Ends this process."""
    try:
        client.send(b"1")
    except OSError:  # it did not wait so long
        os._exit(0)
    _die_with(client)
    os.setpgid(0, 0)  # Ray ends a worker with all of its process group, in which the server must not be
    atexit.register(gc.unfreeze)  # else extension modules report their objects as leaked at the end
    for source, target in zip(descriptors, OUTPUT, strict=True):
        os.dup2(source, target)
        os.close(source)
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
    sys.argv[:] = wanted["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    client.detach()  # open until this process ends
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
