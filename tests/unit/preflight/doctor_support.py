"""A machine without defects behind the readers of `r1ray doctor`, to be changed one reading at a time."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from r1ray.config.sources import CONF_DIR
from r1ray.preflight.packages import read_pins
from r1ray.preflight.system import Answer, System
from r1ray.util.machine import GIB, Machine

MACHINE = Machine(cores=4, memory_bytes=16 * GIB, shared_memory_bytes=GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
PROC = {"/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999", "/proc/mounts": "/dev/root / ext4 rw 0 0"}
LIMITS = {resource.RLIMIT_NOFILE: 65536, resource.RLIMIT_NPROC: 65536, resource.RLIMIT_MEMLOCK: 8 << 20}
NO_DRIVER = Answer(code=-1, text="nvidia-smi is not installed")
GPU_ROW = "580.65.06, NVIDIA H100, 81559, 4"


def nothing() -> None:
    """A sandbox that works."""


def healthy(
    kind: str = "cpu",
    *,
    texts: Mapping[str, str] | None = None,
    limits: Mapping[int, int] | None = None,
    versions: Mapping[str, str | None] | None = None,
    gpus: Sequence[str] | Answer = (),
    torch: Answer | None = None,
    **readers: Any,
) -> System:
    """A System of an installation for `kind`; `gpus`: lines of nvidia-smi, or its failure."""
    installed: dict[str, str | None] = {**read_pins(CONF_DIR / "pins" / f"{kind}.txt"), **(versions or {})}
    smi = (
        gpus
        if isinstance(gpus, Answer)
        else Answer(code=0 if gpus else -1, text="\n".join(gpus) or "nvidia-smi is not installed")
    )
    sizes = () if isinstance(gpus, Answer) else tuple(80 * GIB for _ in gpus)
    seen = torch or Answer(code=0, text=f'["13.0", true, {len(sizes)}]')

    def run(argv: Sequence[str]) -> Answer:
        return smi if argv[0] == "nvidia-smi" else seen

    readings = {**PROC, **(texts or {})}
    numbers = {**LIMITS, **(limits or {})}
    system = System(
        machine=replace(MACHINE, gpu_memory_bytes=sizes),
        environment={"RAY_AUTH_TOKEN": "marked-token"},
        text=readings.get,
        run=run,
        version=installed.get,
        limit=lambda which: (numbers[which], numbers[which]),
        sandbox=nothing,
        listening=lambda: [("127.0.0.1", 8265)],
        refuses_strangers=lambda address, port: True,
    )
    return replace(system, **readers)
