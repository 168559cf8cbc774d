"""Options of `r1ray plan`: the hosts, and the workload of the simulation."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

from r1ray.config.schema import Config
from r1ray.config.sections.hardware import Gpu, HardwareConfig
from r1ray.errors import ConfigError
from r1ray.planning.scenario import Scenario
from r1ray.util.machine import GIB, Machine

_FORM = re.compile(r"(?P<gpu>[a-z0-9-]+?)(?:x(?P<per_node>\d+))?$")
ELSEWHERE = "declared hardware"
"""Stands for `ray.address` in a plan for other hosts: nothing of this machine is compared."""


def hardware_overrides(text: str) -> list[str]:
    """`h100x8,nodes=16` as settings of the section `hardware`: kind of GPU, GPUs of a host, and further keys.

    The memory may be left out of a kind that exists with one size only: h100 is h100-80. Raises ConfigError.
    """
    first, *others = text.strip().lower().split(",")
    names = get_args(Gpu)
    form = _FORM.match(first)
    kind = form["gpu"] if form else first
    found = [name for name in names if kind in (name, name.partition("-")[0])]
    if form is None or len(found) != 1:
        meant = ", ".join(found or names)
        raise ConfigError(f"--hardware {text}: no GPU {kind!r}: expected one of {meant}, e.g. h100x8,nodes=16")
    overrides = [f"hardware.gpu={found[0]}"]
    if form["per_node"]:
        overrides.append(f"hardware.per_node={form['per_node']}")
    keys = [name for name in HardwareConfig.__dataclass_fields__ if name != "gpu"]
    for other in others:
        key, equals, value = other.partition("=")
        if key not in keys or not equals:
            raise ConfigError(f"--hardware {text}: {other!r}: expected KEY=VALUE with one of {', '.join(keys)}")
        overrides.append(f"hardware.{key}={value}")
    return overrides


def on_hosts(config: Config, machine: Machine) -> Config:
    """The configuration on its declared hosts; without GPUs and if none are declared, on this machine.

    Raises ConfigError if it needs GPUs and names none.
    """
    if config.hardware.gpu is not None:
        return replace(config, ray=replace(config.ray, address=ELSEWHERE))
    if config.learner.num_gpus or config.rollout.num_gpus:
        raise ConfigError("hardware.gpu is null: name the hosts, e.g. --hardware h100x8,nodes=2")
    here = replace(config.hardware, gpu="cpu", per_node=machine.cores, nodes=1, host_gib=machine.memory_bytes / GIB)
    return replace(config, hardware=replace(here, network_gb_s=1.0))  # gloo on loopback: docs/performance-log.md


def assumed_scenario(config: Config) -> Scenario:
    """A workload without measurements: completions have a third of the longest length on average."""
    return Scenario(
        mean_tokens=config.rollout.max_new_tokens / 3,
        prompt_tokens=config.data.max_prompt_tokens / 4,
        cores=config.hardware.per_node * config.hardware.nodes if config.hardware.gpu == "cpu" else None,
    )


def check_scenario(scenario: Scenario, limit: int) -> None:
    """Raise ConfigError for an impossible workload; `limit`: rollout.max_new_tokens."""
    checks = (
        (
            "--tokens",
            scenario.mean_tokens,
            1 <= scenario.mean_tokens <= limit,
            f"1 to rollout.max_new_tokens = {limit}",
        ),
        ("--spread", scenario.spread, 0 <= scenario.spread <= 10, "0 to 10"),
        ("--steps", scenario.steps, 4 <= scenario.steps <= 10_000, "4 to 10,000"),
        ("--slow-share", scenario.slow_share, 0 <= scenario.slow_share <= 1, "0 to 1"),
        ("--mtbf-hours", scenario.mtbf_hours, (scenario.mtbf_hours or 1) > 0, "more than 0"),
        ("--spot-hours", scenario.spot_hours, (scenario.spot_hours or 1) > 0, "more than 0"),
    )
    for option, value, holds, expected in checks:
        if not holds or (value == 0 and option.endswith("hours")):
            raise ConfigError(f"{option}: expected {expected}, got {value:g}")
