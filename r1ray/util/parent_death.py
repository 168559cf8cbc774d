"""Processes that end with the one that started them, however that one ends.

`python -m r1ray.util.parent_death PARENT PROGRAM ARG ...`; PARENT is the starting process's id. The program takes this process's
place, so that number and exit code are its own. When the starting process dies, by SIGKILL too, the kernel sends the program
SIGTERM, on which it can end what it has started itself. The kernel goes by the *thread* that started it: it must live as long
as its process does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def with_parent_death_signal(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` bound to this process; to be started by its main thread."""
    return [sys.executable, "-m", "r1ray.util.parent_death", str(os.getpid()), *command]


def die_with(parent: int, number: signal.Signals) -> bool:
    """Have the kernel send `number` to this process when `parent` dies; False where it died before that took effect."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def main() -> None:
    """Take the signal of the parent's death, then become the program; neither where the parent has died before."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if not die_with(parent, signal.SIGTERM):  # which stays over exec
        sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606 - the caller's own command, and no shell


if __name__ == "__main__":
    main()
