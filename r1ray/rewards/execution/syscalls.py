"""Seccomp filter (see seccomp(2)) that bubblewrap installs for programs in the sandbox.

It refuses system calls that take memory which belongs to no process, so that no limit would count
it: anonymous files (memfd), System V shared memory, queues and semaphores, pages given to pipes,
io_uring, BPF and perf, and the buffers of network sockets. Local sockets are allowed; the limit on
descriptors bounds them.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from dataclasses import dataclass

from r1ray.errors import ConfigError

_LOAD, _EQUAL, _AT_LEAST, _RETURN = (
    0x20,
    0x15,
    0x35,
    0x06,
)  # BPF: load a word at an offset; two jumps; return the verdict
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the lower half of the argument
_ALLOWED = 0x7FFF0000
_REFUSED = 0x00050000 | 1  # the call fails with EPERM
_X32 = 0x40000000  # numbers from here on belong to the x32 ABI of x86_64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    audit: int  # AUDIT_ARCH_* in linux/audit.h
    socket: int
    refused: dict[str, int]


_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000003E,
        socket=41,
        refused={
            "memfd_create": 319, "memfd_secret": 447, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
            "vmsplice": 278, "io_uring_setup": 425, "bpf": 321, "perf_event_open": 298,
        },
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        socket=198,
        refused={
            "memfd_create": 279, "memfd_secret": 447, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180,
            "vmsplice": 75, "io_uring_setup": 425, "bpf": 280, "perf_event_open": 241,
        },
    ),
}  # fmt: skip
"""Machine, as in `uname -m` -> numbers of its system calls, from asm/unistd.h."""


@functools.cache
def seccomp_filter(machine: str = os.uname().machine) -> bytes:
    """The filter for `bwrap --seccomp`. It refuses all calls of another architecture, such as 32-bit ones.

    Raises ConfigError for a machine whose system calls are not known.
    """
    if machine not in _MACHINES:
        raise ConfigError(
            f"the sandbox does not know the system calls of {machine}: run reward workers on {', '.join(_MACHINES)}, "
            "or set reward_worker.sandbox = none if the whole container is a sandbox that may be lost"
        )
    known = _MACHINES[machine]
    refuse = (_RETURN, 0, 0, _REFUSED)
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, known.audit), refuse]
    program += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), refuse]
    for number in known.refused.values():
        program += [(_EQUAL, 0, 1, number), refuse]
    program += [(_EQUAL, 0, 3, known.socket), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 1, 0, socket.AF_UNIX), refuse]
    program += [(_RETURN, 0, 0, _ALLOWED)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
