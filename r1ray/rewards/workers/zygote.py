"""Zygote: the process that worker processes are forked from. Small, single-threaded, its libraries loaded and warm.

    pool ---- control socket: one descriptor of a fresh socket pair ---> zygote --fork--> worker, serves on that socket
         <--- {"pid": ...} -------------------------------------------------'

Run as `python -m r1ray.rewards.workers.zygote FD [module | module:function ...]`. It imports the
modules and calls the functions before it forks. When its pool closes the control socket, it ends
and its workers with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
import socket
import sys
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.workers import frames
from r1ray.util.parent_death import die_with

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Load the modules, report, then fork a worker for each descriptor that arrives."""
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        for name in sys.argv[2:]:
            importlib.import_module(name.partition(":")[0])
        _warm_up()
    except Exception as e:  # a module may raise anything on import; the pool reports it
        frames.send(control, {"error": f"{type(e).__name__}: {e}"})
        sys.exit(1)
    gc.collect()
    gc.freeze()  # keeps the loaded libraries' pages shared between the forks
    # The kernel reaps the workers and the orphans of killed sandboxes; the first process of a
    # container often does not.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool handles Ctrl-C
    zygote = os.getpid()
    frames.send(control, {"pid": zygote})
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not fds:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            try:
                _serve(socket.socket(fileno=fds[0]), zygote)
            finally:
                os._exit(0)  # never back into the loop of the zygote
        os.close(fds[0])
        frames.send(control, {"pid": pid})


def _warm_up() -> None:
    for name in sys.argv[2:]:
        if ":" in name:
            resolve(name)()


def resolve(name: str) -> Any:
    """The object that `module:function` names. Raises ImportError or AttributeError."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _serve(sock: socket.socket, zygote: int) -> None:
    """Answer calls until the pool closes the socket, or the zygote dies."""
    if not die_with(zygote, signal.SIGKILL):
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _warm_up()  # again: pages are copied when first touched after a fork, which would cost the first call 10 ms
    with contextlib.suppress(EOFError, OSError):  # the pool closed the socket
        while True:
            frames.send(sock, _answer(frames.receive(sock)))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    limit = request["memory_bytes"] or resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        result = resolve(request["function"])(**request["args"])
    except DataError as e:
        return {"unfit": str(e)}
    except MemoryError:
        return {"error": f"out of memory (limit {limit >> 20} MiB)"}
    except Exception as e:  # the pool raises it as a VerifierCrash
        return {"error": f"{type(e).__name__}: {e}"[:500]}
    value, why = result if isinstance(result, tuple) else (result, None)
    return {"value": float(value), "why": why}


if __name__ == "__main__":
    main()
