"""What `r1ray plan` is given: hosts and workload, and its refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.config.load import load_config
from r1ray.errors import ConfigError
from r1ray.planning.options import check_scenario, hardware_overrides, on_hosts
from r1ray.planning.scenario import Scenario
from r1ray.util.machine import GIB, Machine

HERE = Machine(cores=3, memory_bytes=8 * GIB, shared_memory_bytes=4 * GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
WORK = Scenario(mean_tokens=100.0)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("h100x8,nodes=16", ["hardware.gpu=h100-80", "hardware.per_node=8", "hardware.nodes=16"]),
        ("a100-40x4,host_gib=512", ["hardware.gpu=a100-40", "hardware.per_node=4", "hardware.host_gib=512"]),
        ("H200", ["hardware.gpu=h200-141"]),
        ("cpux2", ["hardware.gpu=cpu", "hardware.per_node=2"]),
    ],
)
def test_hosts_in_one_word(text: str, overrides: list[str]) -> None:
    assert hardware_overrides(text) == overrides


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h101x8", "no GPU 'h101': expected one of a100-40, "),
        ("a100x8", "no GPU 'a100': expected one of a100-40, a100-80"),
        ("h100x8,hosts=2", "'hosts=2': expected KEY=VALUE with one of per_node, nodes, host_gib"),
        ("h100x8,nodes", "'nodes': expected KEY=VALUE"),
    ],
)
def test_what_is_no_hardware_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hardware_overrides(text)


def test_without_hosts_a_run_on_cpus_is_planned_for_this_machine() -> None:
    hardware = on_hosts(load_config(["tiny"]).config, HERE).hardware
    assert (hardware.gpu, hardware.per_node, hardware.nodes, hardware.host_gib) == ("cpu", 3, 1, 8.0)


def test_a_run_on_gpus_needs_hosts() -> None:
    with pytest.raises(ConfigError, match=r"hardware.gpu is null: name the hosts, e.g. --hardware"):
        on_hosts(load_config(["models/qwen2.5-7b"], ["hardware.gpu=null"]).config, HERE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_tokens": 101.0}, "--tokens: expected 1 to rollout.max_new_tokens = 100, got 101"),
        ({"steps": 3}, "--steps: expected 4 to 10,000, got 3"),
        ({"slow_share": 1.5}, "--slow-share: expected 0 to 1"),
        ({"spread": -0.1}, "--spread: expected 0 to 10"),
        ({"mtbf_hours": 0.0}, "--mtbf-hours: expected more than 0, got 0"),
        ({"spot_hours": -2.0}, "--spot-hours: expected more than 0, got -2"),
    ],
)
def test_a_workload_that_cannot_be_is_refused_by_its_option(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_scenario(replace(WORK, **change), 100)  # type: ignore[arg-type]


def test_a_plan_needs_no_model_folder_and_says_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["plan", "models/qwen2.5-7b", "--hardware", "l40sx8,nodes=2", "--steps", "4"]
    text = CliRunner().invoke(build_app(), words)
    assert text.exit_code == 0, text.output
    assert "Does not fit: learner.micro_batch_tokens" in text.output
    assert "*ZeRO 2" in text.output
    found = json.loads(CliRunner().invoke(build_app(), [*words, "--json"]).output)
    assert [stage["zero_stage"] for stage in found["stages"]] == [1, 2, 3]
    assert [stage["fits"] for stage in found["stages"]] == [False, False, True]
    assert found["simulated"]["step_s"] > 0
    assert list(tmp_path.iterdir()) == []
