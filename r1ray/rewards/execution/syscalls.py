"""The system calls that programs in the sandbox are refused, as a seccomp filter (see seccomp(2)) that bubblewrap installs.

Refused is what takes memory that is in no process, where no limit would find it: files without a name (memfd), System V's
shared memory, queues and semaphores, pages given away to pipes, rings of io_uring, BPF and perf, and the buffers of network
sockets. Local sockets stay; they are bounded by the limit on descriptors.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from dataclasses import dataclass

from r1ray.errors import ConfigError

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: of a word at an offset; two jumps; the verdict
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the lower half of the argument
_ALLOWED = 0x7FFF0000
_REFUSED = 0x00050000 | 1  # the call fails with EPERM
_X32 = 0x40000000  # numbers from here on are those of the x32 ABI of x86_64, and no system calls elsewhere


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
"""Their numbers, from asm/unistd.h, by what `uname -m` says."""


@functools.cache
def seccomp_filter(machine: str = os.uname().machine) -> bytes:
    """The filter for `bwrap --seccomp`. Raises ConfigError for a machine whose numbers are not known.

    Calls of another architecture, such as 32-bit ones, are refused altogether.
    """
    if machine not in _MACHINES:
        raise ConfigError(
            f"programs cannot be limited on {machine}: system calls are known of {', '.join(_MACHINES)}; judge code there, "
            "or set reward_worker.sandbox = none where the whole container is a sandbox that may be lost"
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
