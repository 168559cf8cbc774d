"""The filter of system calls, run by an interpreter of the few instructions that it consists of."""

import errno
import socket
import struct

import pytest

from r1ray.errors import ConfigError
from r1ray.rewards.execution.syscalls import seccomp_filter

X86, ARM = 0xC000003E, 0xC00000B7


def verdict(machine: str, audit: int, number: int, first: int = 0) -> int | None:
    """The errno that a call fails with; None where it goes through."""
    data = struct.pack("=IIQQ", number, audit, 0, first) + bytes(40)
    code = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    at = word = 0
    while True:
        kind, yes, no, k = code[at]
        at += 1
        if kind == 0x20:
            (word,) = struct.unpack_from("=I", data, k)
        elif kind == 0x06:
            assert k >> 16 in (0x7FFF, 0x5)
            return None if k >> 16 == 0x7FFF else k & 0xFFFF
        else:
            at += yes if {0x15: word == k, 0x35: word >= k}[kind] else no


@pytest.mark.parametrize(
    ("machine", "audit", "read", "memfd", "sock"), [("x86_64", X86, 0, 319, 41), ("aarch64", ARM, 63, 279, 198)]
)
def test_filter_refuses_calls_that_hide_memory(machine, audit, read, memfd, sock):
    assert verdict(machine, audit, read) is None
    assert verdict(machine, audit, memfd) == errno.EPERM
    assert verdict(machine, audit, sock, socket.AF_UNIX) is None
    assert verdict(machine, audit, sock, socket.AF_INET) == errno.EPERM
    assert verdict(machine, audit, sock, socket.AF_NETLINK) == errno.EPERM
    assert [n for n in range(480) if verdict(machine, audit, n, socket.AF_UNIX)] == sorted(
        [319, 447, 29, 64, 68, 240, 278, 425, 321, 298]
        if machine == "x86_64"
        else [279, 447, 194, 190, 186, 180, 75, 425, 280, 241]
    )


def test_filter_refuses_other_architectures():
    assert verdict("x86_64", 0x40000003, 3) == errno.EPERM  # i386
    assert verdict("x86_64", X86, 0x40000000 + 319) == errno.EPERM  # x32
    with pytest.raises(ConfigError, match=r"riscv64.*x86_64, aarch64"):
        seccomp_filter("riscv64")
