"""Processes that end when the process that started them ends.

`python -m r1ray.util.parent_death PARENT PROGRAM ARG ...`; PARENT is the id of the starting process. The program
replaces this process (exec), so pid and exit code are the program's. When the starting process dies, even by SIGKILL,
the kernel sends the program SIGTERM, and it can end its own children. The kernel watches the *thread* that started the
program, so that thread must live as long as its process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def with_parent_death_signal(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` and ends it with this process. The main thread must start it."""
    return [sys.executable, "-m", "r1ray.util.parent_death", str(os.getpid()), *command]


def die_with(parent: int, number: signal.Signals) -> bool:
    """Have the kernel send signal `number` to this process when `parent` dies. False if `parent` is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def main() -> None:
    """Register for the signal of the parent's death, then become the program; exit if the parent is dead already."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if not die_with(parent, signal.SIGTERM):  # which survives exec
        sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606 - the caller's own command, and no shell


if __name__ == "__main__":
    main()
