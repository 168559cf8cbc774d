"""Resources of this machine: cores, memory, shared memory, GPUs. Imports no torch, which takes seconds."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The resources of one machine. Producer: `this_machine`. Consumers: preflight, serving."""

    cores: int
    memory_bytes: int  # total, or the limit of the container
    shared_memory_bytes: int  # free in /dev/shm
    gpu_memory_bytes: tuple[int, ...]  # of each visible GPU
    cpu_bfloat16: bool  # the CPU multiplies bfloat16 in hardware

    @property
    def gpus(self) -> int:
        """Number of visible GPUs."""
        return len(self.gpu_memory_bytes)


def this_machine() -> Machine:
    """The resources of the machine that this process runs on."""
    import psutil

    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=min(psutil.virtual_memory().total, _container_limit()),
        shared_memory_bytes=shutil.disk_usage("/dev/shm").free,  # noqa: S108 - the mount point, not a file in it
        gpu_memory_bytes=_gpu_memory(),
        cpu_bfloat16=_cpu_has({"avx512_bf16", "amx_bf16", "bf16"}),
    )


def resident_bytes() -> int:
    """Resident memory of this process, shared pages included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def return_free_memory() -> None:
    """Give the pages of freed blocks back to the kernel, 7 ms for 600 MiB; without glibc nothing happens.

    glibc does so by itself at the end of its heap alone: holes between blocks in use stay resident.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def memory_in_use() -> float:
    """The share of this machine's or container's memory that is in use and not reclaimable, 0 to 1."""
    import psutil

    host = psutil.virtual_memory()
    share = 1.0 - float(host.available) / float(host.total)
    if (limit := _container_limit()) < host.total:
        share = max(share, _container_use() / limit)
    return share


def _container_use() -> int:
    """Bytes in use by the control group, without the reclaimable file cache."""
    for folder, name in ((_CGROUP, "memory.current"), (_CGROUP / "memory", "memory.usage_in_bytes")):
        if (folder / name).exists():
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return int((folder / name).read_text()) - int(stat.get("inactive_file", 0))
    return 0


def _container_limit() -> int:
    """Memory limit of the control group (version 2, then 1), in bytes."""
    for path in (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return int(text)
    return 1 << 62


def _cpu_has(flags: set[str]) -> bool:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return False
    words = (
        line.partition(":")[2].split() for line in info.read_text().splitlines() if line[:5].lower() in _FLAG_LINES
    )
    return any(flags & set(line) for line in words)


_FLAG_LINES = ("flags", "featu")  # x86: flags, ARM: Features


def _gpu_memory() -> tuple[int, ...]:
    """Memory in bytes of each GPU that CUDA_VISIBLE_DEVICES leaves visible; empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except subprocess.CalledProcessError:  # the tool is installed, but no driver
        return ()
    rows = [[cell.strip() for cell in row.split(",")] for row in listed.splitlines() if row.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = [v.strip() for v in visible.split(",")] if visible is not None else [row[0] for row in rows]
    mib = {name: int(row[2]) for row in rows for name in row[:2]}
    return tuple(mib[name] << 20 for name in wanted if name in mib)
